"""Atoms and the tokens that they come from.

dictionary: the dictionary and its file; growing: while it is built; sae_encoder: what an imported
autoencoder has in the place of a pursuit; legacy: files of earlier versions.
"""
