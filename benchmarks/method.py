"""What the parts of the method cost and bring: the pursuits, and the ways to choose atoms.

.venv/bin/python -m benchmarks.method [--quick]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.common.captured import Captured, one_quiet_thread
from benchmarks.common.harness import Report, in_turn, results_of
from itda_core.config import HookPoint
from itda_core.evaluation.metrics import fvu
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.orthogonal import PURSUITS, orthogonal_matching_pursuit
from itda_core.selection import coverage
from itda_core.selection.coverage import Choice, centre_of, choose

LAYER, TOKENS, HELD_OUT, ATOMS, L0 = 15, 40_960, 4_096, 2_048, 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    small = 8 if options.parse_args().quick else 1
    one_quiet_thread()
    tokens, held_out, atoms = TOKENS // small, HELD_OUT // small, ATOMS // small
    report = Report(
        "method",
        "The method",
        f"SmolLM2-135M, layer {LAYER}: {atoms:,} atoms, L0 {L0}, {tokens:,} training tokens, FVU "
        f"on {held_out:,} held-out tokens. One thread.",
    )
    data = Captured(HookPoint("smollm2-135m", LAYER))
    x, held = data.block(tokens, seed=0), data.held_out[:held_out]
    _pursuits(report, x, held, atoms)
    _choices(report, x, held, atoms)
    if small == 1:
        report.save()


def claims() -> list[dict[str, object]]:
    """Rows for docs/claims.md, from the results of the newest run."""
    targets = [block for block in results_of("method")["blocks"] if "target" in block]
    return [
        {
            "claim": block["target"],
            "command": "python -m benchmarks.method",
            "figure": block["measured"],
            "holds": block["met"],
        }
        for block in targets
    ]


def _pursuits(report: Report, x: torch.Tensor, held: torch.Tensor, n_atoms: int) -> None:
    made = choose(x, n_atoms, L0, seed=0)
    centred, gram = held - made.offset, gram_matrix(made.atoms)
    seconds = in_turn(
        {
            name: lambda pursue=pursue: pursue(centred, made.atoms, L0, gram)
            for name, pursue in PURSUITS.items()
        },
        rounds=3,
    )
    rows, left = [], {}
    for name, pursue in PURSUITS.items():
        codes = pursue(centred, made.atoms, L0, gram)
        left[name] = fvu(centred, codes.reconstruct(made.atoms))
        milliseconds = 1_000 * seconds[name].median / len(held)
        saved = left["matching"] - left[name]
        extra = milliseconds - 1_000 * seconds["matching"].median / len(held)
        rows.append(
            {
                "pursuit": name,
                "FVU": f"{left[name]:.4f}",
                "ms a token": milliseconds,
                "FVU saved per further ms": f"{saved / extra:.3f}" if extra > 0 else "–",
            }
        )
    report.table("Pursuits with the same atoms", rows)
    best = max(("refit", "orthogonal"), key=lambda name: _value(rows, name))
    report.target(
        "The default pursuit, orthogonal, saves more FVU per millisecond than refitting once",
        "more",
        "; ".join(
            f"{row['pursuit']}: {row['FVU']} at {row['ms a token']:.2f} ms a token" for row in rows
        ),
        best == "orthogonal",
    )


def _value(rows: list[dict], name: str) -> float:
    return next(float(row["FVU saved per further ms"]) for row in rows if row["pursuit"] == name)


def _choices(report: Report, x: torch.Tensor, held: torch.Tensor, n_atoms: int) -> None:
    centre = centre_of(x)
    directions = torch.nn.functional.normalize(x - centre.mean, dim=1)
    ways: dict[str, Callable[[np.random.Generator], torch.Tensor]] = {
        "random tokens": lambda draw: torch.from_numpy(draw.choice(len(x), n_atoms, replace=False)),
        "tokens nearest to the centres of k-means": lambda draw: coverage._central(
            directions, n_atoms, draw
        ),
        "random tokens, judged and thinned out": lambda draw: _thinned(
            directions, torch.from_numpy(draw.choice(len(x), 3 * n_atoms // 2, replace=False)), draw
        ),
        "coverage: nearest to half as many centres again, judged and thinned out": lambda draw: (
            coverage.cover(directions, n_atoms, L0, int(draw.integers(2**31)))
        ),
    }
    rows, best = [], {}
    for name, choose_rows in ways.items():
        values, seconds = [], []
        for seed in range(3):
            started = time.process_time()
            chosen = choose_rows(np.random.default_rng(seed)).sort().values
            seconds.append(time.process_time() - started)
            made = Choice(chosen, directions[chosen], centre, centre.mean)
            codes = orthogonal_matching_pursuit(held - made.offset, made.atoms, L0)
            values.append(fvu(held - made.offset, codes.reconstruct(made.atoms)))
        best[name] = float(np.mean(values))
        half = 4.303 * np.std(values, ddof=1) / np.sqrt(3)  # Student's t, three seeds
        rows.append(
            {
                "choice": name,
                "FVU, three seeds": f"{best[name]:.4f} ± {half:.4f}",
                "CPU seconds": float(np.mean(seconds)),
            }
        )
    report.table("Ways to choose atoms, orthogonal pursuit", rows)
    report.target(
        "The default choice of atoms, coverage, leaves less than the other ways compared",
        "least",
        "; ".join(f"{name}: {value:.4f}" for name, value in best.items()),
        min(best, key=best.get).startswith("coverage"),
    )


def _thinned(
    directions: torch.Tensor, candidates: torch.Tensor, draw: np.random.Generator
) -> torch.Tensor:
    losses = coverage._losses_without(directions, candidates, L0, draw)
    return candidates[losses.argsort(descending=True)[: 2 * len(candidates) // 3]]


if __name__ == "__main__":
    main()
