"""Activations that TransformerLens has cached become a folder to train from.

    model = TransformerBridge.boot_transformers("gpt2")
    recorder = CacheRecorder(model, folder, layers=[3, 6, 9])
    for texts in batches:
        _, cache = model.run_with_cache(texts, names_filter=recorder.hook_names)
        recorder.add(texts, cache)
    recorder.finish()

TransformerLens can fold norms and centre weights, which changes what a block gives. So the folder
names no version of the model, unless the caller says which one it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from itda_core.activations.folder_index import FolderIndex
from itda_core.activations.folder_recorder import FolderRecorder
from itda_core.config import ModelSpec
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.errors import ExchangeError
from itda_core.model.spans import true_spans
from itda_core.model.tokenizer import tokenizer_digest
from itda_core.model.tokens import TokenizedText


class CacheRecorder:
    """Writes the residual stream of cached passes into a folder of activations."""

    def __init__(
        self,
        model: Any,
        folder: Path | str,
        layers: Sequence[int],
        name: str | None = None,
        digest: str | None = None,
        skip_first: bool = True,
        stored: str = "auto",
    ):
        """model: a TransformerBridge or HookedTransformer; name: as `load_model` takes it, by
        default that of its tokenizer; digest: `load_model(name).digest`, only where the blocks give
        what the plain model's give; stored: data type on disk, see `capture_folder`."""
        config, self._model = model.cfg, model
        self._layers, self._skip_first = tuple(layers), skip_first
        if not model.tokenizer.is_fast:
            raise ExchangeError("The tokenizer gives no character spans (not a fast one).")
        index = FolderIndex(
            model=ModelSpec(
                name or config.tokenizer_name or config.model_name,
                dtype=str(config.dtype).removeprefix("torch."),
            ),
            model_digest=digest,
            d_model=config.d_model,
            n_layers=config.n_layers,
            tokenizer=tokenizer_digest(model.tokenizer),
            layers=self._layers,
            context_length=config.n_ctx,
            skip_first=skip_first,
            parts=(),
        )
        names = model.tokenizer.convert_ids_to_tokens
        self._recorder = FolderRecorder(Path(folder), index, names, stored)

    @property
    def hook_names(self) -> list[str]:
        """What a pass has to cache."""
        return [_hook(layer) for layer in self._layers]

    def add(self, texts: Sequence[str], cache: Mapping[str, torch.Tensor]) -> None:
        """Write what `model.run_with_cache(texts)` cached. Texts of one token are left out. Raises
        ExchangeError where the cache is not of these texts."""
        ids = self._model.to_tokens(list(texts)).cpu().numpy()
        prompts, found, places = [], [], []
        for row, text in enumerate(texts):
            first, tokens = _tokens_of(self._model, text, ids[row])
            if len(tokens) < 2:
                continue
            prompts.append(Prompt(prompt_id(text), text))
            found.append(tokens)
            places.append((row, first + self._skip_first, first + len(tokens)))
        rows = {layer: _rows(cache, layer, ids.shape, places) for layer in self._layers}
        self._recorder.add(prompts, found, rows)

    def finish(self) -> None:
        """Make the folder whole."""
        self._recorder.finish()


def _hook(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


def _rows(
    cache: Mapping[str, torch.Tensor],
    layer: int,
    shape: tuple[int, int],
    places: Sequence[tuple[int, int, int]],
) -> torch.Tensor:
    """[n_rows, d_model] float32 of the positions that are kept: text, first, and one after the last
    of each."""
    try:
        x = cache[_hook(layer)]
    except KeyError as error:
        raise ExchangeError(
            f"The cache has no {_hook(layer)}. Give `hook_names` to run_with_cache as its "
            "names_filter."
        ) from error
    if tuple(x.shape[:2]) != shape:
        raise ExchangeError(
            f"The cache has {tuple(x.shape[:2])} texts and positions, and these texts give "
            f"{tuple(shape)}: it is not of them. Give the texts that were run, in one call."
        )
    return torch.cat([x[row, first:last].detach().float().cpu() for row, first, last in places])


def _tokens_of(model: Any, text: str, row: np.ndarray) -> tuple[int, TokenizedText]:
    """Where a text's tokens begin in a padded row of ids, and the tokens: those of the text, after
    one for the beginning where the model puts one there. Raises ExchangeError where they are
    others."""
    tokenizer = model.tokenizer
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.array(encoded["input_ids"], np.int32)
    added = {number for number in tokenizer.all_special_ids if number is not None}
    # Some tokenizers have no token for the beginning, whatever the model's settings are.
    for begins in (1, 0) if model.cfg.default_prepend_bos else (0,):
        kept = ids[: len(row) - begins]
        for first in range(len(row) - len(kept) - begins + 1):
            last = first + begins + len(kept)
            rest = [*row[: first + begins], *row[last:]]
            if np.array_equal(row[first + begins : last], kept) and added.issuperset(rest):
                return first, _text(tokenizer, text, encoded, row[first:last], begins, len(ids))
    raise ExchangeError(f"The tokens that were run are not those of the text {text!r:.60}.")


def _text(
    tokenizer: Any, text: str, encoded: Any, ids: np.ndarray, begins: int, length: int
) -> TokenizedText:
    """begins: 1 where a token stands before the text; length: tokens that the whole text has."""
    count = len(ids) - begins
    spans = np.zeros((len(ids), 2), np.int32)
    spans[begins:] = np.array(encoded["offset_mapping"][:count], np.int32).reshape(-1, 2)
    special = np.arange(len(ids)) < begins
    ids = ids.astype(np.int32)
    spans, special = true_spans(tokenizer, text, ids, spans, special)
    return TokenizedText(text, ids, spans, special, is_cut=count < length)
