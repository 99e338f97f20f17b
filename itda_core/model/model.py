"""A language model as this project sees it: tokenise with spans, capture, splice, predict."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from itda_core.errors import InputError, ModelError
from itda_core.model.context import DEFAULT_CONTEXT_LENGTH, check_ids, context_length
from itda_core.model.process_lock import PROCESS_LOCK
from itda_core.model.tokenizer import prepared, tokenizer_digest
from itda_core.model.tokens import TokenizedText, Tokens, batches, padded, tokenized_texts

FORWARD_TOKENS = {"cpu": 1_024, "mps": 8_192, "cuda": 16_384}
"""Tokens of one forward pass, padding included: enough to keep the device busy."""


class Activations(dict):
    """{layer: [n_kept_tokens, d_model] float32} and which token each row is.

    prompts, positions: [n_kept_tokens] int64, the text's number in the batch and the token's
    position in it. Rows run through the texts in order, each from its first kept token on.
    """

    def __init__(self, layers: dict[int, torch.Tensor], prompts: np.ndarray, positions: np.ndarray):
        super().__init__(layers)
        self.prompts = prompts
        self.positions = positions


class _LastLayerReached(Exception):
    """Stops a forward pass once everything asked for has been captured."""


class Model:
    """A Hugging Face causal language model or encoder with its tokenizer."""

    def __init__(self, name: str, module: nn.Module, tokenizer, digest: str = ""):
        self.name = name
        self.module = module.eval()
        self.tokenizer = prepared(tokenizer)
        self.digest = digest
        self._lock = PROCESS_LOCK
        self._begins_after: dict[int, bool] = {}
        self.blocks = find_blocks(module)
        self.text_config = module.config.get_text_config()
        self.d_model = int(self.text_config.hidden_size)
        self.is_causal = module.get_output_embeddings() is not None

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> str:
        """The weights' data type, such as "float32"."""
        return str(next(self.module.parameters()).dtype).removeprefix("torch.")

    @functools.cached_property
    def context_length(self) -> int:
        """The most tokens that the model takes."""
        return context_length(self.module, self.tokenizer)

    @functools.cached_property
    def tokenizer_digest(self) -> str:
        """Names the tokenizer by all that it does: token positions compare only where it is one."""
        return tokenizer_digest(self.tokenizer)

    def tokenize(self, texts: Sequence[str], context_length: int | None = None) -> Tokens:
        """Ids, mask and character spans of `texts`, each cut to `context_length` tokens.

        Raises ModelError for a token that the model has no embedding for.
        """
        longest = min(context_length or DEFAULT_CONTEXT_LENGTH, self.context_length)
        return padded(self.tokenizer, self.tokenized(texts, longest))

    def tokenized(self, texts: Sequence[str], longest: int) -> list[TokenizedText]:
        """The same, text by text, each cut to `longest` tokens and without padding."""
        if isinstance(texts, str):
            raise InputError("tokenize takes a list of texts, got one string: put it in brackets.")
        found = tokenized_texts(self.tokenizer, texts, longest)
        check_ids((text.ids for text in found), self.module, self.tokenizer, self.name)
        return found

    def capture(
        self, tokens: Tokens, layers: Sequence[int], skip_first: bool = True
    ) -> Activations:
        """The output of each block in `layers` for every token, in one truncated forward pass.

        Layer L is `hidden_states[L + 1]` of the same model (before the final norm, which
        transformers applies to the last one). Padding is left out, and with `skip_first` also
        the first position of each text.
        """
        self.check_layers(layers)
        is_kept = tokens.mask.clone()
        if skip_first:
            is_kept[:, :1] = False
        prompts, positions = is_kept.nonzero(as_tuple=True)
        counts = is_kept.sum(1)
        starts = counts.cumsum(0) - counts
        rows = {
            layer: torch.empty(len(prompts), self.d_model, dtype=torch.float32) for layer in layers
        }
        for part in self._forward_batches(tokens.lengths):
            taken, places = is_kept[part], _ranges(starts[part], counts[part])
            if not len(places):  # nothing is kept, perhaps no token is there at all
                continue
            batch = tokens.select(part)
            taken = taken[:, : batch.ids.shape[1]].to(self.device)
            for layer, hidden in self._hidden(batch, layers).items():
                rows[layer][places] = hidden[taken].float().cpu()
        return Activations(rows, prompts.numpy(), positions.numpy())

    def _forward_batches(self, lengths: np.ndarray) -> list[np.ndarray]:
        """The numbers of the texts in batches of similar length, so that little is padded."""
        order = np.argsort(-lengths, kind="stable")
        together = FORWARD_TOKENS.get(self.device.type, FORWARD_TOKENS["cpu"])
        return [order[a:b] for a, b in batches(lengths[order].tolist(), together)]

    def hidden(self, tokens: Tokens, layer: int) -> torch.Tensor:
        """The output of block `layer` at every position, padding included, [n_texts, longest,
        d_model] in the model's own data type."""
        self.check_layers([layer])
        return self._hidden(tokens, [layer])[layer]

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """Next-token logits, [n_texts, longest, n_vocabulary] float32."""
        if not self.is_causal:
            raise ModelError(f"{self.name} is an encoder: it predicts no next token.")
        with self._lock, torch.inference_mode():
            ids, mask = tokens.ids.to(self.device), tokens.mask.to(self.device)
            return self.module(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()

    def unembed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token scores of vectors of the residual stream by the final norm and the
        unembedding alone, [n, n_vocabulary] float32. hidden: [n, d_model]."""
        if not self.is_causal:
            raise ModelError(f"{self.name} is an encoder: it predicts no next token.")
        head = self.module.get_output_embeddings()
        with self._lock, torch.inference_mode():
            x = hidden.to(self.device, next(self.module.parameters()).dtype)
            return head(self._final_norm(x)).float().cpu()

    @functools.cached_property
    def _final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding: the last one outside the blocks.
        Where a family has none, nothing is done."""
        inside = {id(module) for block in self.blocks for module in block.modules()}
        norms = [
            module
            for name, module in self.module.base_model.named_modules()
            if id(module) not in inside and re.search(r"norm|ln_f", name.rpartition(".")[2])
        ]
        return norms[-1] if norms else nn.Identity()

    def logits_after(self, tokens: Tokens, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """`logits` with `hidden`, [n_texts, longest, d_model], as the output of block `layer`.

        The blocks up to there are not computed, where `can_begin_after` has shown that they need
        not be.
        """
        if not self.can_begin_after(layer, tokens):
            with self.splice(layer, hidden, tokens.mask):
                return self.logits(tokens)
        with self._lock, self._blocks_left_out(layer, hidden):
            return self.logits(tokens)

    def can_begin_after(self, layer: int, tokens: Tokens) -> bool:
        """Whether a forward pass may begin after block `layer`: the blocks that follow need
        nothing of those before but their output. Tried out, once a layer, on two of the texts."""
        if layer not in self._begins_after:
            batch = tokens.select(range(min(2, len(tokens))))
            hidden, plain = self.hidden(batch, layer), self.logits(batch)[batch.mask]
            try:
                with self._lock, self._blocks_left_out(layer, hidden):
                    shortened = self.logits(batch)[batch.mask]
                same = torch.allclose(shortened, plain, atol=1e-4 * float(plain.abs().max()))
            except (TypeError, ValueError, IndexError, AttributeError, RuntimeError):
                same = False  # this family passes on more than one tensor
            self._begins_after[layer] = same
        return self._begins_after[layer]

    @contextmanager
    def _blocks_left_out(self, layer: int, hidden: torch.Tensor):
        """Within this context blocks 0 to `layer` compute nothing and give `hidden`."""
        left_out = self.blocks[: layer + 1]
        forwards = [vars(block).get("forward") for block in left_out]
        hidden = hidden.to(self.device, next(self.module.parameters()).dtype)
        try:
            for block in left_out:
                block.forward = lambda *_inputs, **_options: hidden
            yield
        finally:
            for block, forward in zip(left_out, forwards, strict=True):
                del block.forward  # the class's own again
                if forward is not None:
                    block.forward = forward

    @contextmanager
    def splice(self, layer: int, hidden: torch.Tensor, where: torch.Tensor):
        """Within this context the output of block `layer` is replaced by `hidden`.

        hidden: [n_texts, longest, d_model]; where: [n_texts, longest] bool, the positions
        replaced.
        """
        hidden, where = hidden.to(self.device), where.to(self.device)[..., None]
        with self._output_changed(layer, lambda was: torch.where(where, hidden.to(was.dtype), was)):
            yield

    def next_logits(
        self, ids: torch.Tensor, cache=None, added: tuple[int, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Logits of the token after the last of `ids`, [n_vocabulary] float32, and the cache with
        which the next call goes on.

        ids: [1, n] int64, only the new ones where there is a cache; added: a layer and a vector,
        [d_model], that is added to its output at every position but the first of the text, an
        attention sink in most models. Raises ModelError for encoders.
        """
        if not self.is_causal:
            raise ModelError(f"{self.name} is an encoder: it predicts no next token.")
        context = nullcontext()
        if added:
            layer, vector = added
            first = 1 if cache is None else 0
            shifted = functools.partial(_shifted, vector=vector, first=first)
            context = self._output_changed(layer, shifted)
        name = self._cache_name
        with self._lock, torch.inference_mode(), context:
            output = self.module(input_ids=ids.to(self.device), use_cache=True, **{name: cache})
        return output.logits[0, -1].float().cpu(), output[name]

    @functools.cached_property
    def _cache_name(self) -> str:
        """What the model calls its cache: transformers renamed it in version 5."""
        parameters = inspect.signature(self.module.forward).parameters
        return "cache" if "cache" in parameters else "past_key_values"

    @contextmanager
    def _output_changed(self, layer: int, change: Callable[[torch.Tensor], torch.Tensor]):
        """Within this context block `layer` gives what `change` makes of its output."""
        self.check_layers([layer])

        def replace(_module, _inputs, output):
            changed = change(_hidden_of(output))
            return changed if torch.is_tensor(output) else (changed, *output[1:])

        with self._lock:
            handle = self.blocks[layer].register_forward_hook(replace)
            try:
                yield
            finally:
                handle.remove()

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises InputError for a layer that does not exist."""
        wrong = [layer for layer in layers if not 0 <= layer < self.n_layers]
        if wrong:
            raise InputError(
                f"{self.name} has layers 0 to {self.n_layers - 1}; there is no layer "
                f"{', '.join(str(layer) for layer in wrong[:5])}."
            )

    def _hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Block outputs, [n_texts, longest, d_model] each; stops after the last one asked for."""
        captured: dict[int, torch.Tensor] = {}

        def keep(layer: int):
            def hook(_module, _inputs, output):
                captured[layer] = _hidden_of(output)
                if layer == max(layers):
                    raise _LastLayerReached

            return hook

        with self._lock:
            handles = [
                self.blocks[layer].register_forward_hook(keep(layer)) for layer in set(layers)
            ]
            try:
                with torch.inference_mode():
                    ids, mask = tokens.ids.to(self.device), tokens.mask.to(self.device)
                    self.module.base_model(input_ids=ids, attention_mask=mask)
            except _LastLayerReached:
                pass
            finally:
                for handle in handles:
                    handle.remove()
        return captured


def find_blocks(module: nn.Module) -> nn.ModuleList:
    """The list of a model's blocks: its largest list with one entry for each hidden layer.

    Raises ModelError where there is none.
    """
    n_layers = getattr(module.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        child
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList)
        and len(child) == n_layers
        and not re.search(r"\bvision|\bvisual|\baudio", name)
    ]
    if not n_layers or not lists:
        raise ModelError(
            f"No list of blocks was found in this {type(module).__name__}. Models of the Llama, "
            "Mistral, Qwen, Gemma, Phi, GPT-2, GPT-NeoX, OPT and BERT families are known to work."
        )
    return max(lists, key=lambda blocks: sum(weight.numel() for weight in blocks.parameters()))


def _ranges(starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """starts[i], starts[i] + 1 … (counts[i] numbers) for each i, one after another."""
    ends = counts.cumsum(0)
    return torch.arange(int(counts.sum())) + (starts - ends + counts).repeat_interleave(counts)


def _hidden_of(output) -> torch.Tensor:
    """A block's hidden states. Some blocks return a tensor and some a tuple that starts with it;
    `output[0]` of a tensor would silently keep only the first text of the batch."""
    return output if torch.is_tensor(output) else output[0]


def _shifted(hidden: torch.Tensor, vector: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states, [n_texts, longest, d_model], with a vector added from position `first` on."""
    shifted = hidden.clone()
    shifted[:, first:] += vector.to(hidden)
    return shifted
