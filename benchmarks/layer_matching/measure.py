"""Which layer of one model matches which of another, where the answer is known: every measure.

    OMP_NUM_THREADS=2 python -m benchmarks.layer_matching.measure                 measure everything
    OMP_NUM_THREADS=2 python -m benchmarks.layer_matching.measure --tokens 1000   one size only
    … --measure "Best partners"                                          and these measures only
    python -m benchmarks.layer_matching.measure --only-report

Layer i of a small model ought to match layer i of the models of its shape from other seeds, and
layer i of SmolLM2 its own layer i with noise in the weights. The figures are kept in
benchmarks/curves/layer-matching.json, from which docs/matching.md and its pictures are written.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.common.harness import machine
from benchmarks.layer_matching import noise as matching_noise
from benchmarks.layer_matching import report as matching_report
from benchmarks.layer_matching.contenders import Contender, Layers, contenders
from benchmarks.layer_matching.data import layers_of, names, rows
from benchmarks.layer_matching.score import score
from tools.train_tiny_models import SHAPES

FILE = Path(__file__).resolve().parents[1] / "curves" / "layer-matching.json"
SIZES = (1_000, 10_000, 100_000)
NOISE_SIZE = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, action="append", choices=SIZES)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--no-noise", action="store_true", help="leave SmolLM2 out")
    parser.add_argument("--measure", action="append", help="by title; the others stay as they are")
    parser.add_argument("--only-report", action="store_true")
    options = parser.parse_args()
    if not options.only_report:
        for n_tokens in options.tokens or SIZES:
            for shape in options.shape or SHAPES:
                seeds(shape, n_tokens, options.measure)
        if not options.no_noise and not options.shape:
            noise(options.measure)
    matching_report.write(results())


def results() -> dict:
    """What was measured so far."""
    if FILE.exists():
        return json.loads(FILE.read_text(encoding="utf-8"))
    return {"seeds": [], "noise": []}


def seeds(shape: str, n_tokens: int, measures: Sequence[str] | None = None) -> None:
    """Models of one shape from different seeds, at a number of tokens. measures: titles of those
    that are measured, by default all."""
    layers = [[rows(kept, n_tokens) for kept in model] for model in layers_of(shape)]
    found = []
    for contender in _chosen(n_tokens, measures):
        row = {"shape": shape, "tokens": n_tokens, **_measured(contender, layers)}
        found.append(row)
        print(_told(row), flush=True)
    names = {row["measure"] for row in found}
    _keep(
        "seeds",
        found,
        lambda row: (row["shape"], row["tokens"]) == (shape, n_tokens) and row["measure"] in names,
    )


def _chosen(n_tokens: int, measures: Sequence[str] | None) -> list[Contender]:
    return [one for one in contenders(n_tokens) if not measures or one.family in measures]


def noise(measures: Sequence[str] | None = None) -> None:
    """SmolLM2 against itself with more and more noise."""
    found, plain = [], None
    for share, layers in matching_noise.layers_by_share():
        if plain is None:
            plain = layers
            continue
        usual = matching_noise.usual_rows([plain, layers])
        for contender in _chosen(NOISE_SIZE, measures):
            row = {"noise": share, "tokens": len(usual[0][0]), **_measured(contender, usual)}
            found.append(row)
            print(_told(row), flush=True)
    names = {row["measure"] for row in found}
    _keep("noise", found, lambda row: row["measure"] in names)


def _measured(contender: Contender, layers: Layers) -> dict:
    """Score, seconds, and the mean matrix over pairs of different models."""
    started = time.perf_counter()
    values = contender.values(layers)
    seconds = time.perf_counter() - started
    apart = ~np.eye(len(layers), dtype=bool)
    return {
        "measure": contender.family,
        "setting": contender.setting,
        "is_ours": contender.is_ours,
        **asdict(score(values)),
        "seconds": round(seconds, 2),
        "matrix": np.nanmean(values[apart], axis=0).round(4).tolist(),
    }


def _told(row: dict) -> str:
    what = row["shape"] if "shape" in row else f"{row['noise']:.0%} noise"
    return (
        f"{what}, {row['tokens']:,} tokens, {row['measure']} {row['setting']}: "
        f"{row['share']:.3f} ({row['low']:.3f}–{row['high']:.3f}) in {row['seconds']:.1f} s"
    )


def _keep(part: str, found: list[dict], is_old) -> None:
    """Write new rows in the place of older ones."""
    known = results()
    known[part] = [row for row in known[part] if not is_old(row)] + found
    known["machine"] = machine()
    known["models"] = [name for shape in SHAPES for name in names(shape)]
    FILE.write_text(json.dumps(known, allow_nan=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
