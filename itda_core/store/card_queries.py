"""The queries of short cards: several latents at once, in as many queries as one takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.store.database import Database


@dataclass(frozen=True)
class ShortUses:
    """What the short card of one latent shows of its uses."""

    coefficients: np.ndarray
    """[n_tokens that use it] float32, of each of them"""
    strongest: pd.DataFrame
    """text (of the prompt), start and end (of the token, characters), coefficient; the largest
    first"""


class CardQueries:
    """What uses several latents, from `store.cards`."""

    def __init__(self, database: Database):
        self._database = database

    def uses(
        self, run_id: str, thresholds: Mapping[int, float | None], limit: int = 3
    ) -> dict[int, ShortUses]:
        """The uses of each latent, in two queries whatever their number. thresholds: by latent,
        from which coefficient its uses are strong: only these are among the strongest; where None,
        those with the largest |coefficient| are."""
        uses = self._uses(run_id, list(thresholds))
        empty = uses.iloc[:0]
        of_latents = {int(latent): table for latent, table in uses.groupby("latent")}
        of_latents = {latent: of_latents.get(latent, empty) for latent in thresholds}
        tops = [
            _strongest(of_latents[latent], threshold, limit)
            for latent, threshold in thresholds.items()
        ]
        texts = self._texts(run_id, pd.concat(tops) if tops else empty)
        columns = ["text", "start", "end", "coefficient"]
        return {
            latent: ShortUses(
                of_latents[latent]["coefficient"].to_numpy(),
                top.merge(texts, on=["prompt", "position"], how="left")[columns],
            )
            for latent, top in zip(thresholds, tops, strict=True)
        }

    def _uses(self, run_id: str, latents: Sequence[int]) -> pd.DataFrame:
        """Every token that uses one of the latents: latent, prompt, position, coefficient."""
        return self._database.query(
            """SELECT c.latent, c.prompt, c.position, sum(c.coefficient)::FLOAT AS coefficient
            FROM codes c JOIN runs r USING (run)
            WHERE r.run_id = $run AND list_contains($latents::INTEGER[], c.latent)
            GROUP BY ALL""",
            run=run_id,
            latents=latents,
        )

    def _texts(self, run_id: str, uses: pd.DataFrame) -> pd.DataFrame:
        """prompt, position, text, start and end of tokens; each once."""
        places = uses[["prompt", "position"]].drop_duplicates()
        return self._database.query(
            """WITH u AS (
                SELECT unnest($prompts::INTEGER[]) AS prompt,
                    unnest($positions::INTEGER[]) AS position)
            SELECT u.prompt, u.position, p.text, rp.starts[u.position + 1] AS "start",
                rp.ends[u.position + 1] AS "end"
            FROM u JOIN prompts p USING (prompt) JOIN run_prompts rp USING (prompt)
            JOIN runs r USING (run) WHERE r.run_id = $run""",
            run=run_id,
            prompts=places["prompt"].tolist(),
            positions=places["position"].tolist(),
        )


def _strongest(uses: pd.DataFrame, threshold: float | None, limit: int) -> pd.DataFrame:
    if threshold is not None:
        uses = uses[uses["coefficient"] >= threshold]
    order = np.lexsort([uses["position"], uses["prompt"], -uses["coefficient"].abs()])
    return uses.iloc[order[:limit]]
