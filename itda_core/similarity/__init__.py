"""How alike layers and models are.

dictionaries: the Jaccard index; source_sets, overlap: sets of sources and what chance shares;
log_odds: which words make the difference; measures: CKA and the others by name; linear, tokenwise:
their formulas; layers: models measured against each other; same_sources, namesakes, same_latents:
latents with the same source in two dictionaries; layer_namesakes: the same of two layers.
"""
