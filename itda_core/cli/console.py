"""What the commands print: progress on standard error, results as tables or JSON."""

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from itda_core.config import CorpusSpec
from itda_core.errors import InputError, ItdaError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.files.foreign import check_foreign
from itda_core.progress import Progress
from itda_core.runs.run import Run
from itda_core.settings import RESID_POST
from itda_core.signs import with_signs
from itda_core.training.as_said import corpus_as_said, how_as_said

_STAGES = {
    "loading": "Loading the model (unpacked once, on first use)",
    "opening": "Opening the folder of activations",
    "reading": "Reading the corpus",
    "compiling": "Preparing the pursuit (compiled once, on first use)",
    "checking": "Checking what was kept",
    "done": "Done",
}

_TOLD_AT_ONCE = 3
"""Trainings of a list that are named while they run"""


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
    return f"{value:.4f}" if isinstance(value, float) else with_signs(str(value))


def follow(
    steps: Iterator[Progress],
    options: argparse.Namespace,
    can_resume: bool = False,
    remedy: str = "train --resume {training_id}",
) -> Progress:
    """Run some work to its end, telling how far it is; returns the last progress.

    A line goes to standard error, rewritten in place on a terminal, and to the file of --progress,
    which the queue reads. With `can_resume` SIGTERM and SIGINT stop the work where its state is
    whole: ItdaError. remedy: what goes on with it; "" where
    nothing does.
    """
    stopped: list[int] = []
    _check_progress_file(getattr(options, "progress", None))
    if can_resume:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _frame: stopped.append(received))
    progress, said, told = None, set(), ""
    for progress in steps:
        _say(progress.notes, said)
        _add_line(getattr(options, "progress", None), progress)
        if told != (told := describe(progress)):
            status(told)
        if stopped and progress.stage != "done":
            steps.close()
            end_status()
            go_on = f" Go on with: {remedy.format(training_id=progress.training_id)}"
            is_kept = progress.tokens or progress.block or progress.stage == "checking"
            is_begun = remedy and is_kept
            raise ItdaError(f"Stopped.{go_on if is_begun else ''}")
    end_status()
    return progress


def _say(notes: Sequence[str], said: set[str]) -> None:
    """Each note once, on a line of standard error that stays. said: those of before; grows."""
    for note in [note for note in notes if note not in said]:
        end_status()
        print(note, file=sys.stderr, flush=True)
        said.add(note)


def status(text: str) -> None:
    """One line on standard error, rewritten in place on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{text:<100}" if end == "\r" else text, end=end, file=sys.stderr, flush=True)


def end_status() -> None:
    """What comes next stands below the status."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


def describe(progress: Progress) -> str:
    """How far some work is, in a line."""
    if progress.trainings:
        return _describe_trainings(progress)
    if progress.stage in _STAGES:
        return _STAGES[progress.stage]
    if progress.stage == "choosing":
        return f"Choosing the atoms of layer {progress.layer}"
    what = " ".join(filter(None, (progress.stage.capitalize(), progress.run_id)))
    parts = [f"{what}: {progress.fraction:.0%}"]
    if progress.block is not None:  # through which all tokens go, so that none is done yet
        parts.append(f"the model is read block by block, now block {progress.block}")
    elif progress.total_tokens:
        parts.append(f"{progress.tokens:,} of {progress.total_tokens:,} tokens")
    if progress.tokens_per_second and progress.block is None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    atoms = [f"{count:,}" for count in progress.atoms.values() if count]
    if atoms:  # the coverage has none yet
        parts.append(f"atoms {', '.join(atoms)}")
    if progress.likely_seconds_left:
        parts.append(f"{progress.likely_seconds_left:.0f} s left")
    return ", ".join(parts)


def _describe_trainings(progress: Progress) -> str:
    """How far a list of trainings is, and what runs where."""
    by_state: dict[str, list[dict[str, Any]]] = {}
    for row in progress.trainings:
        by_state.setdefault(row["state"], []).append(row)
    done, failed = len(by_state.get("done", ())), len(by_state.get("failed", ()))
    parts = [f"Trainings: {progress.fraction:.0%}"]
    parts.append(f"{done} of {len(progress.trainings)} done")
    parts += [f"{failed} failed"] if failed else []
    for row in by_state.get("running", ())[:_TOLD_AT_ONCE]:
        where = f" on {row['where']}" if row["where"] else ""
        parts.append(f"{row['title']}{where} {row['fraction']:.0%}")
    others = len(by_state.get("running", ())) - _TOLD_AT_ONCE
    parts += [f"{others} more run"] if others > 0 else []
    if progress.seconds_left:
        parts.append(f"{progress.seconds_left:.0f} s left")
    return ", ".join(parts)


def _check_progress_file(file: Path | None) -> None:
    """Raises InputError where lines can't be added to it, before there is any work to lose."""
    if file is None:
        return
    if not file.parent.is_dir():
        raise InputError(f"--progress: there is no folder {file.parent}. Make it, or name another.")
    try:
        check_foreign(file)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise InputError(f"--progress: {error}. Name another.") from error


def _add_line(file: Path | None, progress: Progress) -> None:
    if file:
        with disk_errors_as_sentences(file.parent), file.open("a", encoding="utf-8") as opened:
            line = {"time": datetime.now(UTC).isoformat(), **progress.to_dict()}
            opened.write(json.dumps(line) + "\n")


def trained(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "directory": str(run.directory),
        "model": run.config.model.name,
        "layer": run.layer,
        **({} if run.site == RESID_POST else {"site": run.site}),
        "atoms": run.metrics["atoms"],
        "tokens": run.metrics["tokens"],
        "seconds": run.metrics["seconds"],
        "fvu": run.metrics["fvu"],
    }


def refuse(options: argparse.Namespace, names: Collection[str], why: str) -> None:
    """Raises InputError where one of some options was given that would have no effect. why: the
    sentence up to their names."""
    given = [f"--{name.replace('_', '-')}" for name in options.given if name in names]
    if given:
        raise InputError(f"{why} {', '.join(given)}.")


def refuse_without_corpus(options: argparse.Namespace) -> None:
    """Raises InputError where options say how the file of --corpus is read, and there is none."""
    how = [field.name for field in dataclasses.fields(CorpusSpec) if field.name != "name"]
    if options.corpus is None:
        refuse(options, how, "Without --corpus no file is read: name it as well, or leave out")


def corpus_spec(options: argparse.Namespace) -> CorpusSpec:
    """The corpus that the options name."""
    return corpus_as_said(vars(options))


def how_read(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a CorpusSpec that say how its file is read."""
    return how_as_said(vars(options))
