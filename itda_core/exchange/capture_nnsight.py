"""Activations read by nnsight, here or on NDIF's machines, become a folder to train from.

    model = TransformersModel("openai-community/gpt2", dispatch=True)
    traced = TracedModel(model)
    config = capture_config(traced.spec, CorpusSpec("sotu"), layers=[3, 6, 9])
    for progress in capture_folder(config, folder, model=traced):
        ...

With `remote=True` the weights stay with NDIF, and only the configuration and the tokenizer are
loaded here.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from itda_core.config import ModelSpec
from itda_core.errors import InputError, ModelError
from itda_core.model.blocks import block_lists
from itda_core.model.context import check_layers, context_length
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations
from itda_core.model.model_files import model_digest
from itda_core.model.sites import hidden_of
from itda_core.model.tokenizer import put_in, tokenizer_digest
from itda_core.model.tokens import TokenizedText, Tokens, tokenized_texts
from itda_core.settings import RESID_POST

_TOGETHER = 1_024
"""Tokens of one pass, padding included"""


class TracedModel:
    """A model of nnsight in place of one that is loaded here: see `ActivationSource`."""

    def __init__(
        self,
        model: Any,
        name: str | None = None,
        digest: str | None = None,
        remote: bool = False,
        blocks: str | None = None,
        tokens_together: int = _TOGETHER,
    ):
        """model: a TransformersModel or LanguageModel of nnsight; name: as `load_model` takes it,
        by default what nnsight loaded; digest: `load_model(name).digest`, by default that of what
        nnsight loaded under its own name here; remote: whether NDIF computes, which does not say
        what it has loaded; blocks: path of the list of blocks in it, by
        default the likeliest; tokens_together: of one pass, padding included."""
        self._model, self._remote, self._together = model, remote, tokens_together
        module = model._module  # nnsight's name for what it wraps
        self.name = name or model.repo_id
        self.revision = getattr(model, "revision", None)
        self.dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
        self.tokenizer = model.tokenizer
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"The tokenizer of {self.name} gives no character spans.")
        paths = [blocks] if blocks else block_lists(module)
        if not paths:
            raise ModelError(f"{self.name} has no list of blocks. Name it with blocks.")
        try:
            self._blocks = functools.reduce(getattr, paths[0].split("."), model)
            self.n_layers = len(module.get_submodule(paths[0]))
        except (AttributeError, TypeError) as error:
            raise InputError(f"{self.name} has no list of blocks {paths[0]!r}.") from error
        self._is_proved = False
        is_known = digest is None and name is None and not remote
        self.digest = model_digest(self.spec, module.config) if is_known else digest
        self.d_model = int(module.config.get_text_config().hidden_size)
        self.device = torch.device("cpu")  # where rows are brought to
        self.context_length = context_length(module, self.tokenizer)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(self.name, self.revision, self.dtype)

    @property
    def identity(self) -> str:
        where = "ndif" if self._remote else "nnsight"
        return f"{where} {self.digest} {self.dtype}"

    @functools.cached_property
    def tokenizer_digest(self) -> str:
        return tokenizer_digest(self.tokenizer)

    @functools.cached_property
    def put_in(self) -> dict[str, list[str]]:
        return put_in(self.tokenizer)

    def at(self, site: str) -> "TracedModel":
        """Raises InputError for all but what blocks give."""
        if site != RESID_POST:
            raise InputError(f"nnsight is asked for {RESID_POST} only, not for {site}.")
        return self

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises InputError for a layer that does not exist."""
        check_layers(layers, self.n_layers, self.name)

    def tokenized(self, texts: Sequence[str], longest: int) -> list[TokenizedText]:
        return tokenized_texts(self.tokenizer, texts, longest)

    def capture(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
    ) -> Activations:
        """The output of each block in `layers`, as `Model.capture` gives it. Raises ModelError
        where a block gives something else."""
        self.check_layers(layers)
        if not self._is_proved and len(tokens) and self.n_layers > 1:
            self._prove(tokens.select([0]), layers)
        kept, device = KeptRows(tokens, skip_first), torch.device(to or self.device)
        shape = (len(kept), self.d_model)
        rows = {
            layer: torch.full(shape, float("nan"), dtype=torch.float32, device=device)
            for layer in layers
        }
        for batch in self._batches(tokens.lengths):
            places = kept.places(batch).to(device)
            for layer, hidden in self._traced(tokens.select(batch), layers).items():
                chosen = kept.rows(batch, hidden.shape[1]).to(hidden.device)
                rows[layer][places] = hidden.flatten(0, 1)[chosen].float().to(device)
        return Activations(rows, kept.prompts, kept.positions)

    def _batches(self, lengths: np.ndarray) -> list[np.ndarray]:
        """The numbers of the texts in batches of similar length."""
        order, batches = np.argsort(-lengths, kind="stable"), []
        while len(order):
            count = max(1, self._together // max(1, int(lengths[order[0]])))
            batches.append(order[:count])
            order = order[count:]
        return batches

    @torch.no_grad()
    def _prove(self, tokens: Tokens, layers: Sequence[int]) -> None:
        """Raises ModelError where what blocks give is not what transformers calls their hidden
        states: then these are no blocks. Of the last one that can't be seen, since transformers
        applies the final norm to it."""
        import nnsight

        model, blocks, last = self._model, self._blocks, self.n_layers - 1
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask.to(torch.int64)}
        options = {"remote": True} if self._remote else {}
        seen = sorted({layer for layer in layers if layer < last} or {max(0, last - 1)})
        with model.trace(inputs, output_hidden_states=True, **options):
            outputs = nnsight.save([])
            for layer in seen:
                outputs.append(blocks[layer].output)
            states = nnsight.save(model.output.hidden_states)
        for layer, output in zip(seen, outputs, strict=True):
            hidden, expected = hidden_of(output), states[layer + 1]
            scale = float(expected.abs().max())
            is_right = hidden.shape == expected.shape
            if not (is_right and torch.allclose(hidden, expected, rtol=1e-3, atol=1e-3 * scale)):
                raise ModelError(
                    f"What block {layer} of {self.name} gives is not its hidden state. Name the "
                    "list of blocks with blocks."
                )
        self._is_proved = True

    @torch.no_grad()
    def _traced(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Block outputs, [n_texts, longest, d_model] each."""
        import nnsight

        model, blocks, in_order, found = self._model, self._blocks, sorted(layers), {}
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask.to(torch.int64)}
        options = {"remote": True} if self._remote else {}
        with model.trace(inputs, **options):  # nnsight reads these lines and runs them
            outputs = nnsight.save([])
            for layer in in_order:
                outputs.append(blocks[layer].output)
        expected = (*tokens.ids.shape, self.d_model)
        for layer, output in zip(in_order, outputs, strict=True):
            hidden = hidden_of(output)
            if tuple(hidden.shape) != expected:
                raise ModelError(
                    f"Block {layer} of {self.name} gave {tuple(hidden.shape)}, not {expected}: "
                    "name the list of blocks with blocks."
                )
            found[layer] = hidden.detach()
        return found
