"""How good a dictionary is.

metrics: every measure of a reconstruction; token_errors: where it is bad; splicing: what it costs
the model; pca: what principal components leave; by_l0: all of it by L0; autoencoders: trained ones
to read it against; sparse_probing: labels told from latents; detection: uses told from titles;
batch: runs one after another.
"""
