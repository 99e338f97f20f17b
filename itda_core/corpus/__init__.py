"""Texts in, prompts out. files: rows of text files; corpus: prompts, held-out and training part."""
