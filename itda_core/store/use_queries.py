"""The queries about uses of latents: which tokens use them, and which they share."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from itda_core.store.database import Database
from itda_core.store.latent_search import text_pattern, with_edges
from itda_core.store.occurrences import AROUND
from itda_core.store.score_tables import SCORED
from itda_core.store.strong_tables import judged
from itda_core.store.word_search import no_expression

# Every token that uses a latent, once; of one sign where $sign asks for it, and from $least up.
_USES = """SELECT c.run, c.prompt, c.position, min(c.step) AS step,
        sum(c.coefficient)::FLOAT AS coefficient
    FROM codes c JOIN runs r USING (run) WHERE r.run_id = $run AND c.latent = $latent
    GROUP BY ALL HAVING ($sign = 0 OR sign(sum(c.coefficient)) = $sign)
        AND sum(c.coefficient)::FLOAT >= $least"""
_ALL = float("-inf")
"""The least coefficient where any will do"""
_USE_COLUMNS = """p.prompt_id, p.title, p.text, u.position, u.step, u.coefficient, rp.starts,
    rp.ends"""


@dataclass(frozen=True)
class CardUses:
    """What the card of a latent shows of its uses."""

    coefficients: np.ndarray
    """[n_tokens that use it] float32, of each of them"""
    strongest: pd.DataFrame
    """as `UseQueries.strongest` gives them, from place `first` on"""
    first: int
    """of all that were asked for; 0 is the strongest"""
    total: int
    """how many these are"""
    beside: pd.DataFrame
    """every use in the prompts of `strongest`, as `UseQueries.in_prompts` gives them"""
    source_spans: list[tuple[int, int]]
    """where the tokens of the source's prompt begin and end; empty where it was not read"""


class UseQueries:
    """Which tokens use a latent, from `store.uses`."""

    def __init__(self, database: Database):
        self._database = database

    def strongest(self, run_id: str, latent: int, limit: int = 20, sign: int = 0) -> pd.DataFrame:
        """The tokens that use a latent with the largest |coefficient|, strongest first.

        prompt_id, title, text, position, step, coefficient, and the prompt's token spans as
        lists `starts` and `ends`. A token that used it twice is one row, its coefficients added.
        sign: 1 for positive coefficients only, -1 for negative ones.
        """
        return self._database.query(
            f"""WITH uses AS (
                SELECT * FROM ({_USES})
                ORDER BY abs(coefficient) DESC, prompt, position LIMIT $limit)
            SELECT {_USE_COLUMNS} FROM uses u JOIN prompts p USING (prompt)
            JOIN run_prompts rp USING (run, prompt)
            ORDER BY abs(u.coefficient) DESC, p.prompt, u.position""",
            run=run_id,
            latent=latent,
            limit=limit,
            sign=sign,
            least=_ALL,
        )

    def of_card(
        self,
        run_id: str,
        latent: int,
        source: str,
        limit: int = 20,
        sign: int = 0,
        least: float = _ALL,
        first: int = 0,
    ) -> CardUses:
        """`strongest`, `in_prompts`, `coefficients` and the spans of the source at once, in two
        queries: planning them takes longer than answering them. source: its prompt_id; least: of
        the coefficients of `strongest`, as that of strong uses is; first: leaves out so many of the
        strongest, or, where there are no more, begins with the last `limit`th of them."""
        uses = self._database.query(_USES, run=run_id, latent=latent, sign=0, least=_ALL)
        # Plain arrays: pandas would take longer with them than the database does to find them.
        prompt, position, size = (
            uses[name].to_numpy() for name in ("prompt", "position", "coefficient")
        )
        asked = np.flatnonzero((size >= least) & ((np.sign(size) == sign) | (sign == 0)))
        total = len(asked)
        first = max(0, min(first, (total - 1) // limit * limit))
        order = np.lexsort([position[asked], prompt[asked], -np.abs(size[asked])])
        shown = asked[order[first : first + limit]]
        prompts = self._prompts(run_id, np.unique(prompt[shown]).tolist(), source)
        rows = pd.Index(prompts["prompt"]).get_indexer(prompt)
        read = prompts.drop(columns="prompt").iloc[rows[shown]].reset_index(drop=True)
        here = {name: uses[name].iloc[shown].array for name in ("position", "step", "coefficient")}
        columns = [*("prompt_id", "title", "text"), *here, "starts", "ends"]
        prompt_ids = prompts["prompt_id"].to_numpy(object)
        beside = np.flatnonzero(np.isin(prompt, prompt[shown]))
        beside = beside[np.lexsort([position[beside], prompt_ids[rows[beside]].astype(str)])]
        of_source = prompts[prompt_ids == source]
        return CardUses(
            size,
            read.assign(**here)[columns],
            first,
            total,
            pd.DataFrame(
                {
                    "prompt_id": pd.array(prompt_ids[rows[beside]], prompts["prompt_id"].dtype),
                    "position": position[beside],
                    "coefficient": size[beside],
                }
            ),
            [
                span
                for row in of_source.itertuples()
                for span in zip(row.starts.tolist(), row.ends.tolist(), strict=True)
            ],
        )

    def _prompts(self, run_id: str, prompts: list[int], prompt_id: str) -> pd.DataFrame:
        """Prompts by their numbers, and one by its id, as a run has read them."""
        return self._database.query(
            """SELECT p.prompt, p.prompt_id, p.title, p.text, rp.starts, rp.ends
            FROM run_prompts rp JOIN prompts p USING (prompt) JOIN runs r USING (run)
            SEMI JOIN (
                SELECT unnest($prompts::INTEGER[]) AS prompt
                UNION ALL SELECT prompt FROM prompts WHERE prompt_id = $prompt_id) USING (prompt)
            WHERE r.run_id = $run""",
            run=run_id,
            prompts=prompts,
            prompt_id=prompt_id,
        )

    def banded(
        self,
        run_id: str,
        latent: int,
        bands: int,
        of_each: int,
        sign: int = 0,
        least: float = _ALL,
    ) -> pd.DataFrame:
        """Uses from the whole range: the |coefficients| in `bands` parts with as many uses each,
        the strongest first, and `of_each` uses from every part, evenly spaced in it. sign, least:
        as in `of_card`.

        The columns of `strongest`, and band (0 first), low and high (|coefficient| in it),
        and uses (how many it has).
        """
        return self._database.query(
            f"""WITH uses AS ({_USES}),
            banded AS (
                SELECT *, ntile($bands) OVER (
                    ORDER BY abs(coefficient) DESC, prompt, position) - 1 AS band
                FROM uses),
            placed AS (
                SELECT *, row_number() OVER in_band - 1 AS place, count(*) OVER (
                        PARTITION BY band) AS uses,
                    min(abs(coefficient)) OVER (PARTITION BY band) AS low,
                    max(abs(coefficient)) OVER (PARTITION BY band) AS high
                FROM banded WINDOW in_band AS (
                    PARTITION BY band ORDER BY abs(coefficient) DESC, prompt, position))
            SELECT {_USE_COLUMNS}, u.band, u.low, u.high, u.uses
            FROM placed u JOIN prompts p USING (prompt) JOIN run_prompts rp USING (run, prompt)
            WHERE u.place * $of_each // u.uses > (u.place - 1) * $of_each // u.uses
                OR u.place = 0
            ORDER BY u.band, u.place""",
            run=run_id,
            latent=latent,
            bands=bands,
            of_each=of_each,
            sign=sign,
            least=least,
        )

    def saying(
        self, run_id: str, latent: int, text: str, way: str, limit: int = 20, sign: int = 0,
        least: float = _ALL, first: int = 0,
    ) -> pd.DataFrame:  # fmt: skip
        """The uses of a latent with a text in the 40 characters around them, strongest first: the
        columns of `strongest`, and uses, how many there are in all. way: one of those of
        LatentSearch; sign, least: as in `of_card`; first: leaves out so many of the strongest.
        Raises InputError for an expression that is none."""
        left = f'greatest(0, "from" - {AROUND})'
        length = f'"to" + {AROUND} - {left}'
        around = f"substr(text, {left} + 1, {length})"
        if way == "word":
            around = with_edges("text", left, length)
        try:
            return self._database.query(
                f"""WITH uses AS ({_USES}),
                placed AS (
                    SELECT {_USE_COLUMNS}, rp.starts[u.position + 1] AS "from",
                        rp.ends[u.position + 1] AS "to"
                    FROM uses u JOIN prompts p USING (prompt) JOIN run_prompts rp
                        USING (run, prompt))
                SELECT * EXCLUDE ("from", "to"), count(*) OVER () AS uses FROM placed
                WHERE regexp_matches({around}, $pattern, 'i')
                ORDER BY abs(coefficient) DESC, prompt_id, position
                LIMIT $limit OFFSET $first""",
                run=run_id, latent=latent, sign=sign, least=least, limit=limit, first=first,
                pattern=text_pattern(text, way),
            )  # fmt: skip
        except duckdb.InvalidInputException as error:
            raise no_expression(text, error) from error

    def in_context(self, run_id: str, tokens: pd.DataFrame) -> pd.DataFrame:
        """Given tokens as `strongest` gives its own, in their order, with no step. tokens:
        prompt_id, position and coefficient; those that the run has not read are left out."""
        return self._database.query(
            f"""WITH u AS (
                SELECT unnest($prompts::VARCHAR[]) AS prompt_id,
                    unnest($positions::INTEGER[]) AS position,
                    unnest($coefficients::FLOAT[]) AS coefficient,
                    unnest(range(len($prompts))) AS place, NULL::SMALLINT AS step)
            SELECT {_USE_COLUMNS} FROM u JOIN prompts p USING (prompt_id)
            JOIN run_prompts rp USING (prompt) JOIN runs r USING (run)
            WHERE r.run_id = $run AND u.position BETWEEN 0 AND len(rp.starts) - 1
            ORDER BY u.place""",
            run=run_id,
            prompts=tokens["prompt_id"].tolist(),
            positions=tokens["position"].tolist(),
            coefficients=tokens["coefficient"].tolist(),
        )

    def at_ends(self, run_id: str, places: pd.DataFrame) -> pd.DataFrame:
        """The tokens of a run that end where others do. places: prompt_id, and end, a character of
        its text. prompt_id, end, position, and has_terms, whether any latent is used there; a row
        for each of several tokens that end there, in their order, and none where none does."""
        return self._database.query(
            """WITH u AS (
                SELECT DISTINCT unnest($prompts::VARCHAR[]) AS prompt_id,
                    unnest($ends::INTEGER[]) AS "end"),
            tokens AS (
                SELECT prompt, prompt_id, run, u."end" AS wanted, unnest(rp."ends") AS "end",
                    unnest(range(len(rp."ends"))) AS position
                FROM u JOIN prompts p USING (prompt_id) JOIN run_prompts rp USING (prompt)
                JOIN runs r USING (run) WHERE r.run_id = $run)
            SELECT prompt_id, "end", position::INTEGER AS position, EXISTS (
                    SELECT 1 FROM codes c WHERE c.run = t.run AND c.prompt = t.prompt
                        AND c.position = t.position) AS has_terms
            FROM tokens t WHERE "end" = wanted ORDER BY prompt_id, "end", position""",
            run=run_id,
            prompts=places["prompt_id"].tolist(),
            ends=places["end"].astype(int).tolist(),
        )

    def in_prompts(self, run_id: str, latent: int, prompt_ids: list[str]) -> pd.DataFrame:
        """Every use of a latent in the given prompts: prompt_id, position, coefficient."""
        return self._database.query(
            """SELECT p.prompt_id, c.position, sum(c.coefficient)::FLOAT AS coefficient
            FROM codes c JOIN runs r USING (run) JOIN prompts p USING (prompt)
            WHERE r.run_id = ? AND c.latent = ? AND list_contains(?::VARCHAR[], p.prompt_id)
            GROUP BY ALL ORDER BY p.prompt_id, c.position""",
            run_id,
            latent,
            list(prompt_ids),
        )

    def all(self, run_id: str, latent: int) -> pd.DataFrame:
        """Every use of a latent in the order of prompts: prompt_id, title, position, coefficient,
        and the token's start and end in the prompt's text."""
        return self._database.query(
            f"""WITH uses AS ({_USES})
            SELECT p.prompt_id, p.title, u.position, u.coefficient,
                rp.starts[u.position + 1] AS "start", rp.ends[u.position + 1] AS "end"
            FROM uses u JOIN prompts p USING (prompt) JOIN run_prompts rp USING (run, prompt)
            ORDER BY p.prompt_id, u.position""",
            run=run_id,
            latent=latent,
            sign=0,
            least=_ALL,
        )

    def coefficients(self, run_id: str, latent: int) -> pd.Series:
        """The coefficient of each token that uses a latent, [n_tokens that use it] float32."""
        return self._database.query(
            """SELECT sum(c.coefficient)::FLOAT AS coefficient FROM codes c JOIN runs r USING (run)
            WHERE r.run_id = ? AND c.latent = ? GROUP BY c.prompt, c.position""",
            run_id,
            latent,
        )["coefficient"]

    def together(
        self, run_id: str, latent: int, min_shared: int, limit: int, of_strong: bool = False
    ) -> pd.DataFrame:
        """The latents that are used on the same tokens as a latent more often than by chance.

        latent, both (tokens that use both), tokens (that use it), and lift: both over what chance
        gives, tokens × those of the latent / explored tokens. The largest lift first, of those that
        share at least `min_shared` tokens. of_strong: strong uses alone, where the run's scores
        tell them, and all of a latent without a threshold.
        """
        is_strong = of_strong and self._database.known(judged, self._database, run_id) == "strong"
        uses = "strong_uses" if is_strong else "codes"
        tokens = "coalesce(q.strong, l.tokens)" if is_strong else "l.tokens"
        return self._database.query(
            f"""WITH uses AS (
                SELECT DISTINCT run, prompt, position FROM {uses} c JOIN runs r USING (run)
                WHERE r.run_id = $run AND c.latent = $latent),
            shared AS (
                SELECT c.run, c.latent, count(DISTINCT (c.prompt, c.position)) AS "both"
                FROM {uses} c SEMI JOIN uses USING (run, prompt, position)
                WHERE c.latent <> $latent GROUP BY ALL HAVING "both" >= $min_shared)
            SELECT s.latent, s."both", {tokens} AS tokens,
                s."both" * r.explored_tokens / ({tokens} * (SELECT count(*) FROM uses)) AS lift
            FROM shared s JOIN latents l USING (run, latent) JOIN runs r USING (run) {SCORED}
            ORDER BY lift DESC, s.latent LIMIT $limit""",
            run=run_id,
            latent=latent,
            min_shared=min_shared,
            limit=limit,
        )

    def at_token(self, run_ids: Sequence[str], prompt_id: str, position: int) -> pd.DataFrame:
        """How dictionaries read one token: for each the latent with the largest |coefficient|:
        run_id, layer, latent, coefficient, and is_source, whether the token is the latent's own
        source. Where a token is a source but was not explored the coefficient is NaN."""
        return self._database.query(
            """WITH used AS (
                SELECT c.run, c.latent, sum(c.coefficient)::FLOAT AS coefficient
                FROM codes c JOIN prompts p USING (prompt)
                WHERE p.prompt_id = $prompt AND c.position = $position GROUP BY ALL),
            sources AS (
                SELECT l.run, l.latent FROM latents l JOIN prompts p USING (prompt)
                WHERE p.prompt_id = $prompt AND l.position = $position)
            SELECT r.run_id, r.layer, latent, coefficient, s.latent IS NOT NULL AS is_source
            FROM used u FULL JOIN sources s USING (run, latent) JOIN runs r USING (run)
            WHERE list_contains($runs::VARCHAR[], r.run_id)
            QUALIFY row_number() OVER (PARTITION BY r.run_id
                ORDER BY abs(coefficient) DESC NULLS LAST, latent) = 1
            ORDER BY r.layer, r.run_id""",
            runs=list(run_ids),
            prompt=prompt_id,
            position=position,
        )
