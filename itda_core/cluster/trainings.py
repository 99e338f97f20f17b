"""The trainings of a list on a Ray cluster: each is a task of its own, on one machine.

A task runs `train` into the folder of runs that all machines share. One whose machine dies is begun
again on another, where it goes on from its checkpoint.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from itda_core.cluster.board import Board
from itda_core.cluster.connection import Size, connected, size_of, together
from itda_core.cluster.machine import environment, packages
from itda_core.cluster.shared_folder import shared
from itda_core.cluster.task import MAX_ATTEMPTS, Order, train_here
from itda_core.errors import first_line
from itda_core.progress import Progress
from itda_core.training.list_check import fail_early
from itda_core.training.standing import Standing
from itda_core.training.training_list import ListedTraining

_LOOK_SECONDS = 0.5
_STOP_SECONDS = 20.0
"""To come to a checkpoint; a queue ends this process after 30 s"""


def train_each_on_cluster(
    trainings: Sequence[ListedTraining],
    runs: Path,
    address: str,
    memory: int | None = None,
    workers: int | None = None,
) -> Iterator[Progress]:
    """Train each of a list on a cluster, as many at once as there is room for, or `workers` at
    most; on a GPU each where the cluster has any.

    address: auto or host:port; memory: bytes of its device that each one's model may use. One that
    fails costs no other: the last progress says why, in its `trainings`. What is written is not
    made again, and closing the generator stops all and keeps checkpoints. Raises ItdaError where
    there is no cluster.
    """
    standing = Standing(trainings)
    yield standing.progress("loading")
    runs = Path(runs).resolve()
    with connected(address) as ray, shared(runs) as token:
        crew = _Crew(ray, standing, workers or len(trainings))
        try:
            good = fail_early(standing, trainings, is_here=False)
            yield from crew.train(good, runs, memory, token)
        finally:
            crew.stop()


class _Crew:
    """The tasks of one list."""

    def __init__(self, ray: ModuleType, standing: Standing, at_once: int):
        self._ray, self._standing, self._at_once = ray, standing, at_once
        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        beside = {"num_cpus": 0, "scheduling_strategy": strategy(here, soft=False)}
        # Environment variables are said here too: the actor's process loads the same package.
        beside["runtime_env"] = {"env_vars": environment()}
        self._board = ray.remote(Board).options(**beside).remote()
        self._running: dict[Any, int] = {}
        """the number of each training, by its task"""

    def train(
        self, trainings: Sequence[ListedTraining], runs: Path, memory: int | None, token: str
    ) -> Iterator[Progress]:
        nodes = self._ray.nodes()
        size = size_of(nodes, min(self._at_once, max(1, len(trainings))))
        task, share = self._task(size), together(nodes, size)
        for one in trainings:
            while len(self._running) >= self._at_once:
                yield self._look()
            where = {"runs": str(runs), "folder": str(Path.cwd()), "token": token}
            about = {"packages": packages(), "memory": memory, "together": share}
            order = Order(one.number, one.config.to_dict(), **about, **where)
            self._running[task.remote(order, self._board)] = one.number
        while self._running:
            yield self._look()
        yield self._standing.progress()

    def _task(self, size: Size) -> Any:
        """A training that takes as much of a machine as lets all be busy."""
        return self._ray.remote(train_here).options(
            **size.resources,
            max_retries=MAX_ATTEMPTS,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment()},
        )

    def _look(self) -> Progress:
        """Wait a little, and take over what has come."""
        ended, _ = self._ray.wait([*self._running], timeout=_LOOK_SECONDS)
        self._take_over_lines()
        for task in ended:
            self._end(self._running.pop(task), task)
        return self._standing.progress()

    def _take_over_lines(self) -> None:
        hosts = {node["NodeID"]: node for node in self._ray.nodes()}
        for number, (attempt, line) in self._ray.get(self._board.look.remote()).items():
            if number in self._running.values():
                node = hosts.get(attempt.node, {})
                self._standing.begins(number, node.get("NodeManagerHostname", ""))
                self._standing.follows(number, line)
                if not node.get("Alive"):
                    self._standing.waits(number)

    def _end(self, number: int, task: Any) -> None:
        try:
            told = self._ray.get(task)
        except Exception as error:  # the machine or the process died too often, or Ray did
            told = {"error": f"Its process on the cluster ended: {first_line(error)}."}
        if error := told.get("error"):
            self._standing.fails(number, error)
        elif "finished" in told:
            self._standing.ends(number, told["finished"], told["notes"])

    def stop(self) -> None:
        """Let what runs come to a checkpoint, and end what does not."""
        if not self._running:
            return
        ray = self._ray
        with contextlib.suppress(Exception):  # a cluster that is gone has stopped already
            ray.get(self._board.stop.remote(), timeout=_STOP_SECONDS)
            begun = ray.get(self._board.look.remote(), timeout=_STOP_SECONDS)
            for task, number in self._running.items():
                if number not in begun:
                    ray.cancel(task)
            tasks = [*self._running]
            _, left = ray.wait(tasks, num_returns=len(tasks), timeout=_STOP_SECONDS)
            for task in left:
                ray.cancel(task, force=True)
