"""The trainings of a list, one after another in this process."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from itda_core.errors import ItdaError, first_line
from itda_core.progress import Progress
from itda_core.training.list_check import fail_early
from itda_core.training.standing import Standing
from itda_core.training.trainer import train
from itda_core.training.training_list import ListedTraining


def train_in_turn(
    trainings: Sequence[ListedTraining],
    runs: Path,
    device: str | None = None,
    memory: int | None = None,
) -> Iterator[Progress]:
    """Train each of a list, as `train` does. One that fails costs no other: the last progress says
    why, in its `trainings`. What is written is not made again, and closing the generator keeps a
    checkpoint of the one that is under way."""
    standing = Standing(trainings)
    yield standing.progress("loading")
    for one in fail_early(standing, trainings):
        standing.begins(one.number)
        yield from _followed(standing, one, train(one.config, runs, device, memory))
        gc.collect()  # its model goes before the next one comes
        yield standing.progress()
    yield standing.progress()


def _followed(
    standing: Standing, one: ListedTraining, steps: Iterator[Progress]
) -> Iterator[Progress]:
    """One training among the others."""
    try:
        for progress in steps:
            standing.follows(one.number, progress.to_dict())
            if progress.stage == "done":
                standing.ends(one.number, progress.finished, progress.notes)
            else:
                yield standing.progress()
    except Exception as error:
        standing.fails(one.number, failure_in_words(error))
    finally:
        steps.close()


def failure_in_words(error: Exception) -> str:
    """A sentence; of an error that should not have come, its kind as well."""
    if isinstance(error, ItdaError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"
