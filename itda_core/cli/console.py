"""What the commands print: progress on standard error, results as tables or JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from itda_core.errors import InputError
from itda_core.runs.run import Run


def show(
    options: argparse.Namespace, content: dict[str, Any], rows: str | Sequence[dict[str, Any]]
) -> None:
    """The JSON object, or its rows as a table; `rows` may name the entry that holds them."""
    if options.json:
        print(json.dumps(content, ensure_ascii=False, default=str))
        return
    rows = content[rows] if isinstance(rows, str) else rows
    if not rows:
        print("Nothing.")
        return
    cells = [[_cell(value) for value in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in [heads, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def status(text: str) -> None:
    """One line on standard error, rewritten in place on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{text:<100}" if end == "\r" else text, end=end, file=sys.stderr, flush=True)


def status_done() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def describe(progress) -> str:
    if progress.stage == "loading":
        return "Loading the model (unpacked once, on first use)"
    if progress.stage == "reading":
        return "Reading the corpus"
    if progress.stage == "done":
        return "Done"
    if progress.stage == "choosing":
        return f"Choosing the atoms of layer {progress.layer}"
    counts = [f"{count:,}" for count in progress.atoms.values() if count]
    atoms = f", atoms {', '.join(counts)}" if counts else ""  # the coverage has none yet
    speed = f", {progress.tokens_per_second:,.0f} tokens/s" if progress.tokens_per_second else ""
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left else ""
    return (
        f"{progress.stage.capitalize()}: {progress.fraction:.0%}, {progress.tokens:,} of "
        f"{progress.total_tokens:,} tokens{speed}{atoms}{left}"
    )


def keep_progress(file: Path | None, progress: dict[str, Any]) -> None:
    """Add a line to the file that the queue reads, where one is asked for."""
    if file:
        with file.open("a") as opened:
            opened.write(json.dumps(progress) + "\n")


def trained(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "directory": str(run.directory),
        "model": run.config.model.name,
        "layer": run.layer,
        "atoms": run.metrics["atoms"],
        "tokens": run.metrics["tokens"],
        "seconds": run.metrics["seconds"],
        "fvu": run.metrics["fvu"],
    }


def numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} takes numbers such as 7,15,22, got {text!r}.") from None


def require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"--{name} must be at least 1, got {value}.")
