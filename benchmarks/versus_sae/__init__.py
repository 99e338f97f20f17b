"""Dictionaries beside sparse autoencoders: `make claims` writes docs/comparison.md."""
