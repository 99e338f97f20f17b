"""Which tokens are drawn to judge the titles of latents by: uses of every kind, and tokens beside
them that are none."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from itda_core.evaluation.strong_uses import share_thresholds, strong_thresholds
from itda_core.runs.latent_uses import ReadTokens, Survey

MIN_USES = 20
QUARTERS = ("weakest", "weaker", "stronger", "strongest")
"""Quarters of a latent's uses by |coefficient|."""
DRAWN = 20
"""Uses drawn of each kind, and tokens that do not use the latent"""


class Examples(NamedTuple):
    """Tokens drawn for each of n_latents latents; −1 where there are no more."""

    uses: dict[str, np.ndarray]
    """by kind, [n_latents, n]: all (the quarters together), the quarters, positive and negative
    coefficients, leading: the latent is the token's largest term, and strong: from a threshold
    up"""
    alike: dict[str, np.ndarray]
    """by kind, [n_latents, n]: beside each use a token of the same text that is none"""
    others: np.ndarray
    """[n_latents, DRAWN], any tokens that do not use the latent"""


def draw_latents(uses: np.ndarray, sample: int, seed: int) -> np.ndarray:
    """Up to `sample` latents with at least MIN_USES uses, in an order drawn by `seed`."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(uses >= MIN_USES))[:sample]


def draw_examples(
    latents: np.ndarray,
    uses: dict[int, pd.DataFrame],
    titles: np.ndarray,
    tokens: ReadTokens,
    survey: Survey,
    seed: int,
    strong_share: float | None = None,
) -> Examples:
    """Draw uses of every kind and tokens that are none, outside the prompt of each title.

    latents, titles: [n_latents]; uses: token and coefficient by latent; strong_share: as in
    `detect`. Each latent has two generators of its own, so that what is drawn does not depend on
    the others, nor the other kinds on its strong uses.
    """
    by_word = pd.Series(np.arange(len(tokens.words))[survey.explored & (tokens.words >= 0)])
    by_word = {
        word: tokens_of_kind.to_numpy()
        for word, tokens_of_kind in by_word.groupby(tokens.words[by_word])
    }
    cuts = _strong_from(latents, uses, titles, tokens, strong_share)
    drawn, alike, others = [], [], []
    for latent, title, cut in zip(latents.tolist(), titles.tolist(), cuts.tolist(), strict=True):
        draw, draw_strong = (np.random.default_rng([seed, latent, *of]) for of in ([], [1]))
        allowed = survey.explored & (tokens.words >= 0)
        allowed &= tokens.prompts != tokens.prompts[title]
        table = uses[latent][allowed[uses[latent]["token"]]]
        allowed[uses[latent]["token"]] = False
        others.append(_some(np.flatnonzero(allowed), DRAWN, draw))
        is_strong = table["coefficient"].astype(np.float32) >= cut
        strong = table["token"][is_strong].to_numpy()
        drawn.append(_draw_kinds(table, survey.largest, draw))
        drawn[-1]["strong"] = _some(strong, DRAWN, draw_strong)
        alike.append(
            {
                kind: _draw_alike(
                    some, tokens.words, by_word, allowed, draw_strong if kind == "strong" else draw
                )
                for kind, some in drawn[-1].items()
            }
        )
    return Examples(_stacked(drawn), _stacked(alike), np.stack(others))


def _strong_from(
    latents: np.ndarray,
    uses: dict[int, pd.DataFrame],
    titles: np.ndarray,
    tokens: ReadTokens,
    share: float | None,
) -> np.ndarray:
    """From which coefficient up a use outside the prompt of the title is strong, [n_latents]; inf
    or NaN where none is. latents, uses, titles: as in `draw_examples`; share: as in `detect`."""
    elsewhere = [
        uses[latent][tokens.prompts[uses[latent]["token"]] != tokens.prompts[title]]["coefficient"]
        for latent, title in zip(latents.tolist(), titles.tolist(), strict=True)
    ]
    owners = np.repeat(np.arange(len(latents)), [*map(len, elsewhere)])
    coefficients = np.concatenate(elsewhere).astype(np.float32)
    if share is None:
        return strong_thresholds(owners, coefficients, len(latents)).threshold
    return share_thresholds(owners, coefficients, share, len(latents))


def _draw_kinds(
    table: pd.DataFrame, largest: np.ndarray, draw: np.random.Generator
) -> dict[str, np.ndarray]:
    """Tokens of each kind of use, padded with −1. table: token, coefficient of a latent's uses."""
    used, coefficients = table["token"].to_numpy(), table["coefficient"].to_numpy()
    order = np.argsort(np.abs(coefficients), kind="stable")
    quarters = zip(QUARTERS, np.array_split(used[order], len(QUARTERS)), strict=True)
    kinds = {name: _some(quarter, DRAWN // len(QUARTERS), draw) for name, quarter in quarters}
    kinds = {"all": np.concatenate([*kinds.values()]), **kinds}
    kinds["positive"] = _some(used[coefficients > 0], DRAWN, draw)
    kinds["negative"] = _some(used[coefficients < 0], DRAWN, draw)
    kinds["leading"] = _some(used[np.abs(coefficients) >= largest[used]], DRAWN, draw)
    return kinds


def _draw_alike(
    used: np.ndarray,
    words: np.ndarray,
    by_word: dict[int, np.ndarray],
    allowed: np.ndarray,
    draw: np.random.Generator,
) -> np.ndarray:
    """For each use one of the `allowed` tokens with its text, −1 where there is none."""
    drawn = np.full(len(used), -1)
    for place, token in enumerate(used.tolist()):
        if token >= 0:
            alike = by_word[words[token]]
            drawn[place] = _some(alike[allowed[alike]], 1, draw)[0]
    return drawn


def _some(tokens: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """`count` of the tokens, each once, padded with −1."""
    drawn = draw.choice(tokens, min(count, len(tokens)), replace=False) if len(tokens) else []
    return np.concatenate([drawn, np.full(count - len(drawn), -1)]).astype(np.int64)


def _stacked(drawn: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {kind: np.stack([of_latent[kind] for of_latent in drawn]) for kind in drawn[0]}
