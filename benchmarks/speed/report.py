"""docs/performance.md from the results that the benchmarks left behind.

.venv/bin/python -m benchmarks.speed.report [--devices]

--devices: only the section on devices is written anew, such as for a device that was measured on
another machine.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.common.harness import RESULTS, as_markdown
from benchmarks.speed.device_report import HEADING, device_results, device_section

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("pursuit", "training", "store", "meaning", "app", "sessions", "namesakes")
_INTRODUCTION = """# Performance

Written by `make bench` (benchmarks/speed/report.py) from its results; do not edit. The section on
what limits each comes from [benchmarks/speed/notes.md](../benchmarks/speed/notes.md).

Times on shared machines drift, so what is compared was measured alternately in one process
(A B A B …), and ratios are of the same round. Where three numbers stand, they are
min – **median** – max.
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--devices", action="store_true", help="only the section on devices")
    path = DOCS / "performance.md"
    if options.parse_args().devices:
        text = with_devices(path.read_text(encoding="utf-8"), device_section(device_results()))
    else:
        text = _whole()
    path.write_text(text, encoding="utf-8")
    print(f"written: {path.relative_to(DOCS.parent)}")


def with_devices(page: str, section: str) -> str:
    """The page with its section on devices, which is the last one, put in or exchanged."""
    before, _, _ = page.partition(f"{HEADING}\n")
    return f"{before.rstrip()}\n\n{section}"


def _whole() -> str:
    files = [RESULTS / f"{name}.json" for name in NAMES]
    missing = [file.stem for file in files if not file.exists()]
    if missing:
        sys.exit(f"No results of {', '.join(missing)} yet: run make bench.")
    results = [json.loads(file.read_text()) for file in files]
    parts = [_INTRODUCTION, _machine(results[0]["machine"]), _targets(results)]
    notes = Path(__file__).with_name("notes.md")
    parts.append(notes.read_text(encoding="utf-8"))
    parts += [_section(result) for result in results]
    return with_devices("\n".join(parts), device_section(device_results()))


def _machine(facts: dict[str, str]) -> str:
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["## Machine", "", "| | |", "|---|---|", *rows, ""])


def _targets(results: list[dict]) -> str:
    blocks = [block for result in results for block in result["blocks"] if "target" in block]
    rows = [
        f"| {block['target']} | {block['wanted']} | {block['measured']} | "
        f"{'met' if block['met'] else '**missed**'} |"
        for block in blocks
    ]
    head = ["## Targets", "", "| what | wanted | measured | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _section(result: dict) -> str:
    lines = [f"## {result['title']}", "", result["about"], ""]
    for block in result["blocks"]:
        if "table" in block:
            lines += [as_markdown(block), ""]
        elif "plot" in block:
            lines += [f"![{block['plot']}](pictures/{_draw(result['name'], block)})", ""]
    return "\n".join(lines)


def _draw(name: str, block: dict) -> str:
    """Draw growth on logarithmic axes; returns the picture's file name."""
    matplotlib.rcParams["svg.hashsalt"] = "the same picture for the same figures"
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for label, points in block["series"].items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel=block["x"], ylabel=block["y"])
    axes.grid(alpha=0.3)
    if any(block["series"]):
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    slug = re.sub(r"[^a-z]+", "-", block["plot"].lower()).strip("-")
    file = f"{name}-{slug}.svg" if not slug.startswith(name) else f"{slug}.svg"
    figure.savefig(DOCS / "pictures" / file, metadata={"Date": None})
    pyplot.close(figure)
    return file


if __name__ == "__main__":
    main()
