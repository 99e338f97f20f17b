"""Words for the regions of a map of latents: what the sources there are, and elsewhere are not."""

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2

from itda_core.similarity.log_odds import word_counts, word_of

_REGIONS = 24
_FEWEST_LATENTS = 8
"""In a region, on average"""
_FEWEST = 2
"""Sources of a word in a region that is named by it"""
_WORDS = 2


_CHARACTER, _LINE, _PAD = 7.5, 20, 10
"""Pixels of a character of the words, of their line, and beside them"""


def map_regions(points: pd.DataFrame) -> pd.DataFrame:
    """The regions of a map that have words of their own: x, y (float64, where the words stand: the
    median of the sources that they name), words (str, at most two, the more telling first) and
    sources (how many they name); most sources first.

    points: x, y and token of each latent. Regions are clusters of the map (k-means); a word names
    one where the log-odds ratio tells it apart from all others with z above 1.96 and at least two
    sources there read it.
    """
    columns = ["x", "y", "words", "sources"]
    k = min(_REGIONS, len(points) // _FEWEST_LATENTS)
    if k < 2:
        return pd.DataFrame([], columns=columns)
    places = points[["x", "y"]].to_numpy(np.float64)
    spread = places.std(0)
    _, region = kmeans2(places / np.where(spread > 0, spread, 1.0), k, minit="++", rng=0)
    words = word_of(points["token"]).to_numpy()
    rows = []
    for number in range(k):
        inside = region == number
        found = _words_of(points, inside)
        if found:
            named = inside & np.isin(words, found)
            rows.append([*np.median(places[named], 0), " · ".join(found), int(named.sum())])
    regions = pd.DataFrame(rows, columns=columns)
    return regions.sort_values("sources", ascending=False, kind="stable", ignore_index=True)


def without_overlaps(
    regions: pd.DataFrame, points: pd.DataFrame, size: tuple[int, int]
) -> list[int]:
    """The rows of regions whose words can be drawn without covering those of a row before them.
    regions: of `map_regions`; points: with x and y, which fill the map; size: of the map, in
    pixels. Widths of words are estimated, on the large side."""
    places, taken = _pixels(regions, points, size), []
    for row, (x, y) in enumerate(places):
        half = (_CHARACTER * len(regions["words"][row]) + _PAD) / 2
        is_free = all(
            abs(x - other_x) >= half + other_half or abs(y - other_y) >= _LINE
            for _, other_x, other_y, other_half in taken
        )
        if is_free:
            taken.append((row, x, y, half))
    return [row for row, *_ in taken]


def _pixels(regions: pd.DataFrame, points: pd.DataFrame, size: tuple[int, int]) -> np.ndarray:
    """Where regions are on a map of this size, [n_regions, 2]."""
    low = points[["x", "y"]].min().to_numpy(np.float64)
    span = points[["x", "y"]].max().to_numpy(np.float64) - low
    shares = (regions[["x", "y"]].to_numpy(np.float64) - low) / np.where(span > 0, span, 1.0)
    return shares * np.asarray(size, np.float64)


def _words_of(points: pd.DataFrame, inside: np.ndarray) -> list[str]:
    counts = word_counts(points[inside], points[~inside])
    telling = counts[(counts["z"] > 1.96) & (counts["only_a"] >= _FEWEST)]
    return telling["word"].head(_WORDS).tolist()
