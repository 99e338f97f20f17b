"""The queries about the same latents in two models."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from itda_core.errors import InputError
from itda_core.runs.latent_comparisons import ABOUT
from itda_core.store.database import Database
from itda_core.store.label_sources import LABELLED
from itda_core.store.latent_search import LATENT_COLUMNS
from itda_core.store.namesake_tables import CURRENT, IS_CURRENT

_Z = "atanh(greatest(-0.999999, least(0.999999, correlation)))"
_HALF = "CASE WHEN uses_either > 3 THEN 1.96 / sqrt(uses_either - 3) ELSE 99 END"
"""Of the 95 % interval of Fisher's z, over the tokens that either side uses"""
ORDERS = {
    "most_changed": f"{_Z} + {_HALF}, correlation, latent_a",
    "most_alike": f"{_Z} - {_HALF} DESC, correlation DESC, latent_a",
    "only_a": "uses_a DESC, latent_a",
    "only_b": "uses_b DESC, latent_a",
    "denser": "density_b - density_a DESC, latent_a",
    "sparser": "density_b - density_a, latent_a",
}
"""In which latents are listed; the first two list those that have a correlation, by the end of its
interval, so that a few uses don't lead (`similarity.same_latents.most_changed` has the same order);
the next two those that only one side uses"""
_LISTED = {
    "most_changed": "correlation IS NOT NULL",
    "most_alike": "correlation IS NOT NULL",
    "only_a": "uses_a > 0 AND uses_b = 0",
    "only_b": "uses_b > 0 AND uses_a = 0",
}
_NAMESAKES = f"""(
    SELECT n.latent_a, n.latent_b, s.* EXCLUDE (latent, tokens, density, strongest, run_id),
        n.correlation, n.rank_a, n.rank_b, n.uses_a, n.uses_b, n.uses_both, n.chance,
        n.uses_a + n.uses_b - n.uses_both AS uses_either,
        n.uses_a / c.tokens AS density_a, n.uses_b / c.tokens AS density_b,
        1 - n.uses_both / nullif(n.uses_a, 0) AS alone_a,
        1 - n.uses_both / nullif(n.uses_b, 0) AS alone_b
    FROM {CURRENT} JOIN namesakes n USING (run_a, run_b, of_strong)
    JOIN (SELECT r.run_id, {LATENT_COLUMNS} FROM {LABELLED} WHERE r.run_id = $run) s
        ON s.run_id = n.run_a AND s.latent = n.latent_a
    WHERE c.run_a = $run AND c.run_b = $run_b AND c.of_strong = $of_strong AND {IS_CURRENT}
        AND greatest(n.uses_a, n.uses_b) >= $min_uses
        AND contains(lower(concat_ws(' ', s.label, s.note)), lower($label)))"""


class NamesakeQueries:
    """Latents with the same source in two runs, from `store.namesakes`. Each comparison answers
    from either side, and where both runs had scores, of strong uses too: of_strong says of which
    uses every number is."""

    def __init__(self, database: Database):
        self._database = database

    def comparisons(self, of_strong: bool = False) -> pd.DataFrame:
        """All that is known of pairs of runs, each from both sides: the columns of
        `runs.latent_comparisons.ABOUT`. of_strong: of those that tell strong uses."""
        columns = ", ".join(f"c.{name}" for name in ABOUT)
        return self._database.query(
            f"""SELECT {columns} FROM {CURRENT} WHERE c.of_strong = $of_strong AND {IS_CURRENT}
            ORDER BY c.run_a, c.run_b""",
            of_strong=of_strong,
        )

    def in_common(self) -> pd.DataFrame:
        """About how many sources two dictionaries have in common, each pair from both sides: run_a,
        run_b, sources. Counted by where they end in which prompt, which takes no tokenizer;
        `similarity.same_sources` says which latents really are the same."""
        return self._database.query(
            """WITH ends AS (SELECT DISTINCT r.run_id, l.prompt, l."end" AS place
                FROM latents l JOIN runs r USING (run) WHERE r.kind = 'itda')
            SELECT a.run_id AS run_a, b.run_id AS run_b, count(*) AS sources
            FROM ends a JOIN ends b USING (prompt, place) WHERE a.run_id <> b.run_id
            GROUP BY ALL ORDER BY ALL"""
        )

    def table(
        self,
        run_a: str,
        run_b: str,
        order: str = "most_changed",
        label: str = "",
        min_uses: int = 0,
        rows: int | None = None,
        first: int = 0,
        of_strong: bool = False,
    ) -> pd.DataFrame:
        """The latents of a pair of runs, with A's source, label and note: latent_a, latent_b,
        prompt_id, position, token …, correlation, ranks, uses, density_a and density_b (of the
        tokens compared), alone_a and alone_b (the share of uses that the other does not have); NaN
        for what there is not.

        order: one of ORDERS; label: text that A's label or note holds; min_uses: of the side that
        uses it more; rows: at most so many, from place `first` on. Raises InputError for an order
        that there is not.
        """
        if order not in ORDERS:
            raise InputError(f"There is no order {order!r}: take one of {', '.join(ORDERS)}.")
        return self._database.query(
            f"""SELECT * FROM {_NAMESAKES} WHERE {_LISTED.get(order, "true")}
            ORDER BY {ORDERS[order]} LIMIT $rows OFFSET $first""",
            **_values(run_a, run_b, label, min_uses, of_strong),
            rows=2**31 if rows is None else rows,
            first=first,
        )

    def numbers(
        self,
        run_a: str,
        run_b: str,
        order: str = "most_changed",
        label: str = "",
        min_uses: int = 0,
        of_strong: bool = False,
    ) -> list[int]:
        """A's latents in the order of `table`, all of them."""
        return self._database.query(
            f"""SELECT latent_a FROM {_NAMESAKES} WHERE {_LISTED.get(order, "true")}
            ORDER BY {ORDERS[order]}""",
            **_values(run_a, run_b, label, min_uses, of_strong),
        )["latent_a"].tolist()

    def pairs(
        self, run_a: str, run_b: str, latents: Sequence[int], of_strong: bool = False
    ) -> pd.DataFrame:
        """The rows of `table` of some of A's latents, by their numbers."""
        return self._database.query(
            f"""SELECT * FROM {_NAMESAKES} WHERE list_contains($latents::INTEGER[], latent_a)
            ORDER BY latent_a""",
            **_values(run_a, run_b, "", 0, of_strong),
            latents=list(latents),
        )

    def points(
        self, run_a: str, run_b: str, label: str = "", min_uses: int = 0, of_strong: bool = False
    ) -> pd.DataFrame:
        """All latents in short: latent_a, latent_b, token, label, correlation, density_a,
        density_b; by their numbers."""
        return self._database.query(
            f"""SELECT latent_a, latent_b, token, label, correlation, density_a, density_b
            FROM {_NAMESAKES} ORDER BY latent_a""",
            **_values(run_a, run_b, label, min_uses, of_strong),
        )

    def histogram(
        self,
        run_a: str,
        run_b: str,
        bins: int = 40,
        label: str = "",
        min_uses: int = 0,
        of_strong: bool = False,
    ) -> pd.DataFrame:
        """How many latents have a correlation in each of `bins` equal parts of [−1, 1]: low, high,
        latents, and chance, as many of one permutation of the sources. The last part holds 1."""
        edges = np.linspace(-1, 1, bins + 1)
        columns = {"low": edges[:-1], "high": edges[1:]}
        for name, column in (("latents", "correlation"), ("chance", "chance")):
            counts = self._database.query(
                f"""SELECT least(floor(({column} + 1) / 2 * $bins), $bins - 1)::INTEGER AS bin,
                    count(*) AS latents
                FROM {_NAMESAKES} WHERE {column} IS NOT NULL GROUP BY bin""",
                **_values(run_a, run_b, label, min_uses, of_strong),
                bins=bins,
            )
            columns[name] = np.zeros(bins, np.int64)
            columns[name][counts["bin"].clip(lower=0)] = counts["latents"]
        return pd.DataFrame(columns)


def _values(run_a: str, run_b: str, label: str, min_uses: int, of_strong: bool) -> dict:
    return {
        "run": run_a,
        "run_b": run_b,
        "label": label,
        "min_uses": min_uses,
        "of_strong": of_strong,
    }
