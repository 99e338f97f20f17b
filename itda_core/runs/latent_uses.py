"""Which explored tokens of a run use which of its latents, read from the run directory."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from itda_core.tables import as_frame, open_table


class ReadTokens(NamedTuple):
    """The tokens that a run has read, numbered through all prompts."""

    texts: list[str]
    """[n_prompts], each as far as it was read"""
    offsets: np.ndarray
    """[n_prompts + 1] int64, the number of each prompt's first token"""
    spans: np.ndarray
    """[n_tokens, 2] int64, characters"""
    prompts: np.ndarray
    """[n_tokens] int64"""
    words: np.ndarray
    """[n_tokens] int64, equal for tokens of the same text but for case and white space; −1 without
    characters that can be seen"""


class Survey(NamedTuple):
    """What one pass over the codes shows."""

    uses: np.ndarray
    """[n_latents] int64, tokens that use each latent outside the prompt of its title"""
    explored: np.ndarray
    """[n_tokens] bool"""
    largest: np.ndarray
    """[n_tokens] float64, the largest |coefficient| of each token"""


class Uses(NamedTuple):
    """Every use of every latent, by latent and then by token. A token that uses a latent twice does
    so once, by the sum."""

    latents: np.ndarray
    """[n_uses] int32"""
    tokens: np.ndarray
    """[n_uses] int32, as ReadTokens numbers them"""
    coefficients: np.ndarray
    """[n_uses] float32, none of them 0"""
    steps: np.ndarray
    """[n_uses] int16, the first one that took the latent"""


_LETTERS = re.compile(r"\w+")


def read_tokens(prompts: pd.DataFrame) -> ReadTokens:
    """Number the tokens of the prompts table: text, and starts and ends of the tokens read."""
    lengths = prompts["starts"].map(len).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    spans = np.stack([np.concatenate([*prompts[name]]) for name in ("starts", "ends")], axis=1)
    texts = [
        text[: int(ends.max(initial=0))]
        for text, ends in zip(prompts["text"], prompts["ends"], strict=True)
    ]
    numbers = np.repeat(np.arange(len(prompts)), lengths)
    words = [
        texts[prompt][start:end].strip().casefold()
        for prompt, (start, end) in zip(numbers.tolist(), spans.tolist(), strict=True)
    ]
    words = pd.factorize(pd.Series(words, dtype=object).replace("", None))[0]
    return ReadTokens(texts, offsets, spans.astype(np.int64), numbers, words)


def whole_words(prompts: pd.DataFrame, tokens: ReadTokens) -> np.ndarray:
    """The word that each token belongs to, [n_tokens] int64: the letters and digits in a row that
    it shares a character with, the first of them, also where the prompt was not read to its end;
    equal for equal words but for case. −1 where it has none, such as a comma."""
    found: list[str | None] = []
    for prompt, text in enumerate(prompts["text"]):
        runs = [*_LETTERS.finditer(text)]
        spans = tokens.spans[tokens.offsets[prompt] : tokens.offsets[prompt + 1]]
        places = np.searchsorted([run.end() for run in runs], spans[:, 0], side="right")
        for place, (start, end) in zip(places.tolist(), spans.tolist(), strict=True):
            is_word = place < len(runs) and runs[place].start() < end and start < end
            found.append(runs[place].group().casefold() if is_word else None)
    return pd.factorize(pd.Series(found, dtype=object))[0]


def word_at(text: str, start: int, end: int) -> str:
    """The word of a token as `whole_words` tells it, as it is written; the token where it has
    none. start, end: of the token, characters."""
    first = _LETTERS.search(text, start, end)
    if first is None:
        return text[start:end]
    begin = first.start()
    while begin and _LETTERS.match(text, begin - 1):
        begin -= 1
    return _LETTERS.match(text, begin)[0]


def title_tokens(sources: pd.DataFrame, prompts: pd.DataFrame, tokens: ReadTokens) -> np.ndarray:
    """The token that each latent is titled by, [n_latents]; −1 where it was not read, or has no
    characters."""
    numbers = pd.Index(prompts["prompt_id"]).get_indexer(sources["prompt_id"])
    titles = tokens.offsets[numbers] + sources["position"].to_numpy()
    is_read = (numbers >= 0) & (titles < tokens.offsets[numbers + 1])
    titles = np.where(is_read, titles, -1)
    return np.where(tokens.words[titles] >= 0, titles, -1)


class CodeTable:
    """The code table of a run, read a row group at a time."""

    def __init__(self, path: Path, prompts: pd.DataFrame, tokens: ReadTokens):
        self._path = path
        self._prompt_ids = pd.Index(prompts["prompt_id"])
        self._tokens = tokens

    def survey(self, titles: np.ndarray) -> Survey:
        """Count uses and find each token's largest term; titles: [n_latents]."""
        n_tokens = len(self._tokens.prompts)
        survey = Survey(
            np.zeros(len(titles), np.int64), np.zeros(n_tokens, bool), np.zeros(n_tokens)
        )
        title_prompts = np.where(titles >= 0, self._tokens.prompts[titles], -1)
        for block in map(_summed, self._blocks()):
            latents, tokens = block["latent"].to_numpy(), block["token"].to_numpy()
            survey.explored[tokens] = True
            np.maximum.at(survey.largest, tokens, block["coefficient"].abs().to_numpy())
            elsewhere = self._tokens.prompts[tokens] != title_prompts[latents]
            usable = elsewhere & (titles[latents] >= 0) & (self._tokens.words[tokens] >= 0)
            survey.uses[:] += np.bincount(latents[usable], minlength=len(titles))
        return survey

    def uses_of(self, latents: np.ndarray) -> dict[int, pd.DataFrame]:
        """token and coefficient of every use of these latents, by latent."""
        blocks = [_summed(block[block["latent"].isin(latents)]) for block in self._blocks()]
        table = _summed(pd.concat(blocks))
        return dict(iter(table.groupby("latent")))

    def all_uses(self) -> Uses:
        """Every use, by one scan of the codes."""
        blocks = [*map(_as_arrays, self._blocks())] or [_NO_TERMS]
        latents, tokens, coefficients, steps = (
            np.concatenate(parts) for parts in zip(*blocks, strict=True)
        )
        order = np.lexsort((steps, tokens, latents))
        latents, tokens = latents[order], tokens[order]
        is_first = np.ones(len(order), bool)
        is_first[1:] = (np.diff(latents) != 0) | (np.diff(tokens) != 0)
        starts = np.flatnonzero(is_first)
        sums = np.add.reduceat(coefficients[order], starts) if len(starts) else np.zeros(0)
        sums = sums.astype(np.float32)
        is_use, starts = sums != 0, starts[sums != 0]
        return Uses(latents[starts], tokens[starts], sums[is_use], steps[order][starts])

    def _blocks(self) -> Iterator[pd.DataFrame]:
        """latent, token, step and coefficient of the terms of each row group."""
        file = open_table(self._path, read_dictionary=["prompt_id"])
        for number in range(file.num_row_groups):
            columns = ["latent", "prompt_id", "position", "step", "coefficient"]
            block = as_frame(file.read_row_group(number, columns, use_threads=False))
            ids = block["prompt_id"].cat
            prompts = self._prompt_ids.get_indexer(ids.categories)[ids.codes]
            token = self._tokens.offsets[prompts] + block["position"]
            block = block.assign(token=token, coefficient=block["coefficient"].astype(float))
            yield block[block["coefficient"] != 0]


_ARRAYS = {"latent": np.int32, "token": np.int32, "coefficient": np.float64, "step": np.int16}
_NO_TERMS = tuple(np.zeros(0, kind) for kind in _ARRAYS.values())


def _as_arrays(block: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return tuple(block[name].to_numpy(kind) for name, kind in _ARRAYS.items())


def _summed(block: pd.DataFrame) -> pd.DataFrame:
    """One row for each latent and token; a token that uses a latent twice does so by the sum."""
    return block.groupby(["latent", "token"], as_index=False)["coefficient"].sum()
