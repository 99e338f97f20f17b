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


def map_regions(points: pd.DataFrame) -> pd.DataFrame:
    """The regions of a map that have words of their own: x, y (float64, where the words stand: the
    median of the sources that they name) and words (str, at most two, the more telling first).

    points: x, y and token of each latent. Regions are clusters of the map (k-means); a word names
    one where the log-odds ratio tells it apart from all others with z above 1.96 and at least two
    sources there read it.
    """
    columns = ["x", "y", "words"]
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
            rows.append([*np.median(places[named], 0), " · ".join(found)])
    return pd.DataFrame(rows, columns=columns)


def _words_of(points: pd.DataFrame, inside: np.ndarray) -> list[str]:
    counts = word_counts(points[inside], points[~inside])
    telling = counts[(counts["z"] > 1.96) & (counts["only_a"] >= _FEWEST)]
    return telling["word"].head(_WORDS).tolist()
