"""A training taken apart: begun by hand, its bare forward pass, and the time in each stage."""

import pkgutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from itda_core.activations.plan import Plan, make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.model.model import Model
from itda_core.model.tokens import Tokens
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import Workspace
from itda_core.training.capture import Capture
from itda_core.training.run_writer import RunWriter

STAGES = {
    "forward pass": "itda_core.model.model:Model._hidden",
    "tokenising": "itda_core.activations.plan:Plan.tokens",
    "keeping the explored activations": "itda_core.runs.rows:RowFile.write",
    "choice: k-means": "itda_core.selection.coverage:_central",
    "choice: judging": "itda_core.selection.coverage:_losses_without",
    "encoding: pursuit": "itda_core.dictionary.dictionary:Dictionary.encode",
    "encoding: reconstruction": "itda_core.dictionary.dictionary:Dictionary.decode",
    "encoding: table of codes": "itda_core.training.encoding:_code_table",
    "encoding: near misses": "itda_core.training.encoding:terms_after",
}
"""The function that is timed for each stage."""


@contextmanager
def begun(
    model: Model, settings: TrainConfig, corpus: Corpus | None = None, plan: Plan | None = None
) -> Iterator[Capture]:
    """A training that is ready for its first window, in a folder of its own. corpus, plan: what it
    reads, where that is there already."""
    with tempfile.TemporaryDirectory(prefix="itda-bench-") as folder:
        corpus = corpus or load_corpus(settings.corpus)
        prompts = corpus.training(settings.seed)
        plan = plan or make_plan(model, prompts, settings, settings.max_tokens)
        workspace = Workspace(Path(folder), "bench")
        with workspace.locked(settings):
            context = TrainingContext(settings, model, corpus, plan, workspace)
            work = Capture(context, None)
            try:
                yield work
            finally:  # before the folder goes, lest something be written to it still
                for layer in work.explored:
                    work.let_go(layer)


def forward_batches(model: Model, tokens: Tokens) -> list[Tokens]:
    """The texts as a capture takes them to the model."""
    return [tokens.select(part) for part in model.forward_batches(tokens.lengths)]


def forward(model: Model, batches: Sequence[Tokens], layers: Sequence[int]) -> None:
    """The bare forward pass to the last of `layers`; nothing is kept."""
    for batch in batches:
        model._hidden(batch, layers)


def finish(work: Capture) -> None:
    """A training that was begun to its end: the pass, the choice, the runs."""
    while not work.is_done:
        work.next_part()
    write_runs(work, chosen(work))


def chosen(work: Capture) -> dict[int, Dictionary]:
    """The dictionaries of a training whose pass is over, by layer."""
    builders = work.builders.items()
    return {layer: one.atoms().dictionary(work.context, layer) for layer, one in builders}


def write_runs(work: Capture, dictionaries: dict[int, Dictionary]) -> None:
    """The run directories of a training that was begun, by layer."""
    writer = RunWriter(work.context)
    for layer, dictionary in dictionaries.items():
        facts = {"tokens": work.rows[layer], "seconds": 0.0, "skipped": {}}
        writer.write(layer, dictionary, work.explored[layer], facts)


def stage(place: str) -> tuple[Any, str]:
    """A module or class, and the name of its function that is a stage. Raises AttributeError where
    there is none."""
    owner, _, attribute = place.replace(":", ".").rpartition(".")
    found = pkgutil.resolve_name(owner)
    getattr(found, attribute)
    return found, attribute


@contextmanager
def stopwatches(wait: Callable[[], None] = lambda: None) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs. wait: until a device is done."""
    spent: dict[str, float] = defaultdict(float)

    def watched(name, function):
        def run(*arguments, **options):
            wait()
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                wait()
                spent[name] += time.perf_counter() - started

        return run

    patches = []
    for name, place in STAGES.items():
        owner, attribute = stage(place)
        watch = watched(name, getattr(owner, attribute))
        patches.append(mock.patch.object(owner, attribute, watch))
    for patch in patches:
        patch.start()
    try:
        yield spent
    finally:
        for patch in patches:
            patch.stop()
