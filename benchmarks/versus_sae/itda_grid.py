"""The dictionaries that the autoencoders are compared with, trained and measured like them.

OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.versus_sae.itda_grid [--budget 1× …] [--again]
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import torch

from benchmarks.common.activations import use_cache
from benchmarks.common.captured import LAYERS, one_quiet_thread
from benchmarks.common.quality import reconstruction
from benchmarks.versus_sae.sae_grid import BUDGETS, MINILM, SMOLLM2, Bench, write_curve
from itda_core.activations.pool import MIN_SAMPLE, sample_rows
from itda_core.config import MEAN_BUDGET_CAP, HookPoint
from itda_core.dictionary.dictionary import SOURCE_COLUMNS, Dictionary
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.selection.coverage import choose, choose_on_average
from itda_core.selection.threshold import ThresholdSelection

N_ATOMS, L0 = 2_048, 32
PUBLISHED = ("threshold", "matching")
SPREAD = "orthogonal, L0 on average"
OURS = (("coverage", "orthogonal"), ("coverage", SPREAD))
METHODS = (PUBLISHED, ("coverage", "refit"), *OURS)
"""(selection, pursuit) of each kind of dictionary that is compared"""
_STEP, _MIN_STEPS = 2_048, 16
_BISECTIONS = 10
_FULL_AT = 0.97
"""The greedy method's threshold is right where the dictionary fills up in this last part of the
data: with a lower one it would look at less of it, with a higher one have fewer atoms."""


@dataclass(frozen=True)
class ItdaJob:
    """One dictionary."""

    model: str
    layer: int
    selection: str
    pursuit: str
    tokens: int
    seed: int

    @property
    def name(self) -> str:
        """What its file is called."""
        pursuit = self.pursuit.replace(", ", "-").replace(" ", "-").lower()
        name = f"itda-{self.model}-{self.layer}-{self.selection}-{pursuit}-{self.tokens}"
        return f"{name}-seed{self.seed}"


def jobs(budgets=tuple(BUDGETS)) -> Iterator[ItdaJob]:
    """Three seeds at 1× and 10×, each with rows of its own; one at 100×, and for MiniLM."""
    for model, layers in ((SMOLLM2, LAYERS[SMOLLM2]), (MINILM, LAYERS[MINILM])):
        for budget in budgets:
            for seed in range(1 if budget == "100×" or model == MINILM else 3):
                for layer in layers:
                    for selection, pursuit in METHODS:
                        yield ItdaJob(model, layer, selection, pursuit, BUDGETS[budget], seed)


def run(bench: Bench, job: ItdaJob, again: bool = False) -> None:
    """Train, measure and write, unless it is there and not wanted again."""
    path = bench.folder / f"{job.name}.json"
    if path.exists() and not again:
        return
    data = bench.data(job.model, job.layer)
    dictionary, seconds, facts = _itda_dictionary(job, data.block(job.tokens, job.seed))
    point = {
        "seconds": seconds, "tokens": job.tokens, "distinct": job.tokens,
        **reconstruction(dictionary, data.held_out), **bench.cost(dictionary),
    }  # fmt: skip
    found = {
        "command": "python -m benchmarks.versus_sae.itda_grid", "purpose": "itda",
        **asdict(job), "atoms": len(dictionary), **facts,
        "versions": {"torch": version("torch")}, "points": [point],
    }  # fmt: skip
    write_curve(path, found)


def _itda_dictionary(job: ItdaJob, x: torch.Tensor) -> tuple[Dictionary, float, dict]:
    """A dictionary of N_ATOMS of the rows of `x`, [n_tokens, d_model], in the order of the corpus;
    the CPU seconds that its training took; and what else is worth writing down."""
    if job.selection == "coverage":
        return _covering(job, x)
    threshold, atoms, rows, seconds = _fair_threshold(x)
    hook_point = HookPoint(job.model, job.layer)
    dictionary = _as_dictionary(atoms, torch.zeros(x.shape[1]), rows, job.pursuit, hook_point)
    return dictionary, seconds, {"threshold": threshold}


def _covering(job: ItdaJob, x: torch.Tensor) -> tuple[Dictionary, float, dict]:
    """The product's own method, on as large a sample as a training takes."""
    sample = torch.from_numpy(sample_rows(len(x), MIN_SAMPLE, job.seed))
    choose(x[:64], 16, 2, job.seed)  # compiles
    started = time.process_time()
    if job.pursuit == SPREAD:
        made, least = choose_on_average(x[sample], N_ATOMS, L0, MEAN_BUDGET_CAP * L0, job.seed)
    else:
        made, least = choose(x[sample], N_ATOMS, L0, job.seed), 0.0
    seconds = time.process_time() - started
    hook_point, rows = HookPoint(job.model, job.layer), sample[made.rows].tolist()
    pursuit = job.pursuit.split(",")[0]
    dictionary = _as_dictionary(made.atoms, made.offset, rows, pursuit, hook_point)
    if least:
        dictionary = dataclasses.replace(dictionary, l0=MEAN_BUDGET_CAP * L0, min_projection=least)
    return dictionary, seconds, {"sample": len(sample)}


def _as_dictionary(
    atoms: torch.Tensor, offset: torch.Tensor, rows, pursuit: str, hook_point: HookPoint
) -> Dictionary:
    """rows: the row of each atom, written down as its position; the benchmark needs no text."""
    sources = GrowingDictionary(atoms.shape[1], len(atoms)).source_table()[SOURCE_COLUMNS]
    sources = sources.reindex(range(len(atoms))).assign(latent=np.arange(len(atoms)), position=rows)
    return Dictionary(atoms, offset, L0, hook_point, sources, pursuit=pursuit)


def _fair_threshold(x: torch.Tensor) -> tuple[float, torch.Tensor, list[int], float]:
    """The published method with the threshold at which the dictionary fills up at the end of the
    data, found by bisection: threshold, atoms, their rows, and the seconds of that one training."""
    low, high = 0.0, 2.0
    best = None
    for _ in range(_BISECTIONS):
        threshold = (low + high) / 2
        started = time.process_time()
        grown, full_at = _greedy(x, threshold)
        seconds = time.process_time() - started
        if full_at is None:
            high = threshold
            continue
        best = threshold, grown.atoms.clone(), [source[1] for source in grown.sources], seconds
        low = threshold
        if full_at >= _FULL_AT:
            break
    if best is None:
        raise ValueError(f"{len(x):,} tokens don't fill a dictionary of {N_ATOMS:,} atoms.")
    return best


def _greedy(x: torch.Tensor, threshold: float) -> tuple[GrowingDictionary, float | None]:
    """One pass; and after which share of the data the dictionary was full, None for never."""
    grown = GrowingDictionary(x.shape[1], N_ATOMS)
    selection = ThresholdSelection(grown, L0, threshold)
    step = min(_STEP, max(128, len(x) // _MIN_STEPS))  # as a training's plan has it
    for first in range(0, len(x), step):
        part = x[first : first + step]
        selection.offer(part, [("", first + i, 0, 0, "", 0) for i in range(len(part))])
        if grown.is_full:
            return grown, min(1.0, (first + step) / len(x))
    return grown, None


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--budget", choices=BUDGETS, action="append", help="default: all")
    options.add_argument("--again", action="store_true", help="also what is there already")
    chosen = options.parse_args()
    one_quiet_thread()
    use_cache()
    bench = Bench()
    for job in jobs(chosen.budget or tuple(BUDGETS)):
        run(bench, job, chosen.again)


if __name__ == "__main__":
    main()
