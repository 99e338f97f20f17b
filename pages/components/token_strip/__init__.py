"""Rows of coloured tokens: a component of the project's own."""
