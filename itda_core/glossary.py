"""What the words of this project mean, once: pages show these sentences as help, and
CONTRIBUTING.md lists them."""

GLOSSARY = {
    "prompt": "One text of a corpus. Its id is a digest of the text.",
    "token": "What the model's tokenizer makes of a few characters of a prompt.",
    "activation": "The model's vector at a layer for one token.",
    "hook point": "Where activations are taken: model, layer, and site. Layers count from 0.",
    "site": "A place in a block: the stream before it (resid_pre), what attention adds (attn_out), "
    "the stream then (resid_mid), what the MLP adds (mlp_out), and the stream after the block "
    "(resid_post, unless said otherwise).",
    "source": "Where an atom came from: a token in a prompt.",
    "atom": "The activation of a real token, scaled to length 1.",
    "latent": "The coordinate that goes with an atom. It is titled with the atom's source.",
    "code": "One term of a decomposition: a latent, its signed coefficient, and the step of the "
    "pursuit that took it.",
    "L0": "Terms that one token may use.",
    "dictionary": "Atoms and their sources, and the offset that is subtracted before pursuit.",
    "offset": "What is subtracted from activations before pursuit and added again at the end: the "
    "mean activation, or zero.",
    "run": "One dictionary's training. Training three layers in one pass makes three runs.",
    "cluster": "Machines that Ray lets work together: auto is the one that this machine belongs "
    "to, others are named host:port.",
    "selection": "Which activations become atoms. “coverage” chooses among many tokens those that "
    "explain the others best; “threshold” is the paper's greedy method.",
    "matching pursuit (MP)": "Takes the atom with the largest correlation with what is left, "
    "subtracts it, and goes on. Coefficients stay as they were taken.",
    "orthogonal matching pursuit (OMP)": "Matching pursuit that fits all coefficients together "
    "after each step.",
    "refitted pursuit": "Matching pursuit that fits all coefficients together once, at the end.",
    "candidate pool": "The tokens that could become atoms. Chance draws from it.",
    "seed atoms": "The first d_model atoms of the threshold selection, taken before there is "
    "anything to choose by.",
    "explored tokens": "The tokens whose codes are kept for browsing.",
    "held out": "The tenth of the prompts that nothing is trained on, the same for every model and "
    "seed.",
    "near miss": "The term that one more step of the pursuit would have taken.",
    "dead latent": "A latent that no explored token uses.",
    "strong use": "A use above its latent's own threshold, where at most one negative use comes "
    "with every ten positive ones.",
    "filler": "A use below its latent's threshold: a term that fills up what is left of a token, "
    "with either sign by chance.",
    "density": "Share of the explored tokens that use a latent.",
    "massive activation": "Massive activations are tokens whose norm is over 10 × the median norm.",
    "FVU": "Fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − x̄‖²: 0 is perfect, 1 is no better "
    "than the mean. Also called NMSE.",
    "FVU without massive": "FVU over the tokens that are no massive activations.",
    "median token": "‖x − x̂‖² / ‖x − x̄‖² of the median token, with x̄ the mean of the tokens that "
    "are no massive activations: half of the tokens are left with more. The FVU adds up squares, "
    "so that a few tokens with a large norm decide it.",
    "explained variance": "1 − FVU.",
    "cosine": "cos(x, x̂), mean over tokens.",
    "norm ratio": "‖x̂‖ / ‖x‖, mean over tokens: below 1 the reconstruction is too short.",
    "CE loss score": "What is left of the layer's help in predicting the next token when the "
    "reconstruction takes its place: 1 is all of it, 0 is as bad as zeros.",
    "KL (nats)": "How far the predictions move from those of the model as it is, mean.",
    "cross-entropy, model": "−log p of the next token by the model as it is, in nats, mean.",
    "cross-entropy, reconstruction": "The same with the reconstruction in the activations' place.",
    "cross-entropy, zeros": "The same with zeros in the activations' place.",
    "terms used": "Terms that a token really uses, mean.",
    "latents used": "Different latents that a token uses, mean: a pursuit may take one again.",
    "dead share": "Share of the latents that no evaluated token uses, at the largest L0.",
    "Jaccard index": "Shared source tokens divided by source tokens in either: 1 for the same "
    "tokens, 0 for none in common.",
    "chance": "What two sets of these sizes would share if they were drawn from the candidate "
    "pool.",
    "log-odds": "ln of the odds of a word among the sources of one dictionary over those among the "
    "other's. Both counts are shrunk: the word's count in the two together is added to each, so "
    "that a rare word does not stand out by chance. A word that only one of two lists of equal "
    "length has comes to about ln 2 ≈ 0.69, however rare it is; z says how sure it is.",
}
"""Term by term, what it means, in a sentence or two"""
