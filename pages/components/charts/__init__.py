"""Figures: pure functions from a frame to a figure."""
