"""One block of a model in memory at a time: running texts through one after another.

The blocks before the one in memory are left out, so that masks, positions and scalings stay the
family's own.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from itda_core.data_folder import data_directory
from itda_core.devices import free_memory, halving, to_device
from itda_core.errors import ModelError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.blocks import left_out, recorded
from itda_core.model.hidden_states import HiddenStates
from itda_core.model.model import Model
from itda_core.model.proof import TOLERANCE, has_experts
from itda_core.model.sites import INPUT, Sites, changed, hidden_of, replacing
from itda_core.model.sums import PARTS, difference, sums
from itda_core.model.sweep import Reading, Stage
from itda_core.model.swept_parts import SweptParts
from itda_core.model.tokens import Tokens
from itda_core.model.weights import Weights
from itda_core.settings import RESID_POST

_HOST_SHARE = 0.25
"""Of what is free in main memory: what hidden states may take there beside a model on a device"""
PROVED_BLOCKS = 2
"""How many blocks prove themselves before a model is used: memory has room for two"""
AtSites = dict[str, torch.Tensor]
"""By site, what stands there in a block, [n_texts, longest, d_model]"""


class SweptBlocks(Model):
    """The blocks of a model of which one is in memory at a time, and the next is being read."""

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
        self._turn = _Turn(name)
        self.newest_reading: Reading | None = None
        """of the last sweep, which knows how long it took"""

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    @property
    def sites(self) -> Sites:
        """As `Model.sites`. The lock is not held: whoever sweeps the model waits for it, and the
        proof waits for the sweep."""
        if self._sites is None:
            self._sites = self.find_sites(self)
        return self._sites

    @sites.setter
    def sites(self, sites: Sites) -> None:
        self._sites = sites

    def sweep(
        self,
        batches: Sequence[Tokens],
        blocks: Sequence[int],
        states: HiddenStates,
        keep_last: bool = False,
        layers: Collection[int] = (),
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Take all batches through some consecutive blocks: each block's number, a batch's, and
        what the block gives for it, [n_texts, longest, d_model] on the model's device; of the
        blocks in `layers` what stands at the model's site.

        states: what the block before the first gave for each batch, where there is one; afterwards
        what the newest block gave, the last one's with `keep_last`. Raises ModelError where another
        sweep of this thread is not done.
        """
        self.check_site(self.site)
        stages = [self.parts.stage(block) for block in blocks]
        for stage in self._stages(stages):
            block, is_kept = stage.block, keep_last or stage is not stages[-1]
            site = self.site if stage.block in layers else RESID_POST
            for number in range(len(batches)):
                sites = self._read_at(site, block, is_first=not number)
                found = self._through(block, batches[number], number, states, sites)
                if is_kept:
                    states.write(number, found[RESID_POST])
                yield block, number, found[site]

    def _read_at(self, site: str, block: int, is_first: bool) -> tuple[str, ...]:
        """Sites that a pass through a block is read at beside its output: where the block has not
        proved them, the first pass reads all that add up."""
        if site == RESID_POST:
            return ()
        if site not in PARTS or block < PROVED_BLOCKS or not is_first:
            return (site,)
        return ("resid_pre", *(part for part in PARTS if not self.sites.why_not(part)))

    def first_in_memory(self, count: int) -> Iterator[Stage]:
        """Once, with the weights of the first blocks in place together."""
        names = {name for block in range(count) for name in self.parts.stage(block).names}
        yield from self._stages([Stage(None, sorted(names))])

    def first_blocks(self, batches: Sequence[Tokens], count: int) -> list[dict[int, torch.Tensor]]:
        """What the first blocks give for each batch when they run one after the other, all of them
        in memory: {layer: [n_texts, longest, d_model]}. Their width becomes `d_model`, and in what
        form a block gives it is remembered."""
        for _ in self.first_in_memory(count):
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

    def _through(
        self,
        block: int,
        tokens: Tokens,
        number: int,
        states: HiddenStates,
        sites: Sequence[str] = (),
        instead: torch.Tensor | None = None,
    ) -> AtSites:
        """What a block, whose weights are in place, gives for a batch, and what stands at some of
        its sites. number: of the batch among `states`, which say what goes in; instead: what is put
        at the model's site first, [n_texts, longest, d_model]."""
        before = states.read(number) if block else None

        def run(first: int, last: int) -> AtSites:
            some = tokens if last - first == len(tokens) else tokens.select(range(first, last))
            own = slice(first, last), slice(some.ids.shape[1])
            with (
                self._blocks_left_out(block, None if before is None else before[own]),
                self._put_in(block, some, None if instead is None else instead[own]),
            ):
                return self._at_sites(block, some, sites)

        longest = int(tokens.ids.shape[1])
        parts = list(halving(run, len(tokens), len(tokens), self._no_room(longest)))
        found = parts[0] if len(parts) == 1 else _joined(parts, longest)
        if block and not _has_finite(found[RESID_POST]):
            raise ModelError(
                f"Block {block} of {self.name} gives nothing finite where the blocks before it are "
                "left out: it seems to need more of them than their output, or the data type "
                f"{self.dtype} is too narrow for it."
            )
        if len(sites) > 1:
            self._check_sums(block, {site: at[tokens.mask] for site, at in found.items()})
        return found

    def _at_sites(self, block: int, tokens: Tokens, sites: Sequence[str]) -> AtSites:
        """Those and the block's output, by one pass."""
        heard = {}
        with self._lock, ExitStack() as hooks:
            for site in sites:
                place = [INPUT if site == "resid_pre" else self._place(site, block)]
                hearing = recorded(self.blocks, [block], stop=False, places=place)
                heard[site] = hooks.enter_context(hearing)
            output = self._hidden(tokens, [block], RESID_POST)[block]
        found = {RESID_POST: output}
        for site, of_block in heard.items():
            if [one.shape for one in of_block[block]] != [output.shape]:
                raise ModelError(
                    f"The activations of {self.name} can't be read at {site}: in block {block} it "
                    f"is not of the shape of the block's output. Choose {RESID_POST}."
                )
            [found[site]] = of_block[block]
        return found

    def _check_sums(self, block: int, at: AtSites) -> None:
        """Raises ModelError where what is read in a block does not add up as in those that have
        proved it. at: by site, [n_tokens, d_model]."""
        tolerance = TOLERANCE.get(self.dtype, TOLERANCE["bfloat16"])
        share = 0.75 if has_experts(self) and self.dtype != "float32" else 1.0
        for what, found, expected, name in sums({site: rows.float() for site, rows in at.items()}):
            far = difference(found, expected, share)
            if not far <= tolerance:
                raise ModelError(
                    f"In block {block} of {self.name} {what} differs by {far:.0%} from {name}, "
                    "other than in its first blocks, so that its sites can't be told. Choose "
                    f"{RESID_POST}."
                )

    @contextmanager
    def _put_in(self, block: int, tokens: Tokens, hidden: torch.Tensor | None) -> Iterator[None]:
        """Within this context `hidden` stands at the model's site of a block, but for padding."""
        if hidden is None:
            yield
            return
        change = replacing(to_device(hidden, self.device), to_device(tokens.mask, self.device))
        with self._lock, changed(self.blocks[block], change, self._place(self.site, block)):
            yield

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


def _joined(parts: list[AtSites], longest: int) -> AtSites:
    """What stands at the sites for some texts each, padded to the longest."""
    found = {}
    for site in parts[0]:
        each = [part[site] for part in parts]
        missing = [(0, 0, 0, longest - hidden.shape[1]) for hidden in each]
        found[site] = torch.cat(
            [nn.functional.pad(hidden, pad) for hidden, pad in zip(each, missing, strict=True)]
        )
    return found
