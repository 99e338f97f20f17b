"""From a configuration to runs in five stages: prepare, capture, select, encode, write.

One pass over the prompts feeds the builders of all layers' dictionaries. The activations of the
explored part are kept on disk on the way, so that encoding it needs no second pass. A checkpoint
every 20 s makes an interrupted training resume to the same dictionaries.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.plan import Plan, make_plan
from itda_core.activations.pool import CandidatePool, candidate_rows, pool_at
from itda_core.activations.recorded import RecordedModel
from itda_core.activations.source import ActivationSource
from itda_core.config import ModelSpec, TrainConfig, run_id
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.devices import full_memory_as_sentence
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.moving import MovedSources
from itda_core.errors import InputError, ItdaError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.loading import load_model
from itda_core.progress import Progress
from itda_core.pursuit.orthogonal import compile_pursuit
from itda_core.runs.interrupted import interrupted_trainings, lost_trainings
from itda_core.runs.run import Run, is_run, list_runs, read_run
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import Workspace
from itda_core.selection.builders import Builder
from itda_core.settings import IMPORTED, MOVED
from itda_core.training.capture import Capture
from itda_core.training.moving import Move
from itda_core.training.report import Captured, Report
from itda_core.training.run_writer import RunWriter

CHECKPOINT_SECONDS = 20.0
_NOTHING_LOST = (
    "Nothing that was kept is lost: resume the training where more is free, or on another device."
)


def resume(
    name: str, runs: Path, device: str | None = None, memory: int | None = None
) -> Iterator[Progress]:
    """Go on with an interrupted training, given its id or the id of one of its runs, on a device
    and with as much memory as may be others."""
    training_id = find_interrupted(name, runs)
    config = interrupted_trainings(runs)[training_id]
    yield from train(config, runs, device, memory, expected_id=training_id)


def find_interrupted(name: str, runs: Path) -> str:
    """The id of an interrupted training, given that or the id of one of its runs. Raises InputError
    where there is none that can be resumed."""
    interrupted, lost = interrupted_trainings(runs), lost_trainings(runs)
    training_id = name if name in {*interrupted, *lost} else name.rpartition("-L")[0]
    if training_id in lost:
        raise InputError(
            f"{training_id} can't be resumed. {lost[training_id]} Discard it on the Train page, or "
            f"delete {runs / f'.{training_id}'}, and start anew."
        )
    if training_id not in interrupted:
        listed = ", ".join(interrupted) or "none"
        raise InputError(f"There is no interrupted training {name!r}. There are: {listed}.")
    return training_id


def train(
    config: TrainConfig,
    runs: Path,
    device: str | None = None,
    memory: int | None = None,
    expected_id: str | None = None,
    origin: Run | None = None,
) -> Iterator[Progress]:
    """Train a dictionary for each layer of `config` and write the run directories.

    device: "cuda:1", "mps", "cpu" …, by default the best there is; everything is computed there,
    and which it was is no part of the training's id. memory: bytes of it that the model may use, by
    default what is free; one that takes more is read block by block, and gives the same dictionary.
    origin: of a move (see moving.py) the run that it is from, by default looked for in `runs`.
    What is already written is not made again, and what was interrupted goes on from its
    checkpoint. Closing the generator keeps a checkpoint, except on a device once the first layer is
    written: a pass that no checkpoint holds took it at most 20 s. Raises ItdaError with the remedy.
    """
    check_trainable(config)
    move = Move.of(config, runs, origin) if config.selection == MOVED else None
    yield Progress("opening" if config.activations else "loading")
    model = _source(config, runs, device, memory)
    yield from train_from(model, config, runs, _run, expected_id, move)


def check_trainable(config: TrainConfig) -> None:
    """Raises InputError for settings that no training can have."""
    config.check()
    if config.selection == IMPORTED:
        raise InputError("This dictionary was made elsewhere and imported: import it again.")


def train_from(
    model: ActivationSource,
    config: TrainConfig,
    runs: Path,
    run: Callable[[TrainingContext], Iterator[Progress]],
    expected_id: str | None = None,
    move: Move | None = None,
) -> Iterator[Progress]:
    """The training of a model that is there. run: what captures, selects, encodes and writes; move:
    where its atoms are those of another run."""
    config = config.with_dtype(model.dtype)
    model.check_layers(config.layers)
    model = model.at(config.site)
    if not isinstance(model, RecordedModel):
        yield Progress("reading")
    corpus = _corpus(config, model, move)
    config = replace(config, corpus=corpus.spec or config.corpus)
    workspace = Workspace(runs, _training_id(config, model, corpus, expected_id))
    names = [run_id(workspace.training_id, layer) for layer in config.layers]
    are_there = [is_run(runs / name) for name in names]
    if all(are_there):
        workspace.remove()
        known = {"finished": names, "notes": [*corpus.notes, *_notes_of(runs / names[0])]}
        yield Progress("done", workspace.training_id, fraction=1.0, **known)
        return
    if model.device.type == "cpu":
        yield Progress("compiling")
        compile_pursuit(config.pursuit)
    plan, moved = _plan(config, model, corpus, move)
    context = TrainingContext(config, model, corpus, plan, workspace, moved)
    full_memory = full_memory_as_sentence(model.device, _NOTHING_LOST)
    with workspace.locked(config), disk_errors_as_sentences(runs), full_memory:
        yield from run(context)
    workspace.remove()


def _run(context: TrainingContext) -> Iterator[Progress]:
    """Capture, then select, encode and write each layer."""
    checkpoint = yield from context.workspace.loading_checkpoint()
    capture = Capture(context, checkpoint)
    report = Report(context, capture)
    try:
        yield from _captured(capture, report)
        yield from written(context, capture, report, RunWriter(context))
    except GeneratorExit:  # cancelled between two windows or layers, where the state is whole
        capture.checkpoint()
        raise
    finally:
        capture.stop_reading()
    check_all_written(context, capture)
    yield report.done()


def _captured(capture: Capture, report: Report) -> Iterator[Progress]:
    """The pass to its end, with checkpoints."""
    last_checkpoint = time.monotonic()
    while not capture.is_done:
        progress = report.window() if capture.next_part() else report.block()
        is_due = time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS
        if is_due and capture.is_at_rest:
            capture.checkpoint()
            last_checkpoint = time.monotonic()
        yield progress
    # What a device holds may take longer to the disk than the device takes to make it anew.
    on_cpu = capture.context.device.type == "cpu"
    if on_cpu or time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
        capture.checkpoint()
    capture.stop_reading()


def written(
    context: TrainingContext, capture: Captured, report: Report, writer: RunWriter
) -> Iterator[Progress]:
    """The runs of the layers, one after another."""
    pools = _Pools(context)
    for layer in context.config.layers:
        if not context.is_written(layer):  # as before an interruption
            started = time.monotonic()
            yield report.layer(layer)
            builder = capture.builders[layer]
            dictionary = _selected(context, layer, builder, pools)
            if not len(dictionary):
                capture.seconds += time.monotonic() - started
                continue
            report.progress.notes = [*report.progress.notes, *builder.notes]
            yield report.encoding(layer, len(dictionary))
            seconds = capture.seconds + time.monotonic() - started
            facts = {
                "tokens": capture.rows[layer],
                "seconds": seconds,
                "skipped": capture.left_out(layer),
            }
            if context.asked_tokens:
                facts["asked_tokens"] = context.asked_tokens
            about = context.moved and context.moved.about(dictionary)
            for _ in writer.writing(layer, dictionary, capture.explored[layer], facts, about):
                yield report.progress
            capture.let_go(layer)
            capture.seconds += time.monotonic() - started
        report.progress.finished.append(context.run_id(layer))


def _notes_of(run: Path) -> list[str]:
    """What is to be said again of a training that is finished; run: one of its directories."""
    metrics = read_run(run).metrics
    if "asked_tokens" not in metrics:
        return []
    return [
        f"There were fewer tokens than the {metrics['asked_tokens']:,} asked for: "
        f"{metrics['tokens']:,} were read."
    ]


def _selected(
    context: TrainingContext, layer: int, builder: Builder, pools: "_Pools"
) -> Dictionary:
    """The dictionary of a layer; empty where no activation can be an atom."""
    dictionary = builder.atoms().dictionary(context, layer)
    if context.moved or not len(dictionary):
        return dictionary
    return replace(dictionary, pool=pools.of(dictionary))


class _Pools:
    """What the atoms of each layer were chosen from: usually the same for all."""

    def __init__(self, context: TrainingContext):
        self._context = context
        self._newest: tuple[bytes, CandidatePool] | None = None

    def of(self, dictionary: Dictionary) -> CandidatePool:
        plan = self._context.plan
        names = [prompt.prompt_id for prompt in plan.prompts]
        rows = candidate_rows(self._context.config, names, plan.rows, dictionary.sources)
        if self._newest is None or self._newest[0] != rows.tobytes():
            self._newest = rows.tobytes(), pool_at(plan, rows)
        return self._newest[1]


def _source(
    config: TrainConfig, runs: Path, device: str | None, memory: int | None
) -> ActivationSource:
    """The model, or the folder of its activations."""
    if not config.activations:
        return load_model(model_as_before(config, runs), device=device, memory=memory)
    recorded = RecordedModel(ActivationFolder(Path(config.activations)), device)
    recorded.check_config(config)
    return recorded


def _corpus(config: TrainConfig, model: ActivationSource, move: Move | None) -> Corpus:
    """The texts: of the corpus, or, as far as they are there, those of a folder or a run."""
    if move:
        return move.corpus(config)
    return model.corpus if isinstance(model, RecordedModel) else load_corpus(config.corpus)


def _plan(
    config: TrainConfig, model: ActivationSource, corpus: Corpus, move: Move | None
) -> tuple[Plan, MovedSources | None]:
    """What is read and, of a move, where the sources stand in it."""
    if move:
        return move.plan(model, corpus, config)
    plan = make_plan(model, corpus.training(config.seed), config, config.max_tokens)
    _check_enough_tokens(plan, config)
    return plan, None


def _training_id(
    config: TrainConfig, model: ActivationSource, corpus: Corpus, expected_id: str | None
) -> str:
    """Raises InputError where a training that is to be resumed has become another one."""
    training_id = config.training_id(model.identity, corpus.identity)
    if expected_id not in (None, training_id):
        raise InputError(
            f"{expected_id} can't be resumed: its model or corpus has changed since, or an "
            "earlier version began it. Start anew."
        )
    return training_id


def model_as_before(config: TrainConfig, runs: Path) -> ModelSpec:
    """With the data type of an equal training that was begun before, where "auto" leaves it open:
    a probe may change its mind, and the training is the same."""
    if config.model.dtype != "auto":
        return config.model
    before = [*interrupted_trainings(runs).values(), *(run.config for run in list_runs(runs))]
    return next((other.model for other in before if came_to(config, other)), config.model)


def came_to(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether `other` may be what `config` came to: data type, and how a file is read."""
    if config.model.dtype not in ("auto", other.model.dtype):
        return False
    said = config.corpus.to_dict()
    if {**other.corpus.to_dict(), **said} != other.corpus.to_dict():
        return False
    return other == replace(config, corpus=other.corpus).with_dtype(other.model.dtype)


def _check_enough_tokens(plan: Plan, config: TrainConfig) -> None:
    if plan.total_rows < config.max_atoms:
        raise InputError(
            f"The corpus gives {plan.total_rows:,} tokens, fewer than the {config.max_atoms:,} "
            f"atoms asked for. Ask for at most {plan.total_rows:,} atoms, or add texts."
        )


def check_all_written(context: TrainingContext, capture: Captured) -> None:
    """A layer without an atom is an error; the others are written all the same."""
    layers = context.config.layers
    empty = [layer for layer in layers if not context.is_written(layer)]
    if empty:
        context.workspace.remove()
        raise ItdaError(" ".join(_why_empty(context, capture, layer) for layer in empty))


def _why_empty(context: TrainingContext, capture: Captured, layer: int) -> str:
    """What kept a layer from having an atom."""
    of_what = f"Layer {layer} of {context.config.model.name} gives no "
    if capture.bad_rows[layer] >= capture.rows[layer]:
        return f"{of_what}finite activation. Choose dtype float32, or check the model's weights."
    usable = capture.rows[layer] - capture.bad_rows[layer]
    return (
        f"{of_what}atom: its {usable:,} usable activations have nothing to tell apart once their "
        "mean is subtracted, as where all texts have the same few tokens. Give texts that differ, "
        "a longer context, or the offset zero."
    )
