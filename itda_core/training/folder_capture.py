"""Activations of a corpus into a folder, from which trainings can be made later and elsewhere.

What is read, in what order and in which forward passes is what a training with the same settings
would read, so that it makes the same dictionaries from the folder. A part that is written stays:
an interrupted capture goes on behind it.
"""

import errno
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.folder_index import INDEX_FILE, FolderIndex
from itda_core.activations.folder_index import Part as PartIndex
from itda_core.activations.folder_writer import (
    STORED_DTYPES,
    part_file,
    prompt_rows,
    tensor_name,
    write_prompts,
    write_rows,
    write_tokens,
)
from itda_core.activations.plan import Plan, make_plan
from itda_core.activations.source import ActivationSource
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.devices import full_memory_as_sentence
from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.loading import load_model
from itda_core.progress import Progress
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import Workspace
from itda_core.training.held_out import HeldOutActivations, held_out_plan
from itda_core.training.reading import reader_of

_PART_BYTES = 2**27
"""Of one layer of a part, at most where a window has not more by itself"""
_NOTHING_LOST = "The parts that are written stay: capture again where more is free."


def capture_config(
    model: ModelSpec, corpus: CorpusSpec, layers: Sequence[int], **settings: Any
) -> TrainConfig:
    """What a capture reads, as a training says it. settings: max_tokens, context_length, seed,
    skip_first, site."""
    nothing = {"max_atoms": 1, "l0": 1, "explored_tokens": 0}
    return TrainConfig(model, corpus, tuple(layers), **nothing, **settings)


def capture_folder(
    config: TrainConfig,
    folder: Path,
    device: str | None = None,
    stored: str = "auto",
    model: ActivationSource | None = None,
    corpus: Corpus | None = None,
    memory: int | None = None,
) -> Iterator[Progress]:
    """Write the activations of `config.layers` into `folder`, with those of the held-out prompts.

    config: see `capture_config`; device, memory: as `load_model` takes them; stored: data type on
    disk, auto is the model's own where that loses nothing, else float32; model, corpus: in place of
    those that the configuration names. What is already written is not made again. Raises ItdaError
    with the remedy, InputError where the folder has something else.
    """
    if stored not in STORED_DTYPES:
        raise InputError(f"Keep activations as {', '.join(STORED_DTYPES)}, not as {stored!r}.")
    yield Progress("loading")
    model = model or load_model(config.model, device=device, memory=memory)
    config = config.with_dtype(model.dtype)
    model.check_layers(config.layers)
    model = model.at(config.site)
    yield Progress("reading")
    corpus = corpus or load_corpus(config.corpus)
    config = replace(config, corpus=corpus.spec or config.corpus)
    training_id = config.training_id(f"{model.identity} kept as {stored}", corpus.digest)
    workspace = Workspace(folder, training_id)
    if _is_done(folder, workspace):
        workspace.remove()
        known = [f"{folder} has all of it already: nothing was left to capture."]
        yield Progress("done", training_id, fraction=1.0, notes=known)
        return
    plan = make_plan(model, corpus.training(config.seed), config, config.max_tokens)
    context = TrainingContext(config, model, corpus, plan, workspace)
    full_memory = full_memory_as_sentence(model.device, _NOTHING_LOST)
    with disk_errors_as_sentences(folder), full_memory, workspace.locked(config):
        yield from _Writing(context, folder, stored).run()
    workspace.remove()


def _is_done(folder: Path, workspace: Workspace) -> bool:
    """Whether this capture is whole. Raises InputError where the folder has something else."""
    if (folder / INDEX_FILE).exists():
        if ActivationFolder(folder).index.training_id == workspace.training_id:
            return True
        raise InputError(f"{folder} holds other activations already. Choose a new folder.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Choose a new folder.")
    strange = folder.is_dir() and any(folder.iterdir()) and not workspace.directory.exists()
    if strange:
        raise InputError(
            f"{folder} is not empty, and what is in it was not begun with these settings. Choose a "
            "new folder, or the settings that it was begun with."
        )
    return False


@dataclass
class _Rows:
    """The rows of one layer that wait for their part to be full."""

    windows: int
    """of the plan that are read"""
    waiting: list[torch.Tensor] = field(default_factory=list)


class _Writing:
    """One capture under way."""

    def __init__(self, context: TrainingContext, folder: Path, stored: str):
        self._context, self._folder, self._stored = context, folder, stored
        self._parts = _window_groups(context.plan, context.model.d_model)
        self._held_out = held_out_plan(context)
        # All from one window on: a process may have been killed between the files of a part.
        written = min(self._windows_written(layer) for layer in context.config.layers)
        self._layers = {layer: _Rows(written) for layer in context.config.layers}
        self._progress = Progress(
            "capturing",
            context.workspace.training_id,
            tokens=self._rows_read(),
            total_tokens=self._total_rows,
            asked_tokens=context.asked_tokens,
            notes=[*context.notes, self._disk_note()],
        )
        self._started, self._rows_before = time.monotonic(), self._progress.tokens

    def run(self) -> Iterator[Progress]:
        """Parts, then the held-out prompts, then what says what they are."""
        for path in self._folder.glob(".part-*"):  # half written when a process was killed
            path.unlink()
        self._check_disk()
        yield self._progress
        read = {layer: rows.windows for layer, rows in self._layers.items()}
        if any(count < len(self._context.plan.windows) for count in read.values()):
            for part in reader_of(self._context).parts(read):
                for layer, x in (part.activations or {}).items():
                    self._take(layer, x)
                yield self._told(part.fraction)
                if all(rows.windows == len(self._context.plan.windows) for rows in self._all):
                    break
        self._write_held_out()
        self._write_about()
        self._progress.finish()
        yield self._progress

    @property
    def _all(self) -> list[_Rows]:
        return list(self._layers.values())

    def _take(self, layer: int, x: torch.Tensor) -> None:
        """x: the rows of the layer's next window, [n_rows, d_model]."""
        rows = self._layers[layer]
        rows.waiting.append(x.cpu())
        rows.windows += 1
        ends = [last for _, last in self._parts]
        if rows.windows in ends:
            self._write(ends.index(rows.windows), {layer: torch.cat(rows.waiting)})
            rows.waiting.clear()

    def _write(self, part: int, layers: dict[int, torch.Tensor]) -> None:
        for layer, x in layers.items():
            rows = {tensor_name(layer, self._context.config.site): x}
            dtype = self._context.model.dtype
            write_rows(self._folder, self._file(part, layer), rows, self._stored, dtype)

    def _file(self, part: int, layer: int) -> str:
        return part_file(part, layer, self._context.config.site)

    def _windows_written(self, layer: int) -> int:
        """Windows of a layer whose parts are there, without a gap."""
        for number, (first, _) in enumerate(self._parts):
            if not (self._folder / self._file(number, layer)).exists():
                return first
        return len(self._context.plan.windows)

    def _rows_read(self) -> int:
        plan = self._context.plan
        windows = min(rows.windows for rows in self._all)
        last = plan.windows[windows][0] if windows < len(plan.windows) else len(plan.prompts)
        return int(plan.rows[:last].sum())

    @property
    def _total_rows(self) -> int:
        return self._context.plan.total_rows

    def _told(self, fraction: float | None) -> Progress:
        """fraction: of the reading, where the windows don't tell it."""
        progress, seconds = self._progress, time.monotonic() - self._started
        progress.tokens = self._rows_read()
        progress.tokens_per_second = (progress.tokens - self._rows_before) / max(seconds, 1e-9)
        done = sum(rows.windows for rows in self._all)
        total = len(self._all) * len(self._context.plan.windows)
        progress.follow(done / total if fraction is None else fraction, 0.0, 1.0, seconds)
        return progress

    def _write_held_out(self) -> None:
        """As a training has them; those of a model read block by block came on the way."""
        plan, context, number = self._held_out, self._context, len(self._parts)
        files = [self._folder / self._file(number, layer) for layer in context.config.layers]
        if plan is None or all(path.exists() for path in files):
            return
        held_out = HeldOutActivations(context)
        self._write(number, {layer: held_out.of(layer) for layer in context.config.layers})

    def _write_about(self) -> None:
        context, held_out = self._context, self._held_out
        config, plans = context.config, [context.plan, *([held_out] if held_out else [])]
        texts = [
            (prompt.prompt_id, text)
            for plan in plans
            for prompt, text in zip(plan.prompts, plan.texts, strict=True)
        ]
        names = context.model.tokenizer.convert_ids_to_tokens
        write_tokens(self._folder, texts, names, config.skip_first)
        sides = [context.corpus.training(config.seed), context.corpus.held_out()]
        write_prompts(
            self._folder,
            [
                prompt_rows(
                    prompts[: len(plan.prompt_ids)], dict(texts), _cut(plan), is_held_out,
                    config.skip_first,
                )
                for plan, prompts, is_held_out in zip(plans, sides, (False, True), strict=False)
            ],
        )  # fmt: skip
        self._index().write(self._folder)

    def _index(self) -> FolderIndex:
        config, model, corpus = self._context.config, self._context.model, self._context.corpus
        plan, layers = self._context.plan, self._context.config.layers
        counts = [
            int(plan.rows[plan.windows[first][0] : plan.windows[last - 1][1]].sum())
            for first, last in self._parts
        ]
        counts += [self._held_out.total_rows] if self._held_out else []
        return FolderIndex(
            model=config.model,
            model_digest=model.digest,
            d_model=model.d_model,
            n_layers=model.n_layers,
            tokenizer=model.tokenizer_digest,
            put_in=model.put_in,
            layers=layers,
            sites=(config.site,),
            context_length=config.context_length,
            skip_first=config.skip_first,
            seed=config.seed,
            corpus=corpus.spec,
            corpus_digest=corpus.digest if corpus.spec else None,
            left_out=_left_out(corpus),
            parts=tuple(
                PartIndex(count, tuple(self._file(number, layer) for layer in layers))
                for number, count in enumerate(counts)
            ),
            training_id=self._context.workspace.training_id,
        )

    @property
    def _bytes(self) -> int:
        """Of the activations, at most."""
        held_out = self._held_out.total_rows if self._held_out else 0
        dtype = self._context.model.dtype if self._stored == "auto" else self._stored
        width = getattr(torch, dtype).itemsize * self._context.model.d_model
        return (self._total_rows + held_out) * width * len(self._layers)

    def _disk_note(self) -> str:
        return f"The folder will have about {self._bytes / 1e6:,.0f} MB."

    def _check_disk(self) -> None:
        """Raises OSError where there is no room for what is to come."""
        there = sum(path.stat().st_size for path in self._folder.glob("part-*"))
        if self._bytes - there > shutil.disk_usage(self._folder).free:
            raise OSError(errno.ENOSPC, "not enough space for the activations")


def _window_groups(plan: Plan, d_model: int) -> list[tuple[int, int]]:
    """The parts: first window of each and the one after its last."""
    most, groups, first, rows = _PART_BYTES // (4 * d_model), [], 0, 0
    for number, (start, end) in enumerate(plan.windows):
        count = int(plan.rows[start:end].sum())
        if number > first and rows + count > most:
            groups.append((first, number))
            first, rows = number, 0
        rows += count
    return [*groups, (first, len(plan.windows))]


def _cut(plan: Plan) -> list[str]:
    """Ids of the prompts that are longer than the context length; the last one may have been cut
    for want of room."""
    cut = [text.is_cut for text in plan.texts]
    cut[-1] = plan.cut > sum(cut[:-1])
    ids = [prompt.prompt_id for prompt in plan.prompts]
    return [name for name, is_cut in zip(ids, cut, strict=True) if is_cut]


def _left_out(corpus: Corpus) -> dict[str, int]:
    unreadable = sum(row.n_rows for row in corpus.bad_rows)
    counts = {"repeated": corpus.duplicates, "empty": corpus.empty, "unreadable": unreadable}
    return {what: count for what, count in counts.items() if count}
