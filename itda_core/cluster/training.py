"""One training over many machines: the five stages of a training, what takes long on a cluster."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from itda_core.cluster.capturing import ClusterCapture
from itda_core.cluster.connection import connected, size_of, together
from itda_core.cluster.encoding import ClusterEncoder
from itda_core.cluster.far_model import FarModel
from itda_core.cluster.messages import Orders
from itda_core.cluster.pool import Call, Pool
from itda_core.cluster.shared_folder import shared
from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.progress import Progress
from itda_core.runs.training_context import TrainingContext
from itda_core.settings import MOVED
from itda_core.training.report import Report
from itda_core.training.run_writer import RunWriter
from itda_core.training.trainer import (
    check_all_written,
    check_trainable,
    model_as_before,
    train_from,
    written,
)


def train_on_cluster(
    config: TrainConfig,
    runs: Path,
    address: str,
    memory: int | None = None,
    workers: int | None = None,
) -> Iterator[Progress]:
    """`train` on the machines of a Ray cluster: the same progress, the same runs.

    address: HOST:PORT of the cluster, or "auto" for the one that this machine belongs to. runs: a
    folder that all machines reach under the same path. memory: bytes that the model may use on each
    worker; one that takes more is read block by block. workers: by default one for each GPU or, on
    a cluster without, for each machine. In float32 on equal CPUs the runs are those of `train` with
    as many threads as a worker has CPUs, byte for byte but for their times. Closing the generator
    ends what runs on the cluster and keeps what is written; the same call goes on from there.
    Raises ItdaError with the remedy.
    """
    check_trainable(config)
    if config.activations:
        raise InputError(
            "What a cluster shares is the reading of a model. This training reads a folder of "
            "activations: train from it on one machine."
        )
    if config.selection == MOVED:
        raise InputError("A move reads few prompts: it is made on one machine, by `itda move`.")
    runs = runs.absolute()
    yield Progress("loading")
    with connected(address) as ray, shared(runs) as token:
        size = size_of(ray.nodes(), workers)
        spec = model_as_before(config, runs)
        what, threads = (spec, config.site, config.layers), max(1, size.cpus)
        where = {"folder": str(Path.cwd()), "together": together(ray.nodes(), size)}
        orders = Orders(*what, memory, threads, runs, token, **where)
        pool = Pool(ray, orders, size)
        try:
            # Where its data type is left open, the first worker settles it for all.
            pool.enlist(orders, 1 if spec.dtype == "auto" else None)
            model = yield from _described(pool)
            pool.enlist(replace(orders, spec=replace(spec, dtype=model.dtype)))
            yield from train_from(model, config, runs, functools.partial(_run, pool=pool))
        finally:
            pool.close()


def _described(pool: Pool) -> Iterator[Progress]:
    """The model, as the first worker that is ready describes it."""
    for heard in pool.run([Call("describe", ())]):
        if heard is None:
            yield Progress("loading", notes=pool.without_room)
        else:
            model: FarModel = heard[1]
    return model


def _run(context: TrainingContext, pool: Pool) -> Iterator[Progress]:
    """Capture, then select, encode and write each layer."""
    capture = ClusterCapture(context, pool)
    for _ in capture.take_up():
        yield Progress("checking", context.workspace.training_id)
    report = Report(context, capture)
    try:
        yield from _captured_and_chosen(capture, report, pool)
        encoder = functools.partial(ClusterEncoder, capture=capture, pool=pool)
        writer = RunWriter(context, encoder, {"device": context.model.device_type})
        for progress in written(context, capture, report, writer):
            progress.notes = _with(progress.notes, pool.notes)
            yield progress
    finally:
        capture.keep_seconds()
    check_all_written(context, capture)
    report.progress.notes = _with(report.progress.notes, pool.notes)
    yield report.done()


def _captured_and_chosen(capture: ClusterCapture, report: Report, pool: Pool) -> Iterator[Progress]:
    """The pass to its end, and the atoms of all layers; comes back also while nothing is heard, so
    that a command can be stopped."""
    notes = report.progress.notes
    for _ in capture.run():
        progress = report.window()
        progress.notes = [*notes, *_about_machines(pool), *pool.notes, *pool.without_room]
        yield progress
    yield report.layer(capture.layers[0])
    for _ in capture.choose():
        report.progress.notes = _with(report.progress.notes, pool.notes)
        yield report.progress


def _with(notes: list[str], more: list[str]) -> list[str]:
    """The notes and those of the others that they lack."""
    return [*notes, *(note for note in more if note not in notes)]


def _about_machines(pool: Pool) -> list[str]:
    """Which machines work, once all workers are ready."""
    machines = pool.machines
    if machines.total() < pool.workers:
        return []
    count = "1 worker" if pool.workers == 1 else f"{pool.workers} workers"
    return [f"{count} on {', '.join(sorted(machines))}."]
