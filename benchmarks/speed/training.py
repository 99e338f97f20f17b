"""Training against the forward pass that no method avoids; growth with tokens; memory.

.venv/bin/python -m benchmarks.speed.training [--quick]
"""

import argparse
import dataclasses
import subprocess
import sys
import threading
import time
from collections import defaultdict

import psutil
import torch

from benchmarks.common.activations import LAYERS, config, smollm2, use_cache
from benchmarks.common.harness import Report, Spread, in_turn
from benchmarks.common.training_stages import (
    begun,
    chosen,
    finish,
    forward,
    forward_batches,
    stopwatches,
    write_runs,
)
from itda_core.activations.plan import Plan, make_plan
from itda_core.corpus.corpus import load_corpus
from itda_core.model.model import Model
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit

TOKENS, ATOMS = 65_536, 4_096
GROWTH, GROWTH_LAYER = (16_384, 65_536, 262_144), 7
MEMORY_TOKENS, MEMORY_LAYERS = 1_000_000, (0, 1, 2)
MEMORY_LIMIT = 1.5 * 2**30


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options.add_argument("--choice", action="store_true", help="only what the atoms cost")
    options.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    use_cache()
    if chosen.memory_of:
        print(_peak_beyond_model(chosen.memory_of))
        return
    small = 16 if chosen.quick else 1
    report = Report(
        "training",
        "Training",
        "SmolLM2-135M on the built-in corpus, 128 tokens of each prompt. The *bare forward pass* "
        "runs the same batches to the last layer asked for, and does nothing else.",
    )
    _against_forward(report, TOKENS // small, ATOMS // small)
    if chosen.choice:
        report.name = "choice"  # beside the results of the whole benchmark
        report.save()
        return
    _data_types(report, 4_096 // small)
    _growth(report, [tokens // small for tokens in GROWTH])
    _memory(report, MEMORY_TOKENS // small)
    if not chosen.quick:
        report.save()


def _bare_forward(model: Model, plan: Plan, window: int, layers: tuple[int, ...]) -> float:
    """Seconds of the forward passes of one window."""
    tokens = plan.tokens(*plan.windows[window])
    parts = forward_batches(model, tokens)
    started = time.perf_counter()
    forward(model, parts, layers)
    return time.perf_counter() - started


def _against_forward(report: Report, n_tokens: int, n_atoms: int) -> None:
    model, settings = smollm2(), config(n_tokens, max_atoms=n_atoms)
    bare, trained, spent_bare = [], [], defaultdict(float)
    with begun(model, settings) as work, stopwatches() as spent:
        _bare_forward(model, work.context.plan, 0, LAYERS)
        orthogonal_matching_pursuit(torch.ones(2, 4), torch.eye(4), 2, gram_matrix(torch.eye(4)))
        spent.clear()
        for window in range(len(work.context.plan.windows)):
            before = dict(spent)
            bare.append(_bare_forward(model, work.context.plan, window, LAYERS))
            for name, seconds in spent.items():
                spent_bare[name] += seconds - before.get(name, 0.0)
            started = time.perf_counter()
            work.next_part()
            trained.append(time.perf_counter() - started)
        for name, seconds in spent_bare.items():
            spent[name] -= seconds
        started = time.perf_counter()
        dictionaries = chosen(work)
        choosing_seconds = time.perf_counter() - started
        started = time.perf_counter()
        write_runs(work, dictionaries)
        writing_seconds = time.perf_counter() - started
        sizes = [len(dictionary) for dictionary in dictionaries.values()]
    windows = Spread(tuple(trained)) / Spread(tuple(bare))
    training_seconds = sum(trained) + choosing_seconds
    ratio = training_seconds / sum(bare)
    whole = (training_seconds + writing_seconds) / sum(bare)
    rows = [
        {"until": "the bare forward pass", "seconds": sum(bare), "of the forward pass": 1.0},
        {
            "until": "the last token is read",
            "seconds": sum(trained),
            "of the forward pass": sum(trained) / sum(bare),
        },
        {"until": "the dictionaries", "seconds": training_seconds, "of the forward pass": ratio},
        {
            "until": "all tokens encoded, measured and written",
            "seconds": training_seconds + writing_seconds,
            "of the forward pass": whole,
        },
    ]
    report.table(
        f"Layers {', '.join(map(str, LAYERS))}; {n_tokens:,} tokens; "
        f"{', '.join(f'{size:,}' for size in sizes)} atoms; L0 {settings.l0}; {model.dtype}",
        rows,
        f"Bare pass and training in turn, window by window ({len(bare)} windows); their ratio by "
        f"window: {windows}.",
    )
    _show_stages(report, spent, training_seconds + writing_seconds)
    choice = choosing_seconds / sum(bare)
    size = f"{n_tokens:,} tokens and {n_atoms:,} atoms"
    for which, cost in (("one layer", choice / len(LAYERS)), ("three layers", choice)):
        report.target(
            f"Choosing the atoms of {which}, {size} each, against the forward pass",
            "≤ 0.25×",
            cost,
            cost <= 0.25,
        )
    report.target(
        "Training three layers against the bare forward pass", "≤ 1.25×", ratio, ratio <= 1.25
    )
    report.target("The same until all is written", "≤ 1.8×", whole, whole <= 1.8)


def _show_stages(report: Report, spent: dict[str, float], total: float) -> None:
    rows = [
        {"stage": name, "seconds": seconds, "share": f"{seconds / total:.1%}"}
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    rest = total - sum(spent.values())
    rows.append({"stage": "everything else", "seconds": rest, "share": f"{rest / total:.1%}"})
    report.table("Where the time goes", rows)


def _data_types(report: Report, n_tokens: int) -> None:
    models = {dtype: smollm2(dtype) for dtype in ("float32", "bfloat16", "auto")}
    settings = config(n_tokens, max_atoms=64)
    corpus = load_corpus(settings.corpus)
    plan = make_plan(models["auto"], corpus.training(0), settings, n_tokens)
    plan.windows = [(0, len(plan.prompts))]
    seconds = in_turn(
        {
            dtype: lambda m=model: _bare_forward(m, plan, 0, LAYERS)
            for dtype, model in models.items()
        }
    )
    report.table(
        "The forward pass by data type",
        [
            {
                "dtype": dtype if dtype != "auto" else f"auto, here {models['auto'].dtype}",
                "tokens/s": seconds[dtype].per(plan.total_rows),
                "faster than float32 by": seconds["float32"] / seconds[dtype],
            }
            for dtype in models
        ],
    )


def _growth(report: Report, sizes: list[int]) -> None:
    model, rows, points = smollm2(), [], {}
    for n_tokens in sizes:
        settings = config(n_tokens, max_atoms=2_048 if n_tokens > 8_192 else 128)
        settings = dataclasses.replace(settings, layers=(GROWTH_LAYER,), explored_tokens=n_tokens)
        started = time.perf_counter()
        with begun(model, settings) as work:
            finish(work)
        points[n_tokens] = time.perf_counter() - started
        rows.append(
            {
                "tokens": f"{n_tokens:,}",
                "seconds": points[n_tokens],
                "tokens/s": n_tokens / points[n_tokens],
            }
        )
    report.table(
        f"Growth with the number of tokens: layer {GROWTH_LAYER}, all tokens explored",
        rows,
        "One round each. From the plan to the written run directory, loading the model left out.",
    )
    report.plot("Training: growth with the number of tokens", "tokens", "seconds", {"": points})
    slowdown = (points[sizes[-1]] / sizes[-1]) / (points[sizes[1]] / sizes[1])
    report.target(
        "Time of a token at the largest size against the middle one",
        "≤ 1.1×, linear",
        slowdown,
        slowdown <= 1.1,
    )


def _memory(report: Report, n_tokens: int) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.training", "--memory-of", str(n_tokens)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak = float(said.split()[-1])
    report.target(
        f"Peak memory beyond the model: {n_tokens:,} tokens × 3 layers "
        f"({', '.join(map(str, MEMORY_LAYERS))}; memory depends on widths, not on depth), all "
        "explored, 2,048 atoms, L0 4",
        "≤ 1.5 GiB",
        f"{peak / 2**30:.2f} GiB",
        peak <= MEMORY_LIMIT,
    )


def _peak_beyond_model(n_tokens: int) -> float:
    """Bytes of memory at the highest point of a training, less what there was before it."""
    model = smollm2()
    settings = dataclasses.replace(
        config(n_tokens, max_atoms=2_048, l0=4), layers=MEMORY_LAYERS, explored_tokens=n_tokens
    )
    process, peak, done = psutil.Process(), [0], threading.Event()
    # One pass that brings in everything a model needs, but nothing of the training.
    model.capture(model.tokenize(["The Senate met."] * 64), MEMORY_LAYERS)
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with begun(model, settings) as work:
            finish(work)
        if work.tokens < n_tokens:
            raise RuntimeError(f"Only {work.tokens:,} of {n_tokens:,} tokens were read.")
    finally:
        done.set()
        thread.join()
    return peak[0] - before


if __name__ == "__main__":
    main()
