"""`train --list`: several trainings, and what became of each."""

import argparse
import sys
from collections.abc import Collection, Iterator
from typing import Any

from itda_core.cli.console import follow, show, trained
from itda_core.cli.scoring import score_trained
from itda_core.config import layers_in_words
from itda_core.progress import Progress
from itda_core.runs.run import Run, read_run
from itda_core.training.standing import failure_told
from itda_core.training.training_list import ListedTraining, read_list


def train_list(options: argparse.Namespace) -> int:
    """Train each of a list; exit 1 where one failed, which is named."""
    listed = read_list(options.list)
    last = follow(_steps(listed, options), options, can_resume=True, remedy="the same command.")
    runs = [read_run(options.runs / name) for name in last.finished]
    score_trained(runs, options)
    failed = [row for row in last.trainings if row["state"] == "failed"]
    failures = [
        {"training": row["number"], "title": row["title"], "error": row["error"]} for row in failed
    ]
    content = {"runs": [trained(run) for run in runs], "failures": failures}
    show(options, content, [*map(_row, runs), *(_failed_row(listed, row) for row in failed)])
    if failed:
        _tell(failures, len(listed), last.notes)
    return 1 if failed else 0


def _steps(listed: list[ListedTraining], options: argparse.Namespace) -> Iterator[Progress]:
    """Here one after another, on a cluster as many at once as there is room for."""
    if options.ray is None:
        from itda_core.training.in_turn import train_in_turn

        return train_in_turn(listed, options.runs, options.device, options.memory)
    from itda_core.cluster.trainings import train_each_on_cluster

    where = (options.runs, options.ray, options.memory, options.workers)
    return train_each_on_cluster(listed, *where)


def _row(run: Run) -> dict[str, Any]:
    """One of the table: with the seed and revision, by which those of a list differ."""
    told = trained(run)
    place = layers_in_words([run.layer], run.site).partition(" ")[2]
    config = run.config
    about = {"seed": config.seed, "revision": config.model.revision}
    return {**_without(told, "site", "directory"), "layer": place, **about}


def _failed_row(listed: list[ListedTraining], row: dict[str, Any]) -> dict[str, Any]:
    """The same of a training that has no runs."""
    config = listed[row["number"] - 1].config
    place = layers_in_words(config.layers, config.site).partition(" ")[2]
    nothing = dict.fromkeys(("atoms", "tokens", "seconds", "fvu"))
    about = {"seed": config.seed, "revision": config.model.revision}
    return {
        "run_id": f"failed: training {row['number']}",
        "model": config.model.name,
        "layer": place,
        **nothing,
        **about,
    }


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _tell(failures: list[dict[str, Any]], n_trainings: int, told: Collection[str]) -> None:
    """Each that failed and is not told yet, and a last line on what to do, which the queue shows
    and which says why the first one did."""
    first, *others = failures
    for one in others:
        line = failure_told(one["training"], one["title"], one["error"])
        if line not in told:
            print(line, file=sys.stderr)
    print(
        f"Error: {len(failures)} of {n_trainings} trainings failed, the first for this: "
        f"{first['error']} The others are written; the same list again makes these alone.",
        file=sys.stderr,
        flush=True,
    )
