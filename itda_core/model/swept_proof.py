"""A swept model proves itself before it is used: its first two blocks, run one after the other as
always, against the sweep.

They are all that memory may have room for. That the blocks after them need nothing of those before
but their output, and what the model can do beyond being captured, is taken from what was found of a
tiny model of the same type (types.json).
"""

import dataclasses
from collections.abc import Sequence

import torch

from itda_core.model.abilities import Abilities
from itda_core.model.known_types import known_sweep, known_type
from itda_core.model.proof import TOLERANCE, Differs, has_experts, proof_tokens, reason_of
from itda_core.model.swept import SweptModel
from itda_core.model.tokens import Tokens

_SAME_SHAPE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""The largest ‖found − expected‖ / ‖expected‖ of a row that passes of one shape may differ by"""


def prove_swept(model: SweptModel, type_names: Sequence[str]) -> Abilities:
    """What the swept model does right; `d_model` becomes the width that its blocks give.
    type_names: under which its type may be known, the likeliest first."""
    name = next((name for name in type_names if known_type(name)), None)
    if name is None:
        listed = "itda_core/model/types.json has what was"
        reason = f"no {type_names[0]} was tried block by block ({listed})"
        return Abilities.none("capture", reason)
    known = known_type(name)
    if reason := known.capture or known_sweep(name):
        return Abilities.none("capture", reason)
    proof = _SweptProof(model)
    if reason := reason_of(proof.check_capture):
        return Abilities.none("capture", reason)
    if reason := known.next_tokens or reason_of(proof.check_next_tokens):
        return Abilities.none("next_tokens", reason)
    reason = "its blocks are read one after another, which it would do for each token"
    begins_after = tuple(range(model.n_layers))
    return dataclasses.replace(known, cached_steps=reason, begins_after=begins_after)


class _SweptProof:
    """The two texts, and what the first blocks give for them."""

    def __init__(self, model: SweptModel):
        self.model = model
        self.layers = list(range(min(2, model.n_layers)))
        both = proof_tokens(model)
        self.batches = [both, both.select([0]), both.select([1]), _changed(both.select([0]))]
        self.rows = 0.75 if has_experts(model) and model.dtype != "float32" else 1.0

    def check_capture(self) -> None:
        """What a block gives when it runs alone, the one before it left out, is what it gives after
        that; in the batch as alone."""
        model, both = self.model, self.batches[0]
        if not min(both.lengths) > 1:
            raise Differs("its tokenizer makes no tokens of a sentence: are its files there?")
        self.expected = model.first_blocks(self.batches, len(self.layers))
        for step in model.capture_each(self.batches, self.layers, skip_first=False, to="cpu"):
            if step.value is None:
                continue
            [(layer, rows)] = step.value.items()
            expected = self.expected[step.number][layer][self.batches[step.number].mask].cpu()
            what = f"block {layer} with the one before it left out"
            self._compare(rows, expected, _SAME_SHAPE.get(model.dtype, 3e-2), what)
        tolerance = TOLERANCE.get(model.dtype, TOLERANCE["bfloat16"])
        for layer in self.layers:
            for text, number in ((0, 1), (1, 2)):
                together = self.expected[0][layer][text][both.mask[text]]
                what = f"block {layer} of a text in a batch and alone"
                self._compare(together, self.expected[number][layer][0], tolerance, what)

    def check_next_tokens(self) -> None:
        """It has a head, and changing a later token changes no earlier row."""
        if self.model.module.get_output_embeddings() is None:
            raise Differs("it was saved without the head that predicts them")
        middle = int(self.batches[1].lengths[0]) // 2
        for layer in self.layers:
            plain, other = (self.expected[number][layer][0, :middle] for number in (1, 3))
            tolerance = _SAME_SHAPE.get(self.model.dtype, 3e-2)
            if not self._difference(plain, other) <= tolerance:
                raise Differs("a token's activations depend on the tokens after it")

    def _compare(
        self, found: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str
    ) -> None:
        if not torch.isfinite(found).all():
            raise Differs(f"{what} is not finite")
        difference = self._difference(found, expected)
        if not difference <= tolerance:
            raise Differs(f"{what} differs by {difference:.0%} from what the model gives")

    def _difference(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        """The largest ‖found − expected‖ / ‖expected‖ of a row, of nearly all where experts may
        round another way."""
        found, expected = found.float().cpu(), expected.float().cpu()
        if found.shape != expected.shape:
            return float("inf")
        norms = expected.norm(dim=-1).clamp(min=1e-6)
        differences = ((found - expected).norm(dim=-1) / norms).flatten()
        return float(differences.quantile(self.rows))


def _changed(tokens: Tokens) -> Tokens:
    """One text with other tokens in its second half."""
    length = int(tokens.lengths[0])
    middle = length // 2
    ids = tokens.ids.clone()
    ids[0, middle:length] = ids[0, : length - middle].flip(0)
    return dataclasses.replace(tokens, ids=ids)
