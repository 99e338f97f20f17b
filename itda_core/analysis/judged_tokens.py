"""A run's uses, and which tokens are drawn to judge each latent by."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.digests import digest
from itda_core.runs.latent_uses import (
    CodeTable,
    ReadTokens,
    Uses,
    read_tokens,
    title_tokens,
    whole_words,
)
from itda_core.runs.run import Run
from itda_core.tables import read_frame

Fits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Which of some tokens can stand beside the uses of some latents; all of one shape"""
DRAWN, MOST_DRAWN = 20, 200
"""Uses drawn of each latent, and tokens beside them; as many as there may be where every token is
embedded anyway"""
SEED = 0
_TRIES = 8
"""Tokens drawn for each that is wanted: some are uses themselves, or in the title's prompt"""


@dataclass(frozen=True)
class ReadRun:
    """A run's uses beside its tokens and titles."""

    prompts: str
    """digest of the prompts that were read"""
    tokens: ReadTokens
    words: np.ndarray
    """[n_tokens] int64, the word of each as `whole_words` gives it"""
    titles: np.ndarray
    """[n_latents] int64, the token that each latent is titled by; −1 where it was not read"""
    uses: Uses
    is_elsewhere: np.ndarray
    """[n_uses] bool, outside the prompt of the title"""

    @classmethod
    def of(cls, run: Run) -> "ReadRun":
        file = run.directory / "prompts.parquet"
        prompts, name = read_frame(file), digest(file.read_bytes())
        sources = read_frame(run.directory / "sources.parquet").sort_values("latent")
        tokens = read_tokens(prompts)
        titles = title_tokens(sources, prompts, tokens)
        uses = CodeTable(run.directory / "codes.parquet", prompts, tokens).all_uses()
        own = pd.Index(prompts["prompt_id"]).get_indexer(sources["prompt_id"])
        is_elsewhere = tokens.prompts[uses.tokens] != own[uses.latents]
        return cls(name, tokens, whole_words(prompts, tokens), titles, uses, is_elsewhere)


@dataclass(frozen=True)
class Drawn:
    """Tokens drawn for each latent, [n_latents, count] int64; −1 where there are no more."""

    uses: np.ndarray
    others: np.ndarray
    """any explored tokens that are none of the judged uses"""
    alike: np.ndarray
    """beside each use a token of the same text that is none"""


def draw(read: ReadRun, is_judged: np.ndarray, count: int = DRAWN) -> Drawn:
    """`count` of each latent's judged uses, as many other explored tokens, and for each use one of
    the same text that is none; only tokens with characters, outside the prompt of the title.

    is_judged: [n_uses] bool. Of latents whose title was not read nothing is drawn. The same run
    gives the same tokens.
    """
    uses, tokens, titles = read.uses, read.tokens, read.titles
    draws = np.random.default_rng(SEED)
    keys = uses.latents[is_judged].astype(np.int64) * len(tokens.words) + uses.tokens[is_judged]
    usable = is_judged & (tokens.words[uses.tokens] >= 0) & (titles[uses.latents] >= 0)
    drawn = _draw_uses(uses.latents[usable], uses.tokens[usable], len(titles), count, draws)

    def fits(candidates: np.ndarray, latents: np.ndarray) -> np.ndarray:
        key = latents * len(tokens.words) + candidates
        place = np.minimum(np.searchsorted(keys, key), max(0, len(keys) - 1))
        is_use = keys[place] == key if len(keys) else np.zeros(key.shape, bool)
        own = tokens.prompts[titles[latents]]
        return ~is_use & (candidates >= 0) & (tokens.prompts[candidates] != own)

    explored = np.unique(uses.tokens)
    explored = explored[tokens.words[explored] >= 0].astype(np.int64)
    rows = np.repeat(np.arange(len(titles)), count).reshape(drawn.shape)
    others = _first_fitting(_any_token(explored, drawn.shape, draws), rows, fits)
    others[titles < 0] = -1
    alike = _first_fitting(_same_text(explored, tokens.words, drawn, draws), rows, fits)
    return Drawn(drawn, others, np.where(drawn < 0, -1, alike))


def _draw_uses(
    latents: np.ndarray, tokens: np.ndarray, n_latents: int, count: int, draws: np.random.Generator
) -> np.ndarray:
    """Up to `count` of each latent's tokens, each once, [n_latents, count], padded with −1."""
    order = np.lexsort((draws.random(len(latents)), latents))
    owners = latents[order]
    places = np.arange(len(order)) - np.searchsorted(owners, owners)
    drawn = np.full((n_latents, count), -1, np.int64)
    some = places < count
    drawn[owners[some], places[some]] = tokens[order][some]
    return drawn


def _any_token(
    explored: np.ndarray, shape: tuple[int, ...], draws: np.random.Generator
) -> np.ndarray:
    """[_TRIES, *shape] explored tokens; −1 where there are none."""
    if not len(explored):
        return np.full((_TRIES, *shape), -1)
    return explored[draws.integers(len(explored), size=(_TRIES, *shape))]


def _same_text(
    explored: np.ndarray, words: np.ndarray, drawn: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """[_TRIES, *drawn.shape] explored tokens with the text of those drawn, in an order drawn for
    each: all of them where there are no more; −1 beyond."""
    order = np.argsort(words[explored], kind="stable")
    ordered = words[explored][order]
    wanted = words[drawn]
    first = np.searchsorted(ordered, wanted)
    count = np.where(drawn < 0, 0, np.searchsorted(ordered, wanted, side="right") - first)
    start = draws.integers(np.maximum(count, 1))
    step = np.arange(_TRIES).reshape(-1, *[1] * drawn.ndim)
    stride = np.maximum(1, count // _TRIES)
    place = first + (start + step * stride) % np.maximum(count, 1)
    return np.where(step < count, np.append(explored[order], -1)[place], -1)


def _first_fitting(
    candidates: np.ndarray, rows: np.ndarray, fits: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The first of the candidates, [_TRIES, *shape], that fits its latent, else −1."""
    found = np.full(rows.shape, -1, np.int64)
    for tried in candidates:
        takes = (found < 0) & fits(tried, rows)
        found = np.where(takes, tried, found)
    return found
