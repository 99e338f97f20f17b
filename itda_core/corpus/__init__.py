"""Texts in, prompts out. reading: bytes as lines; csv_files, tables: rows of the formats; files:
the texts of a file; corpus: prompts, held-out and training part."""
