"""The queries of short cards: several latents at once, in as many queries as one takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from itda_core.store.database import Database
from itda_core.store.score_tables import SCORED
from itda_core.store.strong_tables import uses_of

_OF_ASKED = "SEMI JOIN asked USING (latent)"
_ASKED = "WITH asked AS (SELECT unnest($latents::INTEGER[]) AS latent)"
# As numpy.linspace and numpy.histogram do it: equal widths, and the last bin holds its end.
_BINNED = f"""{_ASKED},
    uses AS MATERIALIZED (SELECT latent, coefficient::DOUBLE AS coefficient FROM ({{uses}})),
    ends AS (
        SELECT latent, min(coefficient) AS low, max(coefficient) AS high, high - low
                <= $flat * greatest(abs(low), abs(high)) AS is_flat
        FROM uses GROUP BY latent),
    bins AS (
        SELECT latent, low - is_flat::INTEGER / 2 AS low, high + is_flat::INTEGER / 2 AS high
        FROM ends),
    thresholds AS (
        SELECT l.latent, q.threshold FROM latents l SEMI JOIN asked USING (latent)
        JOIN runs r USING (run) {SCORED} WHERE r.run_id = $run)
    SELECT latent, least(floor((coefficient - low) / (high - low) * $bins), $bins - 1)::INTEGER
            AS bin, any_value(low) AS low, any_value(high) AS high,
        count(*) FILTER (coefficient > 0) AS positive,
        count(*) FILTER (coefficient < 0) AS negative,
        CASE WHEN any_value(threshold) IS NULL THEN NULL
            ELSE count(*) FILTER (coefficient >= threshold) END AS strong
    FROM uses JOIN bins USING (latent) LEFT JOIN thresholds USING (latent) GROUP BY latent, bin"""
_STRONGEST = f"""{_ASKED},
    ranked AS (
        SELECT * FROM ({{uses}}) QUALIFY row_number() OVER (PARTITION BY latent
            ORDER BY abs(coefficient) DESC, prompt, position) <= $limit)
    SELECT u.latent, p.text, rp.starts[u.position + 1] AS "start",
        rp.ends[u.position + 1] AS "end", u.coefficient
    FROM ranked u JOIN prompts p USING (prompt) JOIN run_prompts rp USING (run, prompt)
    ORDER BY u.latent, abs(u.coefficient) DESC, u.prompt, u.position"""


@dataclass(frozen=True)
class UseBins:
    """How many uses of a latent have which coefficient, in bins of equal width."""

    low: float
    """where the first bin begins"""
    high: float
    """where the last one ends"""
    positive: np.ndarray
    """[n_bins] int64"""
    negative: np.ndarray
    """[n_bins] int64"""
    strong: np.ndarray | None
    """[n_bins] int64, None where no threshold tells strong uses"""


class ShortUse(NamedTuple):
    """A token that uses a latent."""

    text: str
    """of its prompt"""
    start: int
    """in the text, characters"""
    end: int
    coefficient: float


@dataclass(frozen=True)
class ShortUses:
    """What the short card of one latent shows of its uses."""

    bins: UseBins
    strongest: list[ShortUse]
    """the largest first"""


class CardQueries:
    """What uses several latents, from `store.cards`."""

    def __init__(self, database: Database):
        self._database = database

    def uses(
        self, run_id: str, latents: Sequence[int], limit: int = 3, n_bins: int = 24
    ) -> dict[int, ShortUses]:
        """The uses of each latent, in two queries whatever their number. limit: how many are the
        strongest: of strong uses where the run's scores tell them, of all of a latent without a
        threshold, by |coefficient|."""
        numbers = list(dict.fromkeys(map(int, latents)))
        bins = self._database.query(
            _BINNED.format(uses=uses_of(self._database, run_id, False, _OF_ASKED)),
            run=run_id,
            latents=numbers,
            bins=n_bins,
            flat=n_bins * float(np.finfo(np.float32).eps),
        )
        strongest = self._database.query(
            _STRONGEST.format(uses=uses_of(self._database, run_id, True, _OF_ASKED)),
            run=run_id,
            latents=numbers,
            limit=limit,
        )
        tops: dict[int, list[ShortUse]] = {latent: [] for latent in numbers}
        for latent, *use in zip(*(strongest[name] for name in strongest), strict=True):
            tops[latent].append(ShortUse(*use))
        return {
            latent: ShortUses(one, tops[latent])
            for latent, one in zip(numbers, _bins(bins, numbers, n_bins), strict=True)
        }


def _bins(counts: pd.DataFrame, latents: list[int], n_bins: int) -> list[UseBins]:
    """One for each latent. counts: of _BINNED, which leaves out empty bins."""
    rows = pd.Index(latents).get_indexer(counts["latent"])
    edges = np.tile([0.0, 1.0], (len(latents), 1))
    edges[rows] = counts[["low", "high"]]
    full = {
        name: np.zeros((len(latents), n_bins), np.int64)
        for name in ("positive", "negative", "strong")
    }
    for name, values in full.items():
        values[rows, counts["bin"]] = counts[name].fillna(0)
    has_threshold = np.zeros(len(latents), bool)
    has_threshold[rows] = counts["strong"].notna()
    return [
        UseBins(
            float(edges[row, 0]),
            float(edges[row, 1]),
            full["positive"][row],
            full["negative"][row],
            full["strong"][row] if has_threshold[row] else None,
        )
        for row in range(len(latents))
    ]
