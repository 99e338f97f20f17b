"""What a device does of the work: forward pass, capture, pursuits, choice, trainings, memory.

.venv/bin/python -m benchmarks.speed.device [--device cuda] [--minutes 8] [--quick] [--out FILE]
    [--only PART] [--go-on]

For a GPU of NVIDIA, one of Apple, or a CPU. It needs no network and nothing beside torch,
transformers, numpy, numba, pandas and pyarrow. Everything that is measured is a part with its own
time; what fails or has no time left is written down, the others go on, and FILE is there from the
first figure on. Without --out it is benchmarks/results/device-NAME.json, which
`python -m benchmarks.speed.report --devices` puts into docs/performance.md beside other devices.

On a machine that is lent for some minutes, with seven of them to spend:

    python3 -m benchmarks.speed.device --device cuda --minutes 7 --out "$OUT/device.json"

Brought back, the file becomes benchmarks/results/device-NAME.json, which git keeps. --only and
--go-on measure it in pieces: parts that are in FILE are not measured again.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.common.activations import use_cache
from benchmarks.common.harness import RESULTS
from benchmarks.speed.device_bench import QUICK, SIZES, Bench, DeviceReport, Part, Sizes, reason
from itda_core.devices import best_device, checked_device, devices
from itda_core.errors import ItdaError

MINUTES = 8.0


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = _options(arguments)
    use_cache()
    device = torch.device(checked_device(chosen.device or best_device()))
    sizes = QUICK if chosen.quick else SIZES.get(device.type, SIZES["cpu"])
    report = _report(device, sizes, chosen)
    if chosen.go_on:
        report.go_on()
    bench = Bench(device, sizes, report, chosen.minutes)
    done = {part["part"] for part in report.parts}
    for part in parts(sizes):
        if part.name in done or chosen.only not in part.name:
            continue
        if not bench.measure(part):
            _go_on_in_a_new_process(chosen, bench, report)
    print(f"\nwritten: {report.save()}", flush=True)


def parts(sizes: Sizes) -> list[Part]:
    """All that is measured, what matters most first; seconds of eight minutes each."""
    found = [Part("copying on the device", _part("pursuit", "bandwidth"), 15)]
    found += [
        Part(f"agreement with the CPU, {name}", _part("agreement", "agreement", name), 60)
        for name in sizes.agreement_models
    ]
    by_atoms = [
        Part(f"pursuits, {n_atoms:,} atoms", _part("pursuit", "pursuits", n_atoms), 60)
        for n_atoms in sizes.pursuit_atoms
    ]
    by_tokens = [
        Part(f"training, {n_tokens:,} tokens", _part("training", "trainings", number), 90)
        for number, (n_tokens, _) in enumerate(sizes.trainings)
    ]
    found += [by_atoms[0], by_tokens[0]]
    if sizes.large:
        found.append(Part(f"{sizes.large.name}, all", _part("training", "large_model"), 120))
    found.append(Part("forward pass and capture", _part("training", "forward_passes"), 75))
    found += by_atoms[1:]
    found += [
        Part(f"choice, {n_atoms:,} atoms", _part("pursuit", "choice", n_atoms), 45)
        for n_atoms in sizes.choice_atoms
    ]
    return [*found, *by_tokens[1:]]


def _part(module: str, function: str, *arguments) -> Callable[[Bench], None]:
    """What runs a part. Its module is imported only then: what is missing costs this part alone."""

    def run(bench: Bench) -> None:
        home = importlib.import_module(f"benchmarks.speed.device_{module}")
        getattr(home, function)(*arguments, bench)

    return run


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", help="cuda, cuda:1, mps or cpu; by default the fastest")
    options.add_argument("--minutes", type=float, default=MINUTES, help="for all together")
    options.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options.add_argument("--out", type=Path, help="file of the results")
    options.add_argument("--only", default="", help="parts whose name has this in it")
    options.add_argument("--go-on", action="store_true", help="keep what FILE has, add the rest")
    return options.parse_args(arguments)


def _report(device: torch.device, sizes: Sizes, chosen: argparse.Namespace) -> DeviceReport:
    known = {one.name: one for one in devices()}
    name = f"{device.type}:{device.index or 0}" if device.type == "cuda" else str(device)
    facts = known.get(name)
    title = facts.title if facts else str(device)
    memory = f"{facts.total / 2**30:.0f} GiB" if facts else "unknown"
    slug = "cpu" if device.type == "cpu" else re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    quick = "-quick" if chosen.quick else ""
    return DeviceReport(
        f"device-{slug}{quick}",
        title,
        "Written by benchmarks/speed/device.py.",
        device={"device": title, "memory": memory, **sizes.as_rows},
        path=chosen.out or RESULTS / f"device-{slug}{quick}.json",
    )


def _go_on_in_a_new_process(chosen: argparse.Namespace, bench: Bench, report: DeviceReport) -> None:
    """The device fails all work of this process, as after an error in a kernel: begin another
    process that takes over what is written and the time that is left."""
    print("The device does not answer any more: going on in a new process.", flush=True)
    command = [sys.executable, "-m", "benchmarks.speed.device", "--go-on"]
    command += ["--device", str(bench.device), "--minutes", f"{bench.left / 60:.2f}"]
    command += ["--out", str(report.path), "--only", chosen.only]
    command += ["--quick"] if chosen.quick else []
    os.execv(sys.executable, command)


if __name__ == "__main__":
    try:
        main()
    except ItdaError as error:
        sys.exit(reason(error))
