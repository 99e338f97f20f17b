"""What runs on the machines of a cluster: a worker holds the model, or reads it block by block.

It is told what to do call by call and keeps nothing but the model and the newest dictionary, so
that any other can do the same call again. Nothing here knows of Ray.
"""

import errno
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from itda_core.activations.plan import LazyBatches, Plan
from itda_core.cluster.choosing import Chosen, chosen
from itda_core.cluster.far_model import FarModel, far_model
from itda_core.cluster.kept_parts import PartRows
from itda_core.cluster.machine import go_to, machine_name, packages
from itda_core.cluster.messages import Arrival, Captured, Failure, Greeting, Orders, Share
from itda_core.cluster.part_writing import PartWriting
from itda_core.cluster.shared_folder import check_shared
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Corpus
from itda_core.devices import is_out_of_memory, what_was_full
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError, ItdaError, first_line
from itda_core.evaluation.metrics import ReconstructionSums
from itda_core.memory import memory_of_each
from itda_core.model.loading import load_model
from itda_core.model.tokens import Tokens, padded
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import Workspace
from itda_core.training.encoding import Block, encoded_blocks, held_out_measures

_TELL = 0.01
"""Of a call: how much more has to be done before it is told how far it is"""


class Worker:
    """One process of a machine, with one GPU or some CPUs."""

    def __init__(self, orders: Orders):
        self._orders = orders
        self._newest: tuple[int, Dictionary, torch.Tensor | None] | None = None

    def work(self, call: str, arguments: tuple) -> Iterator[Any]:
        """Do a call of one of the methods below: what it yields, or at last why it failed."""
        try:
            yield from getattr(self, call)(*arguments)
        except ItdaError as error:
            yield Failure(machine_name(), str(error), isinstance(error, InputError))
        except OSError as error:
            # As a sentence at once: over the way back it would lose its number.
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            told = f"There is no space left on the disk of {self._orders.runs}"
            told = told if is_full else f"A file can't be read or written: {first_line(error)}."
            yield Failure(machine_name(), told, is_disk=is_full)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            told = f"Memory is full ({what_was_full(error)})."
            yield Failure(machine_name(), told, is_input=True)

    def greet(self) -> Iterator[Arrival | Greeting]:
        """Load the model. Raises InputError where the folder is not the one of the others."""
        yield Arrival()
        orders = self._orders
        go_to(orders.folder)
        check_shared(orders.runs, orders.token)
        torch.set_num_threads(orders.threads)
        memory = memory_of_each(orders.together, orders.memory)
        model = load_model(orders.spec, memory=memory)
        model.check_layers(orders.layers)
        self._model = model.at(orders.site)
        yield Greeting(
            machine_name(),
            self._model.identity,
            self._model.tokenizer_digest,
            self._model.device.type,
            self._model.is_swept,
            packages(),
        )

    def describe(self) -> Iterator[FarModel]:
        """The model, for who plans the training."""
        yield far_model(self._model)

    def capture(self, shares: list[Share], skip_first: bool) -> Iterator[Captured]:
        """Capture parts and write them; a model that is read block by block takes all of them
        through a block before it reads the next."""
        writing = [PartWriting(share) for share in shares]
        for part in writing:
            yield from (Captured(0.0, part.share.part, layer) for layer in part.written_before)
        windows = [(part, number) for part in writing for number in range(part.n_windows)]
        layers = sorted({layer for part in writing for layer in part.layers})
        if layers:
            yield from self._captured(windows, layers, skip_first)

    def _captured(
        self, windows: list[tuple[PartWriting, int]], layers: list[int], skip_first: bool
    ) -> Iterator[Captured]:
        makers = [functools.partial(self._tokens, part, number) for part, number in windows]
        told = 0.0
        for step in self._model.capture_each(LazyBatches(makers), layers, skip_first):
            if step.number is None:
                if step.fraction > told + _TELL:
                    yield Captured(told := step.fraction)
                continue
            part, window = windows[step.number]
            for layer, rows in step.value.items():
                if part.take(layer, window, rows):
                    yield Captured(step.fraction, part.share.part, layer)

    def _tokens(self, part: PartWriting, window: int) -> Tokens:
        return padded(self._model.tokenizer, part.share.windows[window])

    def choose(
        self, layer: int, what: Callable[[], tuple[TrainConfig, Plan, str]]
    ) -> Iterator[Chosen]:
        """Choose the atoms of a layer from what is kept of it. what: gives the settings, the plan
        and the training's id."""
        config, plan, training_id = what()
        workspace = Workspace(self._orders.runs, training_id)
        nothing = Corpus(config.corpus.name, ())  # what is read of it stands in the plan
        yield chosen(TrainingContext(config, self._model, nothing, plan, workspace), layer)

    def encode(
        self,
        layer: int,
        dictionary: Callable[[], Dictionary],
        rows: PartRows,
        first: int,
        last: int,
    ) -> Iterator[list[Block]]:
        """Encode the explored rows from `first` to `last` (not included). dictionary: gives it."""
        with_gram = self._dictionary(layer, dictionary)
        yield [_on_host(block) for block in encoded_blocks(rows, first, last, *with_gram)]

    def measure(self, layer: int, dictionary: Any, rows: PartRows | None) -> Iterator[dict]:
        """What the dictionary is worth on held-out rows; None where there are none."""
        dictionary, gram = self._dictionary(layer, dictionary)
        nothing = torch.empty((0, dictionary.d_model), dtype=torch.float32, device="cpu")
        x = nothing if rows is None else rows.read(0, len(rows))
        yield held_out_measures(x, dictionary, gram)

    def _dictionary(self, layer: int, fetch: Callable[[], Dictionary]) -> tuple:
        """The dictionary of a layer on the model's device, and its Gram matrix, made once."""
        if self._newest is None or self._newest[0] != layer:
            self._newest = None  # goes before the next one comes
            dictionary = fetch().to(self._model.device)
            self._newest = layer, dictionary, dictionary.gram()
        return self._newest[1:]


def _on_host(block: Block) -> Block:
    """Its sums as well, which stay on the device until they are read."""
    sums = ReconstructionSums()
    for name, value in vars(block.sums).items():
        setattr(sums, name, value.cpu() if torch.is_tensor(value) else value)
    return replace(block, sums=sums)
