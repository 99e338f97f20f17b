"""Estimates by what this machine took for jobs of the same kind, where it has done any."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from itda_core.config import TrainConfig
from itda_core.errors import InputError, RunError
from itda_core.jobs.estimate import Estimate, estimate
from itda_core.jobs.job import Job
from itda_core.jobs.measure_seconds import evaluation_seconds
from itda_core.jobs.measured import Measured, by_measured, measured_jobs
from itda_core.jobs.operations import START_SECONDS
from itda_core.jobs.queue import JobQueue
from itda_core.model.model_info import weights_folder
from itda_core.runs.run import read_run

_UNPACKING_SECONDS = 20.0
"""Of a built-in model that is not unpacked yet"""
_Work = Callable[[Job, Measured], tuple[str, float] | None]
"""Of a job that is done: its model, and the estimate of its seconds as if none had been measured"""


def likely_estimate(
    queue: JobQueue, config: TrainConfig, device: str, memory: int | None = None
) -> Estimate | None:
    """`estimate`, whose seconds are those of the trainings that the queue has done on the device,
    as far as there are any: of the same model where that has been trained."""

    def work(job: Job, took: Measured) -> tuple[str, float] | None:
        done = queue.config(job)
        if done is None or bool(done.activations) != bool(config.activations):
            return None
        tokens = min(done.max_tokens, took.tokens or done.max_tokens)
        found = estimate(replace(done, max_tokens=tokens), device, job.memory)
        return found and (done.model.name, found.seconds)

    found = estimate(config, device, memory)
    if found is None:
        return None
    if not config.activations and weights_folder(config.model) is None:
        found = replace(found, seconds=found.seconds + _UNPACKING_SECONDS)
    seconds = _likely(queue, "training", config.model.name, found.seconds, device, work)
    return replace(found, seconds=seconds)


def likely_evaluation_seconds(
    queue: JobQueue,
    dictionaries: Sequence[tuple[TrainConfig, int]],
    device: str,
    quick: bool = False,
) -> float | None:
    """`evaluation_seconds`, likewise by the evaluations that the queue has done."""

    def work(job: Job, _took: Measured) -> tuple[str, float] | None:
        try:
            runs = [read_run(Path(name)) for name in _directories(job)]
        except RunError:  # deleted since
            return None
        of_runs, was_quick = [(run.config, run.layer) for run in runs], "--quick" in job.arguments
        found = evaluation_seconds(of_runs, device=device, quick=was_quick)
        return None if found is None or not runs else (runs[0].config.model.name, found)

    seconds = evaluation_seconds(dictionaries, device=device, quick=quick)
    if seconds is None:
        return None
    model = dictionaries[0][0].model.name
    return _likely(queue, "evaluation", model, seconds, device, work)


def _likely(
    queue: JobQueue, kind: str, model: str, seconds: float, device: str, work: _Work
) -> float:
    """seconds: the estimate as if nothing had been measured."""
    of_model, of_others = [], []
    for job, took in measured_jobs(queue.jobs(), queue.folder, kind, device):
        try:
            found = work(job, took)
        except InputError:  # settings of long ago
            continue
        if found:
            (of_model if found[0] == model else of_others).append((found[1] - START_SECONDS, took))
    return by_measured(seconds, START_SECONDS, of_model or of_others)


def _directories(job: Job) -> list[str]:
    return [*job.arguments[: len(job.run_ids)]]
