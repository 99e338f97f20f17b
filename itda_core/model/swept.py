"""A model that is larger than memory: its blocks are read one after another, and all texts go
through one before the next is read.

Every weight is read once for a whole call, whatever the number of texts. The blocks before the one
in memory are left out, so that masks, positions and scalings stay the family's own.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from itda_core.config import data_directory
from itda_core.devices import free_memory, halving, to_device
from itda_core.errors import ModelError
from itda_core.files import disk_errors_as_sentences
from itda_core.model.blocks import left_out, recorded
from itda_core.model.hidden_states import HiddenStates
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations, Model
from itda_core.model.passes import Gathered, Passes
from itda_core.model.sites import SWEPT_SITES, hidden_of
from itda_core.model.steps_of_work import Step
from itda_core.model.sweep import Reading, Stage
from itda_core.model.swept_parts import SweptParts
from itda_core.model.tokens import Tokens
from itda_core.model.weights import Weights
from itda_core.settings import RESID_POST

_HOST_SHARE = 0.25
"""Of what is free in main memory: what hidden states may take there beside a model on a device"""


class SweptModel(Model):
    """A model of which one block is in memory at a time, and the next is being read.

    What reads many texts is asked for in one call: each costs a reading of the blocks that it
    needs. It does not write on, and nothing is spliced into a pass: that would read all of them for
    every token.
    """

    is_swept = True

    def __init__(
        self,
        name: str,
        weights: Weights,
        part: str,
        blocks: str,
        tokenizer,
        digest: str,
        device: torch.device,
        memory: int,
    ):
        """weights: of transformers' module; part: the path in it of what is used as the text model;
        blocks: path of the list of blocks in that; memory: bytes that all of it may take. What is
        neither a block nor an embedding is read here, and stays. Raises ModelError where `memory`
        has no room for a block and the one after it."""
        module = weights.module.get_submodule(part)
        super().__init__(name, module, tokenizer, digest, blocks)
        self._device, self._weights, self.memory = device, weights, memory
        weights.device = device
        self._dtype = next(self.blocks.parameters()).dtype
        self.parts = SweptParts(weights, module, part, blocks)
        self.parts.check_room(name, memory)
        weights.put_in(weights.read(self.parts.outside))
        for owner in module.modules():
            for key, buffer in owner._buffers.items():
                owner._buffers[key] = None if buffer is None else buffer.to(device)
        self.n_values: int | None = None
        """How many a block gives, None where that is one tensor and no tuple: found by the proof"""
        self.find_sites = lambda _model: SWEPT_SITES
        self._turn = _Turn(name)
        self.newest_reading: Reading | None = None
        """of the last sweep, which knows how long it took"""

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def sweep(
        self,
        batches: Sequence[Tokens],
        blocks: Sequence[int],
        states: HiddenStates,
        keep_last: bool = False,
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Take all batches through some consecutive blocks: each block's number, a batch's, and
        what the block gives for it, [n_texts, longest, d_model] on the model's device.

        states: what the block before the first gave for each batch, where there is one; afterwards
        what the newest block gave, the last one's with `keep_last`. Raises ModelError where another
        sweep of this thread is not done.
        """
        stages = [self.parts.stage(block) for block in blocks]
        for stage in self._stages(stages):
            is_kept = keep_last or stage is not stages[-1]
            for number in range(len(batches)):
                hidden = self._through(stage.block, batches[number], number, states)
                if is_kept:
                    states.write(number, hidden)
                yield stage.block, number, hidden

    def first_blocks(self, batches: Sequence[Tokens], count: int) -> list[dict[int, torch.Tensor]]:
        """What the first blocks give for each batch when they run one after the other, all of them
        in memory: {layer: [n_texts, longest, d_model]}. Their width becomes `d_model`, and in what
        form a block gives it is remembered."""
        names = {name for block in range(count) for name in self.parts.stage(block).names}
        for _ in self._stages([Stage(None, sorted(names))]):
            handle = self.blocks[0].register_forward_hook(self._learn_form)
            try:
                with self._lock, recorded(self.blocks, range(count)):
                    self.run_base(batches[0], use_cache=False)
            finally:
                handle.remove()
            found = [self._hidden(tokens, range(count), RESID_POST) for tokens in batches]
        return found

    def _learn_form(self, _block: nn.Module, _inputs: tuple, output: Any) -> None:
        self.d_model = int(hidden_of(output).shape[-1])
        self.n_values = None if torch.is_tensor(output) else len(output)

    def capture_each(
        self,
        batches: Sequence[Tokens],
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
    ) -> Iterator[Step[Activations]]:
        """As `Model.capture_each`, layer by layer: each value has one layer of one batch."""
        self.check_layers(layers)
        kept = [KeptRows(tokens, skip_first) for tokens in batches]
        parts = Passes(self, batches, kept)
        blocks, total = range(max(layers) + 1), max(1, len(parts)) * (max(layers) + 1)
        gathered = Gathered(self, parts, kept, torch.device(to or self.device))
        with self._states() as states:
            passes = self.sweep(parts, blocks if len(parts) else (), states)
            for done, (block, number, hidden) in enumerate(passes, start=1):
                fraction = done / total
                yield Step(fraction)
                if block in layers:
                    for batch, rows in gathered.add(block, number, hidden):
                        yield Step(fraction, batch, rows)
        if not len(parts):
            for layer in sorted(layers):
                yield from (Step(1.0, batch, rows) for batch, rows in gathered.nothing(layer))

    def hidden_each(self, batches: Sequence[Tokens], layer: int) -> Iterator[Step[torch.Tensor]]:
        """As `Model.hidden_each`; all values come while the last block runs."""
        self.check_layers([layer])
        total = max(1, len(batches)) * (layer + 1)
        with self._states() as states:
            passes = self.sweep(batches, range(layer + 1), states)
            for done, (block, number, hidden) in enumerate(passes, start=1):
                is_value = block == layer
                yield Step(done / total, number, hidden) if is_value else Step(done / total)

    def logits_after_each(
        self,
        layer: int,
        streams: Iterable[tuple[Tokens, torch.Tensor]],
        n_tokens: int | None = None,  # noqa: ARG002
    ) -> Iterator[Step[torch.Tensor]]:
        """As `Model.logits_after_each`; all streams are taken before the first block is read, and
        all values come while the last one runs."""
        self.check_layers([layer])
        self.abilities.require(self.name, "splicing")
        batches = []
        with self._states() as states:
            for number, (tokens, hidden) in enumerate(streams):
                batches.append(tokens)
                states.write(number, hidden.to(self._dtype))
            yield from self._logits_each(batches, layer + 1, states)

    def _logits_each(
        self, batches: Sequence[Tokens], first: int, states: HiddenStates
    ) -> Iterator[Step[torch.Tensor]]:
        """The logits of each batch, from block `first` on; the last block and what follows it are
        in memory together."""
        blocks = range(first, self.n_layers - 1)
        total, done = max(1, len(batches)) * (len(blocks) + 1), 0
        for _ in self.sweep(batches, blocks, states, keep_last=True):
            done += 1
            yield Step(done / total)
        before = max(first, self.n_layers - 1)
        for _ in self._stages([self.parts.last_stage(first)]):
            for number, tokens in enumerate(batches):
                hidden = states.read(number) if before else None
                done += 1
                logits = self._passed(before, tokens, hidden)
                yield Step(done / total, number, logits)

    def capture(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
        site: str | None = None,
    ) -> Activations:
        """As `Model.capture`, by one sweep."""
        self._checked_site(site)
        found: dict[int, torch.Tensor] = {}
        for step in self.capture_each([tokens], layers, skip_first, to):
            if step.value is not None:
                rows = step.value
                found |= rows
        return Activations({layer: found[layer] for layer in layers}, rows.prompts, rows.positions)

    def hidden(self, tokens: Tokens, layer: int, site: str | None = None) -> torch.Tensor:
        """As `Model.hidden`, by one sweep."""
        self._checked_site(site)
        return _only(self.hidden_each([tokens], layer))

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """As `Model.logits`, by one sweep."""
        self.abilities.require(self.name, "next_tokens")
        with self._states() as states:
            return _only(self._logits_each([tokens], 0, states))

    def logits_after(
        self, tokens: Tokens, layer: int, hidden: torch.Tensor, site: str | None = None
    ) -> torch.Tensor:
        """As `Model.logits_after`, by one sweep of the blocks after `layer`."""
        self._checked_site(site)
        return _only(self.logits_after_each(layer, [(tokens, hidden)]))

    def run(self, ids: torch.Tensor, mask: torch.Tensor | None, **options) -> Any:  # noqa: ARG002
        raise self._refusal("runs as a whole")

    @contextmanager
    def output_changed(self, layer: int, change, site=None) -> Iterator[None]:  # noqa: ARG002
        raise self._refusal("has other activations put into a pass")
        yield

    def _refusal(self, what: str) -> ModelError:
        return ModelError(
            f"{self.name} is read block by block, since it does not fit into memory, and so never "
            f"{what}. Choose a smaller model, or allow it more memory."
        )

    def _through(
        self, block: int, tokens: Tokens, number: int, states: HiddenStates
    ) -> torch.Tensor:
        """What a block, whose weights are in place, gives for a batch."""
        before = states.read(number) if block else None

        def run(first: int, last: int) -> torch.Tensor:
            some = tokens if last - first == len(tokens) else tokens.select(range(first, last))
            hidden = None if before is None else before[first:last, : some.ids.shape[1]]
            with self._blocks_left_out(block, hidden):
                return self._hidden(some, [block], RESID_POST)[block]

        longest = int(tokens.ids.shape[1])
        found = list(halving(run, len(tokens), len(tokens), self._no_room(longest)))
        hidden = found[0] if len(found) == 1 else _joined(found, longest)
        if block and not _has_finite(hidden):
            raise ModelError(
                f"Block {block} of {self.name} gives nothing finite where the blocks before it are "
                "left out: it seems to need more of them than their output, or the data type "
                f"{self.dtype} is too narrow for it."
            )
        return hidden

    @contextmanager
    def _blocks_left_out(self, count: int, hidden: torch.Tensor | None) -> Iterator[None]:
        """The first blocks compute nothing and give `hidden`, and the table of embeddings, which is
        not in memory any more, gives what shows wherever it is used."""
        with self._lock, ExitStack() as stack:
            if count:
                hidden = to_device(hidden, self.device).clone()  # which a block may write into
                stack.enter_context(left_out(self.blocks[:count], hidden, self.n_values))
                stack.enter_context(_nowhere(self.parts.embedding_module, self.device))
            yield

    def _passed(self, before: int, tokens: Tokens, hidden: torch.Tensor | None) -> torch.Tensor:
        """Logits, with the first `before` blocks left out."""
        with self._blocks_left_out(before, hidden):
            output = self._run(self.module, tokens.ids, tokens.mask, {"use_cache": False})
        return output.logits.float()

    def _stages(self, stages: Sequence[Stage]) -> Iterator[Stage]:
        if not stages:
            return
        with self._turn:
            self.newest_reading = Reading(self._weights, stages)
            yield from self.newest_reading.stages()

    @contextmanager
    def _states(self) -> Iterator[HiddenStates]:
        folder = data_directory() / "cache"
        states = self.new_states(folder)
        try:
            with disk_errors_as_sentences(folder):
                yield states
        finally:
            states.close()

    def new_states(self, folder: Path) -> HiddenStates:
        """Room for hidden states: in main memory as far as it may be used, else in `folder`."""
        if self.device.type != "cpu":
            return HiddenStates(int(_HOST_SHARE * free_memory(torch.device("cpu"))), folder)
        return HiddenStates(max(0, self.memory - self.parts.peak_bytes), folder)


class _Turn:
    """One sweep of a model at a time: other threads wait for it, whose own second one would wait
    for ever."""

    def __init__(self, name: str):
        self._name, self._lock = name, threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise ModelError(f"Two sweeps of {self._name} at once would take each other's weights.")
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_error) -> None:
        self._holder = None
        self._lock.release()


@contextmanager
def _nowhere(embedding: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Within this context a table of embeddings gives no number: where a block after the first
    uses it all the same, its output is none either."""
    if embedding is None:
        yield
        return
    width, dtype = embedding.weight.shape[1], embedding.weight.dtype

    def nothing(ids: torch.Tensor, *_inputs, **_options) -> torch.Tensor:
        return torch.full((*ids.shape, width), float("nan"), dtype=dtype, device=device)

    embedding.forward = nothing
    try:
        yield
    finally:
        del embedding.forward  # the class's own again


def _has_finite(hidden: torch.Tensor) -> bool:
    """Whether any of it is finite: nearly always told by the first tokens, at a hundredth of what
    it takes to look at all."""
    return any(bool(torch.isfinite(some).any()) for some in (hidden[:, :1], hidden))


def _joined(found: list[torch.Tensor], longest: int) -> torch.Tensor:
    """Hidden states of some texts each, padded to the longest."""
    missing = [(0, 0, 0, longest - hidden.shape[1]) for hidden in found]
    return torch.cat(
        [nn.functional.pad(hidden, pad) for hidden, pad in zip(found, missing, strict=True)]
    )


def _only(steps: Iterator[Step]) -> Any:
    """The one value of some work, which is then done."""
    return [step.value for step in steps if step.number is not None][-1]
