"""Activations and atoms in, codes out.

codes: what a decomposition is; matching: matching pursuit (MP); orthogonal: orthogonal matching
pursuit (OMP) and the refitted one; orthogonal_torch: how OMP goes on a device; gram: products of
atoms; products: those of activations and atoms; blocks: tokens in blocks that fit into memory;
kernel_matching, kernel_orthogonal: the compiled inner loops.
"""
