"""Dictionaries of given sources, for tests that compare them."""

import numpy as np
import pandas as pd
import torch

from itda_core.activations.pool import CandidatePool
from itda_core.config import HookPoint
from itda_core.corpus.corpus import prompt_id
from itda_core.dictionary.dictionary import Dictionary

PROMPT_IDS = tuple(prompt_id(f"prompt {number}") for number in range(6))
P, Q, R = PROMPT_IDS[:3]


def made(sources, prompt_ids=PROMPT_IDS, tokenizer="one", words=None, layer=0, reading="", **more):
    """A dictionary of given sources (prompt, position); words: the character of each, or none;
    more: other fields, or `tokens`, the texts of the sources."""
    tokens = more.pop("tokens", [f"t{position}" for _, position in sources])
    table = pd.DataFrame(
        {
            "latent": range(len(sources)),
            "prompt_id": [prompt for prompt, _ in sources],
            "position": [position for _, position in sources],
            "start": [3 * position for _, position in sources],
            "end": [3 * position + 2 for _, position in sources],
            "token": pd.Series(tokens, dtype=object),
        }
    ).astype({"position": "int64", "start": "int64", "end": "int64"})
    return Dictionary(
        atoms=torch.nn.functional.normalize(torch.randn(len(sources), 4), dim=1),
        offset=torch.zeros(4),
        l0=2,
        hook_point=HookPoint("a/model", layer),
        sources=table,
        words=np.array([] if words is None else words, dtype=np.int64),
        prompt_ids=tuple(prompt_ids),
        tokenizer=tokenizer,
        reading=reading,
        **more,
    )


def rows(table):
    return list(zip(table["prompt_id"], table["position"], strict=True))


def offered_all(n_tokens, n_prompts=6, per_word=1):
    """Every prompt offers `n_tokens`; each word has `per_word` of them, and three characters."""
    positions = np.tile(np.arange(n_tokens), n_prompts)
    return CandidatePool.of(np.full(n_prompts, n_tokens), positions, 3 * (positions // per_word))
