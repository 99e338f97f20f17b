"""TopK autoencoders that were trained and measured once, to read a dictionary's numbers against.

autoencoders.json is written by `python -m benchmarks.versus_sae.shipped` from the trainings that
docs/comparison.md is about.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itda_core.settings import RESID_POST

FILE = Path(__file__).parent / "autoencoders.json"


@dataclass(frozen=True)
class Autoencoder:
    """Means over seeds, each on held-out prompts of its corpus."""

    model: str
    layer: int
    corpus: str
    latents: int
    l0: int
    tokens: int
    """distinct ones that it was trained on"""
    seeds: int
    fvu: float
    """with massive activations,"""
    fvu_without_massive: float
    """and without"""
    ce_loss_score: float | None
    """None where the model predicts no next token"""


def topk_autoencoders(
    model: str, layer: int, site: str, measured_on: dict[str, Any]
) -> list[Autoencoder]:
    """Those that can stand beside an evaluation, by tokens: of the very model, layer and site, on
    the prompts held out of the same corpus. measured_on: as the evaluation says it."""
    if site != RESID_POST or not measured_on.get("held_out"):
        return []
    where = model, layer, measured_on.get("corpus")
    return [one for one in _shipped() if (one.model, one.layer, one.corpus) == where]


@functools.cache
def _shipped() -> tuple[Autoencoder, ...]:
    return tuple(Autoencoder(**row) for row in json.loads(FILE.read_text(encoding="utf-8")))
