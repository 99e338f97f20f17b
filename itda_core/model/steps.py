"""A text that a model goes on with, token by token."""

import functools
from contextlib import nullcontext
from typing import Any

import torch

from itda_core.errors import ModelError
from itda_core.model.model import Model

_CACHES = ("cache", "past_key_values", "cache_params", "state", "mems")
"""What families, and versions of transformers, call what is kept of the tokens before"""


class Steps:
    """Next-token logits of a text that grows.

    What the model keeps of the tokens before is used again where that was proved to give what the
    whole text gives; else the whole text goes through the model at each step.
    """

    def __init__(self, model: Model, added: tuple[int, torch.Tensor] | None = None):
        """added: a layer and a vector, [d_model], that is added to its output at every position but
        the first of the text, an attention sink in most models. Raises ModelError where the
        model predicts no next tokens, or takes no added vector."""
        model.abilities.require(model.name, "next_tokens")
        if added:
            model.abilities.require(model.name, "splicing")
        self._model, self._added = model, added
        self._is_cached = not model.abilities.cached_steps
        self._ids = torch.zeros((1, 0), dtype=torch.int64)
        self._cache: dict[str, Any] = {}
        """The option of the model's forward method and what it gave for it"""

    def next_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the token after the last of `ids`, [n_vocabulary] float32. ids: [1, n], only
        the new ones."""
        before = self._ids.shape[1] if self._is_cached else 0
        self._ids = torch.cat([self._ids, ids], 1)
        with self._changed(before):
            output = self._output(before)
        return output.logits[0, -1].float().cpu()

    def _changed(self, before: int):
        """Adds the vector to the tokens after the first `before`, all but the text's first."""
        if not self._added:
            return nullcontext()
        layer, vector = self._added
        shifted = functools.partial(_shifted, vector=vector, first=0 if before else 1)
        return self._model.output_changed(layer, shifted)

    def _output(self, before: int) -> Any:
        new, mask = self._ids[:, before:], torch.ones_like(self._ids)
        options = {"use_cache": self._is_cached, **self._cache}
        inputs = self._model.abilities.step_inputs if before else ("attention_mask",)
        if "position_ids" in inputs:
            positions = torch.arange(before, before + new.shape[1], dtype=torch.int64)[None]
            options["position_ids"] = positions.to(self._model.device)
        output = self._model.run(new, mask if "attention_mask" in inputs else None, **options)
        if self._is_cached:
            self._cache = self._kept(output)
        return output

    def _kept(self, output: Any) -> dict[str, Any]:
        for name in _CACHES:
            if self._model.takes(name) and output.get(name) is not None:
                return {name: output[name]}
        raise ModelError("it keeps nothing of what it has read")


def _shifted(hidden: torch.Tensor, vector: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states, [n_texts, longest, d_model], with a vector added from position `first` on."""
    shifted = hidden.clone()
    shifted[:, first:] += vector.to(hidden)
    return shifted
