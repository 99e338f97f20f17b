"""Dictionaries from and for other programs.

saelens, published: their folders; export: a run as files; importing, import_saelens,
import_published: folders as runs; model_card, hub: push and pull.
"""
