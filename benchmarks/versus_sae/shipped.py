"""The TopK autoencoders of docs/comparison.md as the small file that ships with the library.

.venv/bin/python -m benchmarks.versus_sae.shipped
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.versus_sae.comparison import SAE_NAMES, Record, chosen, groups, records
from benchmarks.versus_sae.sae_grid import CURVES
from benchmarks.versus_sae.sae_training import SaeSettings
from itda_core.evaluation.autoencoders import FILE

_MEASURES = {"fvu": "fvu_all", "fvu_without_massive": "fvu", "ce_loss_score": "ce_loss_score"}
_DIGITS = 6


def main() -> None:
    rows = [json.dumps(row) for row in shipped(CURVES)]
    FILE.write_text("[\n " + ",\n ".join(rows) + "\n]\n", encoding="utf-8")


def shipped(curves: Path) -> list[dict[str, Any]]:
    """A row a model, layer and number of tokens, by tokens: what `Autoencoder` has."""
    topk = [record for record in chosen(records(curves)) if record.method == SAE_NAMES["topk"]]
    return [_row(place, some) for place, some in groups(topk)]


def _row(place: tuple[str, int, int, str], some: Sequence[Record]) -> dict[str, Any]:
    model, layer, tokens, _ = place
    settings = SaeSettings("topk", 1.0)
    return {
        "model": model, "layer": layer, "corpus": "sotu", "latents": settings.n_latents,
        "l0": settings.l0, "tokens": tokens, "seeds": len(some),
        **{name: _mean(some, measure) for name, measure in _MEASURES.items()},
    }  # fmt: skip


def _mean(some: Sequence[Record], measure: str) -> float | None:
    values = [record.best[measure] for record in some if measure in record.best]
    return round(statistics.fmean(values), _DIGITS) if values else None


if __name__ == "__main__":
    main()
