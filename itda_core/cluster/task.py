"""What one machine of a cluster does for a list: one training, told to the board.

Nothing heavy is imported before the training begins: torch counts its threads when it is.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itda_core.cluster.board import Attempt
from itda_core.cluster.machine import check_packages, go_to, machine_name, packages
from itda_core.cluster.shared_folder import check_shared
from itda_core.errors import ItdaError, TrainingHeld

MAX_ATTEMPTS = 5
"""A training that was killed so often is not begun again"""
TOLD_EVERY = 0.5
"""Seconds between two lines to the board"""
_LOOK_SECONDS = 1.0
UNTIL_FREE_SECONDS = 180.0
"""A file server lets go of a dead machine's lock after some 90 s"""
SILENT_SECONDS = 60.0
"""A dead machine that has written nothing for so long is not waited for"""


@dataclass(frozen=True)
class Order:
    """One training for a machine of the cluster."""

    number: int
    config: dict[str, Any]
    """`TrainConfig.to_dict`"""
    runs: str
    memory: int | None
    folder: str
    """in which the command was called: relative paths are meant from there"""
    token: str
    """a file in `runs` that the command holds: who sees it shares the folder"""
    packages: dict[str, str]
    """what the command's machine computes with"""
    together: int = 1
    """trainings that may share a machine's memory"""


class _Teller:
    """Talks with the board. In a thread of its own: Ray lends a task's processors to another one
    while its main thread waits for an answer."""

    def __init__(self, number: int, board: Any):
        self.number, self._board = number, board
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="board")

    def ask(self, method: str, *arguments: Any) -> Any:
        import ray

        what = getattr(self._board, method).remote
        return self._thread.submit(lambda: ray.get(what(*arguments))).result()

    def begin(self) -> list[Attempt]:
        """The times that this training was begun before."""
        import ray

        from itda_core.runs.training_lock import this_process

        node = ray.get_runtime_context().get_node_id()
        return self.ask("begin", self.number, node, this_process())


def train_here(order: Order, board: Any) -> dict[str, Any]:
    """Train, or go on with what another machine began. The ids of its runs as `finished`, with
    `notes`; `error`, a sentence, where it fails; neither where it was stopped."""
    teller = _Teller(order.number, board)
    before = teller.begin()
    try:
        _check(order, before)
        return _trained(order, teller, before)
    except Exception as error:
        from itda_core.training.in_turn import failure_in_words

        return {"error": failure_in_words(error)}


def _check(order: Order, before: list[Attempt]) -> None:
    """Raises ItdaError where this machine would write something else, or somewhere else."""
    if len(before) >= MAX_ATTEMPTS:
        raise ItdaError(
            f"Its process was killed {len(before)} times, perhaps for want of memory. Give it more "
            "(fewer workers at once, a smaller --memory), and train the list again."
        )
    check_packages(machine_name(), packages(), order.packages)
    check_shared(Path(order.runs), order.token)


def _trained(order: Order, teller: _Teller, before: list[Attempt]) -> dict[str, Any]:
    from itda_core.config import TrainConfig
    from itda_core.memory import memory_of_each
    from itda_core.training.trainer import train

    go_to(order.folder)
    config, until = TrainConfig.from_dict(order.config), time.monotonic() + UNTIL_FREE_SECONDS
    while True:
        memory = memory_of_each(order.together, order.memory)
        steps = train(config, Path(order.runs), memory=memory)
        try:
            return _followed(steps, teller)
        except TrainingHeld as held:
            if not _wait_until_free(held.directory, before, teller, until):
                raise


def _followed(steps: Iterator[Any], teller: _Teller) -> dict[str, Any]:
    """To the end, or until the board says stop."""
    told = -TOLD_EVERY
    for progress in steps:
        is_done = progress.stage == "done"
        if is_done or time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            is_stopped = teller.ask("follow", teller.number, progress.to_dict())
            if is_stopped and not is_done:
                steps.close()  # keeps a checkpoint
                return {}
    return {"finished": [*progress.finished], "notes": [*progress.notes]}


def _wait_until_free(directory: Path, before: list[Attempt], teller: _Teller, until: float) -> bool:
    """Whether a training that another process holds can be taken up. One whose machine is dead
    loses it once it has been silent for a while; a living one is waited for, since it may only be
    slow to notice that it was given up."""
    from itda_core.runs.training_lock import break_lock, holder_of, is_held, silent_seconds

    while is_held(directory):
        is_dead = holder_of(directory) in _of_dead_machines(before)
        if is_dead and silent_seconds(directory) > SILENT_SECONDS:
            break_lock(directory)
            return True
        if time.monotonic() > until or teller.ask("is_stopped"):
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _of_dead_machines(before: list[Attempt]) -> set[str]:
    """Processes of earlier attempts whose machine is no part of the cluster any more."""
    import ray

    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return {attempt.process for attempt in before if attempt.node not in living}
