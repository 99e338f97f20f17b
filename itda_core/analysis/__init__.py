"""One dictionary looked at closely.

decomposition: a text as sums of latents; what_if: terms changed; steering: an atom added while the
model writes; neighbours: what lies near a latent; latent_map: all atoms in the plane;
latent_scores: how far each latent can be trusted, by the tokens of judged_tokens and the judge of
nearness.
"""
