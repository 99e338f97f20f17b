"""A model that is larger than memory: its blocks are read one after another, and all texts go
through one before the next is read.

Every weight is read once for a whole call, whatever the number of texts. The blocks before the one
in memory are left out, so that masks, positions and scalings stay the family's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from itda_core.errors import ModelError
from itda_core.model.hidden_states import HiddenStates
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations
from itda_core.model.passes import Gathered, Passes
from itda_core.model.steps_of_work import Step
from itda_core.model.swept_blocks import SweptBlocks
from itda_core.model.tokens import Tokens
from itda_core.settings import RESID_POST


class SweptModel(SweptBlocks):
    """A model of which one block is in memory at a time, and the next is being read.

    What reads many texts is asked for in one call: each costs a reading of the blocks that it
    needs. It does not write on, and nothing is spliced into a pass: that would read all of them for
    every token.
    """

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
            passes = self.sweep(parts, blocks if len(parts) else (), states, layers=layers)
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
            passes = self.sweep(batches, range(layer + 1), states, layers=[layer])
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
        if self.site == "resid_pre" and layer:
            yield from self.at(RESID_POST).logits_after_each(layer - 1, streams)
            return
        if self.site != RESID_POST:
            yield from self._logits_within_each(layer, streams)
            return
        batches = []
        with self._states() as states:
            for number, (tokens, hidden) in enumerate(streams):
                batches.append(tokens)
                states.write(number, hidden.to(self._dtype))
            yield from self._logits_each(batches, layer + 1, states)

    def _logits_within_each(
        self, layer: int, streams: Iterable[tuple[Tokens, torch.Tensor]]
    ) -> Iterator[Step[torch.Tensor]]:
        """The same with what is put in within a block: the blocks before it are read too, for each
        text once, since the stream beside what is replaced has to be known."""
        self.check_site(self.site)
        batches, texts = [], []
        with self._states() as states:
            before, instead = states.named("before"), states.named("instead")
            for number, (tokens, hidden) in enumerate(streams):
                batches.append(tokens)
                if not any(one is tokens for one in texts):
                    texts.append(tokens)
                instead.write(number, hidden)
            above = len(batches) * max(1, self.n_layers - layer - 1)
            total = max(1, len(texts) * layer + len(batches) + above)
            done = 0
            for _ in self.sweep(texts, range(layer), before, keep_last=True):
                done += 1
                yield Step(done / total)
            for stage in self._stages([self.parts.stage(layer)]):
                for number, tokens in enumerate(batches):
                    place = next(at for at, one in enumerate(texts) if one is tokens)
                    given = instead.read(number)
                    found = self._through(stage.block, tokens, place, before, instead=given)
                    states.write(number, found[RESID_POST])
                    done += 1
                    yield Step(done / total)
            for step in self._logits_each(batches, layer + 1, states):
                fraction = (done + above * step.fraction) / total
                yield Step(fraction, step.number, step.value)

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
        site = self._checked_site(site)
        found: dict[int, torch.Tensor] = {}
        for step in self.at(site).capture_each([tokens], layers, skip_first, to):
            if step.value is not None:
                rows = step.value
                found |= rows
        return Activations({layer: found[layer] for layer in layers}, rows.prompts, rows.positions)

    def hidden(self, tokens: Tokens, layer: int, site: str | None = None) -> torch.Tensor:
        """As `Model.hidden`, by one sweep."""
        return _only(self.at(self._checked_site(site)).hidden_each([tokens], layer))

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """As `Model.logits`, by one sweep."""
        self.abilities.require(self.name, "next_tokens")
        with self._states() as states:
            return _only(self._logits_each([tokens], 0, states))

    def logits_after(
        self, tokens: Tokens, layer: int, hidden: torch.Tensor, site: str | None = None
    ) -> torch.Tensor:
        """As `Model.logits_after`, by one sweep of the blocks after `layer`; with what is put in
        within a block, of all."""
        model = self.at(self._checked_site(site))
        return _only(model.logits_after_each(layer, [(tokens, hidden)]))

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


def _only(steps: Iterator[Step]) -> Any:
    """The one value of some work, which is then done."""
    return [step.value for step in steps if step.number is not None][-1]
