"""Dictionaries from and for other programs.

saelens, published: their folders; export: a run as files; importing, import_saelens,
import_published: folders as runs; model_card, hub: push and pull. capture_nnsight,
capture_transformer_lens: activations that they give, as a folder to train from.
"""
