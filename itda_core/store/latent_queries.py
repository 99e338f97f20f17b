"""The queries about the latents of a dictionary: lists of them, and what each is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from itda_core.store.database import Database
from itda_core.store.label_queries import LabelQueries
from itda_core.store.label_sources import ATOMS_ELSEWHERE, LABELLED
from itda_core.store.latent_search import (
    DENSITY,
    LATENT_COLUMNS,
    SCORE_COLUMNS,
    STRONG_DENSITY,
    LatentPage,
    LatentSearch,
    listing,
)
from itda_core.store.namesake_tables import COMPARED
from itda_core.store.score_tables import SCORED
from itda_core.store.strong_tables import judged
from itda_core.store.word_search import Sought, find_latents, no_expression


class LatentQueries:
    """The latents of dictionaries, from `store.latents`."""

    def __init__(self, database: Database):
        self._database = database

    def page(
        self,
        run_id: str,
        search: LatentSearch,
        latent: int,
        rows: int,
        order: str = "number",
        similarities: Sequence[float] = (),
    ) -> LatentPage:
        """The page that holds a latent, else the first one. rows: of a page; similarities: of each
        latent, [n_latents], for the order "similarity". Raises InputError for an expression that is
        none."""
        numbers = self._in_order(run_id, search, order, similarities)
        places = np.flatnonzero(numbers == latent)
        place = int(places[0]) if len(places) else None
        first = (place or 0) // rows * rows
        return LatentPage(numbers[first : first + rows].tolist(), first, len(numbers), place)

    def at_place(
        self,
        run_id: str,
        search: LatentSearch,
        place: int,
        order: str = "number",
        similarities: Sequence[float] = (),
    ) -> int:
        """The latent at a place of the list, which has no end: after the last comes the first."""
        numbers = self._in_order(run_id, search, order, similarities)
        return int(numbers[place % len(numbers)])

    def numbers(
        self,
        run_id: str,
        search: str | LatentSearch = "",
        order: str = "number",
        similarities: Sequence[float] = (),
    ) -> list[int]:
        """The numbers of a dictionary's latents, searched and ordered.

        search: text that the context holds, or all that is wanted; order: one of ORDERS. Raises
        InputError for an expression that is none.
        """
        search = LatentSearch(search) if isinstance(search, str) else search
        return self._all(run_id, search, order, tuple(similarities)).tolist()

    def hidden_noise(self, run_id: str, search: LatentSearch) -> int:
        """How many latents a search leaves out as noise."""
        if search.kind != "usual":
            return 0
        noise = replace(search, kind="noise")
        return int(self._listed("SELECT count(*) AS n FROM listed", run_id, noise)["n"][0])

    def table(self, run_id: str, numbers: Sequence[int]) -> pd.DataFrame:
        """The given latents with their sources, in the order of their numbers, and with what was
        written of them here or, where nothing was, of the same source elsewhere: label, note,
        bookmarked, lists, and label_from, note_from and bookmarked_from, the run that it is from
        ("" where it is from here). Then strong_density, that of its strong uses or of all where it
        has no threshold, and its scores as `runs.latent_scores` names them, missing without one."""
        return self._database.query(
            f"""SELECT {LATENT_COLUMNS}, {SCORE_COLUMNS} FROM {LABELLED} {SCORED}
            WHERE r.run_id = $run AND list_contains($numbers::INTEGER[], l.latent)
            ORDER BY l.latent""",
            run=run_id,
            numbers=list(numbers),
        )

    def found(self, run_id: str, search: LatentSearch) -> pd.DataFrame:
        """What a search by meaning finds before its filters, and by what, as
        `word_search.find_latents` says it. Raises InputError for an expression that is none."""
        sought = Sought(search.text, search.way, search.of_strong)
        return self._database.known(find_latents, self._database, run_id, sought)

    def judged(self, run_id: str) -> str:
        """Which uses the scores of a run are of: "strong" or "all"; "" without scores."""
        return judged(self._database, run_id)

    def thresholds(self, run_id: str) -> np.ndarray:
        """From which coefficient the uses of each latent are strong, [n_latents] float32; NaN where
        that is not known, inf where none is."""
        return self._database.query(
            f"""SELECT q.threshold FROM latents l JOIN runs r USING (run) {SCORED}
            WHERE r.run_id = ? ORDER BY l.latent""",
            run_id,
        )["threshold"].to_numpy(np.float32, na_value=np.nan)

    def labels(self, run_id: str) -> dict[int, str]:
        """The label of each latent of a dictionary that has one, its own or that of the same source
        elsewhere."""
        table = LabelQueries(self._database).shown(run_id)
        return dict(zip(table["latent"].tolist(), table["label"], strict=True))

    def list_names(self) -> list[str]:
        """The names of all lists that hold a latent, in order of the alphabet."""
        select = "SELECT DISTINCT unnest(lists) AS name FROM labels ORDER BY name"
        return self._database.query(select)["name"].tolist()

    def overview(self, run_id: str, around: int, of_strong: bool = False) -> pd.DataFrame:
        """Every latent in short: latent, token, density, strongest, before and after (so many
        characters around its source), and layers: in how many other layers of the same model the
        same token is a source, in dictionaries that this one was not moved to or from. of_strong:
        the density is that of strong uses, or of all of a latent without a threshold."""
        density = STRONG_DENSITY if of_strong else DENSITY
        return self._database.query(
            f"""WITH ours AS (SELECT * FROM runs WHERE run_id = $run),
            elsewhere AS (
                SELECT l.prompt, l.position, count(DISTINCT r.layer) AS layers
                FROM latents l JOIN runs r USING (run), ours
                WHERE r.model = ours.model AND r.site = ours.site AND r.layer <> ours.layer
                    AND r.kind = 'itda' AND r.root <> ours.root
                GROUP BY ALL)
            SELECT l.latent, l.token, {density.replace("r.", "ours.")} AS density,
                l.strongest, coalesce(e.layers, 0) AS layers,
                substr(p.text, greatest(0, l."start" - $around) + 1,
                    l."start" - greatest(0, l."start" - $around)) AS before,
                substr(p.text, l."end" + 1, $around) AS after
            FROM latents l JOIN ours USING (run) JOIN prompts p USING (prompt) {SCORED}
            LEFT JOIN elsewhere e USING (prompt, position) ORDER BY l.latent""",
            run=run_id,
            around=around,
        )

    def elsewhere(self, run_id: str, latent: int, of_strong: bool = False) -> pd.DataFrame:
        """The other dictionaries in which the source of a latent is an atom: run_id, latent (its
        number there), density, strongest, label (given there, "" without), and correlation, rank_a,
        rank_b, compared_tokens, compared_unit (token or word) and compared_strong (whether it is of
        strong uses) of a kept comparison, missing without one. By model, layer and run. of_strong:
        as in `overview`; a comparison that does not tell strong uses is of all."""
        tokens = "coalesce(q.strong, s.tokens)" if of_strong else "s.tokens"
        return self._database.query(
            f"""WITH same AS (
                SELECT o.run_id, o.latent, o.strongest, o.prompt, o.position, o.tokens
                FROM {ATOMS_ELSEWHERE} AND r.run_id = $run AND l.latent = $latent),
            compared AS (
                SELECT run_b, latent_b, correlation, rank_a, rank_b,
                    c.tokens AS compared_tokens, c.unit AS compared_unit,
                    c.of_strong AS compared_strong FROM {COMPARED}
                    AND run_a = $run AND latent_a = $latent AND c.of_strong <= $of_strong
                QUALIFY row_number() OVER (PARTITION BY run_b ORDER BY c.of_strong DESC) = 1)
            SELECT s.run_id, s.latent, {tokens} / greatest(g.explored_tokens, 1) AS density,
                s.strongest, coalesce(b.label, '') AS label,
                n.correlation, n.rank_a, n.rank_b, n.compared_tokens, n.compared_unit,
                n.compared_strong
            FROM same s JOIN runs g USING (run_id) JOIN prompts p USING (prompt)
            LEFT JOIN latent_scores q ON q.run = g.run AND q.latent = s.latent
            LEFT JOIN compared n ON n.run_b = s.run_id AND n.latent_b = s.latent
            LEFT JOIN labels b ON b.run_id = s.run_id AND b.latent = s.latent
                AND b.prompt_id = p.prompt_id AND b.position = s.position
            ORDER BY g.model, g.layer, g.created, s.run_id, s.latent""",
            run=run_id,
            latent=latent,
            of_strong=of_strong,
        )

    def rank(self, run_id: str, latent: int, of_strong: bool = False) -> int:
        """The place of a latent among those of its dictionary by the tokens that use it, from 1.
        of_strong: by strong uses, or all of a latent without a threshold."""
        counts = self._database.known(self._token_counts, run_id, of_strong)
        return 1 + int((counts > counts[latent]).sum())

    def _token_counts(self, run_id: str, of_strong: bool) -> np.ndarray:
        """How many tokens use each latent, [n_latents]."""
        tokens = "coalesce(q.strong, l.tokens)" if of_strong else "l.tokens"
        return self._database.query(
            f"""SELECT {tokens} AS tokens FROM latents l JOIN runs r USING (run) {SCORED}
            WHERE r.run_id = ? ORDER BY l.latent""",
            run_id,
        )["tokens"].to_numpy()

    def _in_order(
        self, run_id: str, search: LatentSearch, order: str, similarities: Sequence[float]
    ) -> np.ndarray:
        """`_all`, which is asked for at each step through the list."""
        return self._database.known(self._all, run_id, search, order, tuple(similarities))

    def _all(
        self, run_id: str, search: LatentSearch, order: str, similarities: Sequence[float]
    ) -> np.ndarray:
        """The numbers of a whole list, [n] integers."""
        select = "SELECT latent FROM listed ORDER BY place"
        return self._listed(select, run_id, search, order, similarities)["latent"].to_numpy()

    def _listed(
        self,
        select: str,
        run_id: str,
        search: LatentSearch,
        order: str = "number",
        similarities: Sequence[float] = (),
        **values: Any,
    ) -> pd.DataFrame:
        """What `select` takes of `listed`, which has the columns of `listing`."""
        if search.is_by_meaning:
            search = replace(search, ranked=tuple(self.found(run_id, search)["latent"].tolist()))
        listed, listed_values = listing(search, order, similarities)
        values |= {"run": run_id, **listed_values}
        try:
            return self._database.query(f"WITH listed AS ({listed}) {select}", **values)
        except duckdb.InvalidInputException as error:
            raise no_expression(search.text, error) from error
