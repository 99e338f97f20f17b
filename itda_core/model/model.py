"""A language model as this project sees it: tokenise with spans, capture, splice, predict."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from itda_core.devices import halving, to_device, working_on
from itda_core.errors import InputError, ModelError
from itda_core.model.abilities import Abilities
from itda_core.model.blocks import left_out, recorded
from itda_core.model.context import (
    DEFAULT_CONTEXT_LENGTH,
    check_ids,
    check_layers,
    context_length,
    embedding_rows,
)
from itda_core.model.forward_batches import ForwardBatches
from itda_core.model.kept_rows import KeptRows
from itda_core.model.process_lock import PROCESS_LOCK
from itda_core.model.sites import Place, Sites, changed, replacing
from itda_core.model.steps_of_work import Step
from itda_core.model.tokenizer import prepared, put_in, tokenizer_digest
from itda_core.model.tokens import TokenizedText, Tokens, padded, tokenized_texts
from itda_core.settings import RESID_POST, SETTINGS


class Activations(dict):
    """{layer: [n_kept_tokens, d_model] float32} and which token each row is.

    The rows are on the device of the model, or where they were asked for; the rest is on the host.
    prompts, positions: [n_kept_tokens] int64, the text's number in the batch and the token's
    position in it. Rows run through the texts in order, each from its first kept token on.
    """

    def __init__(self, layers: dict[int, torch.Tensor], prompts: np.ndarray, positions: np.ndarray):
        super().__init__(layers)
        self.prompts = prompts
        self.positions = positions


class Model:
    """A Hugging Face causal language model or encoder with its tokenizer.

    What reads many texts asks for them in one call (`capture_each`, `hidden_each`,
    `logits_after_each`), so that a model that is read block by block reads each weight once.
    """

    is_swept = False
    """Whether its blocks are read one after another, so that every call costs a whole reading"""

    def __init__(self, name: str, module: nn.Module, tokenizer, digest: str, blocks: str):
        """blocks: path of the list of blocks in `module`."""
        self.name = name
        self.module = module.eval()
        self.tokenizer = prepared(tokenizer)
        self.digest = digest
        self._lock = PROCESS_LOCK
        self.blocks = module.get_submodule(blocks)
        self.text_config = module.config.get_text_config()
        self.d_model = int(getattr(self.text_config, "hidden_size", 0))
        """The width of what the blocks give: the proof corrects it where a family carries several
        streams side by side"""
        self.abilities = Abilities()
        """What it was proved to do right: set by who loads it (see proof.py)"""
        self.find_sites: Callable[[Model], Sites] = lambda _model: Sites()
        """Proves where the sites of its blocks are: set by who loads it (see site_proof.py)"""
        self._sites: Sites | None = None
        self.site = RESID_POST
        """Where in its blocks activations are read and replaced; see `at`"""
        self._batches = ForwardBatches()

    @property
    def is_causal(self) -> bool:
        """Whether it predicts next tokens; else it is used as an encoder."""
        return not self.abilities.next_tokens

    @property
    def can_be_spliced(self) -> bool:
        """Whether other activations can be put in and next tokens be predicted from them."""
        return not self.abilities.splicing

    def why_not(self, ability: str) -> str:
        """A sentence on what it can't do, empty where it can."""
        return self.abilities.why_not(self.name, ability)

    @property
    def sites(self) -> Sites:
        """Where in its blocks activations can be read and replaced: tried when first asked for, by
        one thread, for which others wait."""
        if self._sites is None:
            with self._lock:
                if self._sites is None:
                    self._sites = self.find_sites(self)
        return self._sites

    @sites.setter
    def sites(self, sites: Sites) -> None:
        self._sites = sites

    def at(self, site: str) -> "Model":
        """The same model, whose activations are read and replaced at this site where no other is
        asked for. Raises ModelError where its blocks lack the site, InputError where there is no
        such site."""
        if site == self.site:
            return self
        self.check_site(site)
        other = copy.copy(self)
        other.site = site
        return other

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

    @property
    def identity(self) -> str:
        """Names all that its activations depend on but the texts."""
        return f"{self.digest} {self.dtype}"

    @functools.cached_property
    def put_in(self) -> dict[str, list[str]]:
        """The names of the tokens that the tokenizer puts "before" and "after" each text."""
        return put_in(self.tokenizer)

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
        known = embedding_rows(self.module)
        check_ids((text.ids for text in found), known, self.tokenizer, self.name)
        return found

    def capture(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
        site: str | None = None,
    ) -> Activations:
        """What stands at a site of each block in `layers` for every token, by default its output
        (see `at`), in one truncated forward pass.

        Layer L is `hidden_states[L + 1]` of the same model (before the final norm, which
        transformers applies to the last one). Padding is left out, and with `skip_first` also
        the first position of each text. to: the device that the rows go to, by default the model's
        own, where nothing waits for them. Raises InputError where memory has no room for a text,
        ModelError where the model's blocks lack the site.
        """
        self.check_layers(layers)
        site = self._checked_site(site)
        kept, device = KeptRows(tokens, skip_first), torch.device(to or self.device)
        shape = (len(kept), self.d_model)
        empty = functools.partial(torch.full, shape, float("nan"), dtype=torch.float32)
        rows = {layer: empty(device=device) for layer in layers}
        for part in self.forward_batches(tokens.lengths):
            places = kept.places(part)
            if not len(places):  # nothing is kept, perhaps no token is there at all
                continue
            places = to_device(places, device)
            for layer, found in self._kept(tokens, part, kept, layers, site).items():
                rows[layer][places] = found.to(device)
        return Activations(rows, kept.prompts, kept.positions)

    def capture_each(
        self,
        batches: Sequence[Tokens],
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
    ) -> Iterator[Step[Activations]]:
        """`capture` of several batches, computed as they are asked for.

        A value holds some of the layers of one batch: a model in memory gives all layers of a batch
        together, one that is read block by block gives all batches layer by layer. So the values of
        each layer come in the order of the batches.
        """
        for number, (tokens, fraction) in enumerate(zip(batches, _shares(batches), strict=True)):
            yield Step(fraction, number, self.capture(tokens, layers, skip_first, to))

    def forward_batches(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """The numbers of texts in batches of one forward pass. lengths: tokens of each text."""
        return self._batches.of(lengths, self.device.type)

    def _kept(
        self,
        tokens: Tokens,
        part: np.ndarray,
        kept: KeptRows,
        layers: Sequence[int],
        site: str,
    ) -> dict[int, torch.Tensor]:
        """The rows of the texts of `part` that are kept, on the model's device; by several passes
        where memory has no room for one. kept: of all texts."""

        def run(first: int, last: int) -> tuple[int, dict[int, torch.Tensor]]:
            batch = tokens.select(part[first:last])
            # Which rows, is known here: a mask on the device would have to be waited for.
            rows = to_device(kept.rows(part[first:last], batch.ids.shape[1]), self.device)
            hidden = self._hidden(batch, layers, site)
            return last - first, {
                layer: x.flatten(0, 1)[rows].float() for layer, x in hidden.items()
            }

        longest = int(tokens.lengths[part].max())
        passes = list(halving(run, len(part), len(part), self._no_room(longest)))
        self._batches.remember([count * longest for count, _ in passes])
        if len(passes) == 1:
            return passes[0][1]
        return {layer: torch.cat([rows[layer] for _, rows in passes]) for layer in layers}

    def _no_room(self, n_tokens: int) -> str:
        return (
            f"There is no room on the device {self.device} for {self.name} and one text of "
            f"{n_tokens:,} tokens. Choose a shorter context, a smaller model, bfloat16 in place of "
            "float32, or another device."
        )

    def hidden(self, tokens: Tokens, layer: int, site: str | None = None) -> torch.Tensor:
        """What stands at a site of block `layer`, by default its output, at every position, padding
        included, [n_texts, longest, d_model] in the model's own data type."""
        self.check_layers([layer])
        return self._hidden(tokens, [layer], self._checked_site(site))[layer]

    def hidden_each(self, batches: Sequence[Tokens], layer: int) -> Iterator[Step[torch.Tensor]]:
        """`hidden` of several batches in their order, computed as they are asked for."""
        for number, (tokens, fraction) in enumerate(zip(batches, _shares(batches), strict=True)):
            yield Step(fraction, number, self.hidden(tokens, layer))

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """Next-token logits, [n_texts, longest, n_vocabulary] float32. Raises ModelError for
        encoders."""
        self.abilities.require(self.name, "next_tokens")
        return self.run(tokens.ids, tokens.mask, use_cache=False).logits.float()

    def run(self, ids: torch.Tensor, mask: torch.Tensor | None, **options) -> Any:
        """transformers' own output of the whole model. ids, mask: [n_texts, longest]; options: of
        its forward method, those that it has no name for are left out."""
        return self._run(self.module, ids, mask, options)

    def takes(self, option: str) -> bool:
        """Whether the model's forward method has an option of this name."""
        return option in _parameters(type(self.module))

    def run_base(self, tokens: Tokens, **options) -> Any:
        """The same without the head: what capturing runs."""
        return self._run(self.module.base_model, tokens.ids, tokens.mask, options)

    def _run(self, module: nn.Module, ids, mask, options: dict[str, Any]) -> Any:
        # The mask as transformers' tokenizers give it: some models calculate with it.
        if mask is not None:
            mask = to_device(mask.to(torch.int64), self.device)
            options = {"attention_mask": mask, **options}
        ids = to_device(ids, self.device)
        with self._lock, working_on(self.device), torch.inference_mode():
            return module(input_ids=ids, **_accepted(type(module), options))

    def unembed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token scores of vectors of the residual stream as if they were the last block's
        output, [n, n_vocabulary] float32: by whatever the model does after its blocks. hidden:
        [n, d_model]. Raises ModelError where the model has no such scores."""
        self.abilities.require(self.name, "unembedding")
        if not len(hidden):
            return self.logits(self._any_token(1))[:0, 0].cpu()
        tokens, last = self._any_token(len(hidden)), self.n_layers - 1
        return self.logits_after(tokens, last, hidden[:, None], RESID_POST)[:, 0].cpu()

    def _any_token(self, count: int) -> Tokens:
        """`count` texts of one token, whose own activations are to be replaced."""
        tokens = self.tokenize(["a"])
        ids = tokens.ids[:, -1:].expand(count, 1)
        one = np.zeros((count, 1), bool)
        mask = torch.ones(count, 1, dtype=torch.bool)
        spans = np.zeros((count, 1, 2), np.int64)
        return Tokens(("a",) * count, ids, mask, spans, one, self.tokenizer)

    def logits_after(
        self, tokens: Tokens, layer: int, hidden: torch.Tensor, site: str | None = None
    ) -> torch.Tensor:
        """`logits` with `hidden`, [n_texts, longest, d_model], at a site of block `layer`, by
        default in place of its output.

        The blocks up to there are not computed, where it was proved that they need not be. Within
        a block they are: the stream beside what is replaced has to be known.
        """
        site = self._checked_site(site)
        if site == "resid_pre" and layer:
            layer, site = layer - 1, RESID_POST
        if site != RESID_POST or layer not in self.abilities.begins_after:
            with self.splice(layer, hidden, tokens.mask, site):
                return self.logits(tokens)
        hidden = hidden.to(self.device, next(self.module.parameters()).dtype)
        with self._lock, left_out(self.blocks[: layer + 1], hidden):
            return self.logits(tokens)

    def logits_after_each(
        self,
        layer: int,
        streams: Iterable[tuple[Tokens, torch.Tensor]],
        n_tokens: int | None = None,
    ) -> Iterator[Step[torch.Tensor]]:
        """`logits_after` of several streams in their order, each taken and computed as it is asked
        for.

        streams: tokens and `hidden` of each; n_tokens: in all of them together, by which the
        fraction goes. Without it the streams are counted first, which holds all of them.
        """
        if n_tokens is None:
            streams = list(streams)
            n_tokens = sum(int(tokens.mask.sum()) for tokens, _ in streams)
        done = 0
        for number, (tokens, hidden) in enumerate(streams):
            done += int(tokens.mask.sum())
            fraction = min(1.0, done / max(1, n_tokens))
            yield Step(fraction, number, self.logits_after(tokens, layer, hidden))

    @contextmanager
    def splice(
        self, layer: int, hidden: torch.Tensor, where: torch.Tensor, site: str | None = None
    ):
        """Within this context what stands at a site of block `layer`, by default its output, is
        replaced by `hidden`.

        hidden: [n_texts, longest, d_model]; where: [n_texts, longest] bool, the positions
        replaced.
        """
        self.abilities.require(self.name, "splicing")
        change = replacing(hidden.to(self.device), where.to(self.device))
        with self.output_changed(layer, change, site):
            yield

    @contextmanager
    def output_changed(
        self,
        layer: int,
        change: Callable[[torch.Tensor], torch.Tensor],
        site: str | None = None,
    ):
        """Within this context what stands at a site of block `layer`, by default its output, is
        what `change` makes of it."""
        self.check_layers([layer])
        site = self._checked_site(site)
        with self._lock, changed(self.blocks[layer], change, self._place(site, layer)):
            yield

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises InputError for a layer that does not exist."""
        check_layers(layers, self.n_layers, self.name)

    def _checked_site(self, site: str | None) -> str:
        """The one that is asked for, else the model's own."""
        if site is not None and site != self.site:
            self.check_site(site)
        return site or self.site

    def check_site(self, site: str) -> None:
        """Raises InputError for a site that there is not, ModelError for one that the model's
        blocks lack."""
        SETTINGS["site"].check(site)
        if site != RESID_POST and (reason := self.sites.why_not(site)):
            raise ModelError(f"{self.name} has no {site} to read: {reason}. Choose {RESID_POST}.")

    def _place(self, site: str, layer: int) -> Place:
        """Where a site is in a block; the usual one asks for no proof."""
        return Place() if site == RESID_POST else self.sites.place(site, layer)

    def _hidden(
        self, tokens: Tokens, layers: Sequence[int], site: str = RESID_POST
    ) -> dict[int, torch.Tensor]:
        """What stands at a site of the blocks, [n_texts, longest, d_model] each; stops after the
        last one asked for."""
        places = [self._place(site, layer) for layer in layers]
        with self._lock, recorded(self.blocks, layers, places=places) as outputs:
            self.run_base(tokens, use_cache=False)
        shape = (*tokens.ids.shape, self.d_model)
        for layer, found in outputs.items():
            if [tuple(one.shape) for one in found] != [shape]:
                shapes = " and ".join(str(tuple(one.shape)) for one in found) or "nothing"
                raise ModelError(
                    f"The activations of {self.name} can't be read: block {layer} gave {shapes} in "
                    f"a pass, not one tensor of shape {shape}."
                )
        return {layer: found[0] for layer, found in outputs.items()}


@functools.cache
def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind.forward).parameters)


def _accepted(kind: type[nn.Module], options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that a class's forward method takes."""
    parameters = _parameters(kind)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}


def _shares(batches: Sequence[Tokens]) -> list[float]:
    """Which share of all tokens has been read after each batch, in [0, 1]."""
    counts = np.cumsum([int(tokens.mask.sum()) for tokens in batches])
    return [int(count) / max(1, int(counts[-1])) for count in counts]
