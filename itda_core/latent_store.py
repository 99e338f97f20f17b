"""The queries about latents: which there are, what uses them, what people wrote about them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pandas as pd

from itda_core.errors import InputError
from itda_core.indexing import Index

PLACES = ("context", "token", "prompt", "label")
WAYS = ("text", "word", "regex")
ORDERS = ("number", "density", "strength")
_CONTEXT = 40
"""Characters on either side of a source that belong to its context"""
_BY = {"number": "l.latent", "density": "l.tokens DESC", "strength": "l.strongest DESC"}
_LEFT = f'greatest(0, l."start" - {_CONTEXT})'
_TEXTS = {
    "context": f'substr(p.text, {_LEFT} + 1, l."end" + {_CONTEXT} - {_LEFT})',
    "token": "l.token",
    "prompt": "p.text",
    "label": "concat_ws(' ', b.label, b.note)",
}
# A label is shown where the latent still has the source that it was written for.
_LATENTS = """latents l JOIN runs r USING (run) JOIN prompts p USING (prompt)
    LEFT JOIN labels b ON b.run_id = r.run_id AND b.latent = l.latent
        AND b.prompt_id = p.prompt_id AND b.position = l.position"""
_LATENT_COLUMNS = """l.latent, p.prompt_id, p.title, p.text, l.position, l."start", l."end",
    l.token, l.tokens, l.tokens / greatest(r.explored_tokens, 1) AS density, l.strongest,
    coalesce(b.label, '') AS label, coalesce(b.note, '') AS note,
    coalesce(b.bookmarked, false) AS bookmarked"""

# Every token that uses a latent, once; of one sign where $sign asks for it.
_USES = """SELECT c.run, c.prompt, c.position, min(c.step) AS step,
        sum(c.coefficient)::FLOAT AS coefficient
    FROM codes c JOIN runs r USING (run) WHERE r.run_id = $run AND c.latent = $latent
    GROUP BY ALL HAVING $sign = 0 OR sign(sum(c.coefficient)) = $sign"""
_USE_COLUMNS = """p.prompt_id, p.title, p.text, u.position, u.step, u.coefficient, rp.starts,
    rp.ends"""


@dataclass(frozen=True)
class LatentSearch:
    """Which latents of a dictionary are wanted."""

    text: str = ""
    place: str = "context"
    """where the text is looked for: the "context" of 40 characters around the source, the source
    "token", the whole "prompt", or the "label" and note"""
    way: str = "text"
    """"text" as it is, a whole "word", or a "regex" of RE2; upper and lower case are one"""
    least_density: float = 0.0
    """share of the explored tokens, in [0, 1]"""
    most_density: float = 1.0
    bookmarked: bool = False
    """only those"""
    labelled: bool = False
    """only those with a label or a note"""

    @property
    def is_everything(self) -> bool:
        return self == LatentSearch(place=self.place, way=self.way)


class LatentStore(Index):
    """A database that answers questions about latents."""

    def latent_numbers(
        self, run_id: str, search: str | LatentSearch = "", order: str = "number"
    ) -> list[int]:
        """The numbers of a dictionary's latents, searched and ordered.

        search: text that the context holds, or all that is wanted; order: "number", "density" or
        "strength". Raises InputError for an expression that is none.
        """
        asked = LatentSearch(search) if isinstance(search, str) else search
        where, values = "r.run_id = $run", {"run": run_id}
        if asked.text:
            where += f" AND {_match(asked)}"
            values["text"] = _pattern(asked)
        if (asked.least_density, asked.most_density) != (0.0, 1.0):
            where += " AND l.tokens / greatest(r.explored_tokens, 1) BETWEEN $least AND $most"
            values |= {"least": asked.least_density, "most": asked.most_density}
        if asked.bookmarked:
            where += " AND b.bookmarked"
        if asked.labelled:
            where += " AND (b.label <> '' OR b.note <> '')"
        try:
            found = self.query(
                f"SELECT l.latent FROM {_LATENTS} WHERE {where} ORDER BY {_BY[order]}, l.latent",
                **values,
            )
        except duckdb.InvalidInputException as error:
            raise InputError(
                f"“{asked.text}” is no regular expression: {_reason(error)}. Correct it, or search "
                "for plain text."
            ) from error
        return found["latent"].tolist()

    def latents(self, run_id: str, numbers: list[int]) -> pd.DataFrame:
        """The given latents with their sources, in the order of their numbers."""
        return self.query(
            f"""SELECT {_LATENT_COLUMNS} FROM {_LATENTS}
            WHERE r.run_id = ? AND list_contains(?::INTEGER[], l.latent) ORDER BY l.latent""",
            run_id,
            list(numbers),
        )

    def strongest_uses(
        self, run_id: str, latent: int, limit: int = 20, sign: int = 0
    ) -> pd.DataFrame:
        """The tokens that use a latent with the largest |coefficient|, strongest first.

        prompt_id, title, text, position, step, coefficient, and the prompt's token spans as
        lists `starts` and `ends`. A token that used it twice is one row, its coefficients added.
        sign: 1 for positive coefficients only, -1 for negative ones.
        """
        return self.query(
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
        )

    def banded_uses(
        self, run_id: str, latent: int, bands: int, of_each: int, sign: int = 0
    ) -> pd.DataFrame:
        """Uses from the whole range: the |coefficients| in `bands` parts with as many uses each,
        the strongest first, and `of_each` uses from every part, evenly spaced in it.

        The columns of `strongest_uses`, and band (0 first), low and high (|coefficient| in it),
        and uses (how many it has).
        """
        return self.query(
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
        )

    def uses_in_prompts(self, run_id: str, latent: int, prompt_ids: list[str]) -> pd.DataFrame:
        """Every use of a latent in the given prompts: prompt_id, position, coefficient."""
        return self.query(
            """SELECT p.prompt_id, c.position, sum(c.coefficient)::FLOAT AS coefficient
            FROM codes c JOIN runs r USING (run) JOIN prompts p USING (prompt)
            WHERE r.run_id = ? AND c.latent = ? AND list_contains(?::VARCHAR[], p.prompt_id)
            GROUP BY ALL ORDER BY p.prompt_id, c.position""",
            run_id,
            latent,
            list(prompt_ids),
        )

    def coefficients(self, run_id: str, latent: int) -> pd.Series:
        """The coefficient of each token that uses a latent, [n_tokens that use it] float32."""
        return self.query(
            """SELECT sum(c.coefficient)::FLOAT AS coefficient FROM codes c JOIN runs r USING (run)
            WHERE r.run_id = ? AND c.latent = ? GROUP BY c.prompt, c.position""",
            run_id,
            latent,
        )["coefficient"]

    def used_together(self, run_id: str, latent: int, least: int, limit: int) -> pd.DataFrame:
        """The latents that are used on the same tokens as a latent more often than by chance.

        latent, both (tokens that use both), tokens (that use it), and lift: both over what chance
        gives, tokens × those of the latent / explored tokens. The largest lift first, of those that
        share at least `least` tokens.
        """
        return self.query(
            """WITH uses AS (
                SELECT DISTINCT run, prompt, position FROM codes c JOIN runs r USING (run)
                WHERE r.run_id = $run AND c.latent = $latent),
            shared AS (
                SELECT c.run, c.latent, count(DISTINCT (c.prompt, c.position)) AS "both"
                FROM codes c SEMI JOIN uses USING (run, prompt, position)
                WHERE c.latent <> $latent GROUP BY ALL HAVING "both" >= $least)
            SELECT s.latent, s."both", l.tokens,
                s."both" * r.explored_tokens / (l.tokens * (SELECT count(*) FROM uses)) AS lift
            FROM shared s JOIN latents l USING (run, latent) JOIN runs r USING (run)
            ORDER BY lift DESC, s.latent LIMIT $limit""",
            run=run_id,
            latent=latent,
            least=least,
            limit=limit,
        )

    def at_token(self, run_ids: Sequence[str], prompt_id: str, position: int) -> pd.DataFrame:
        """How dictionaries read one explored token: for each the latent with the largest
        |coefficient|: run_id, layer, latent, coefficient, and is_source, whether the token is the
        latent's own source."""
        return self.query(
            """SELECT r.run_id, r.layer, c.latent, sum(c.coefficient)::FLOAT AS coefficient,
                bool_or(l.prompt = c.prompt AND l.position = c.position) AS is_source
            FROM codes c JOIN runs r USING (run) JOIN prompts p USING (prompt)
            JOIN latents l USING (run, latent)
            WHERE list_contains($runs::VARCHAR[], r.run_id) AND p.prompt_id = $prompt
                AND c.position = $position
            GROUP BY r.run_id, r.layer, c.latent
            QUALIFY row_number() OVER (
                PARTITION BY r.run_id ORDER BY abs(sum(c.coefficient)) DESC, c.latent) = 1
            ORDER BY r.layer, r.run_id""",
            runs=list(run_ids),
            prompt=prompt_id,
            position=position,
        )


def _match(asked: LatentSearch) -> str:
    if asked.way == "text":
        return f"contains(lower({_TEXTS[asked.place]}), lower($text))"
    return f"regexp_matches({_TEXTS[asked.place]}, $text, 'i')"


def _pattern(asked: LatentSearch) -> str:
    if asked.way != "word":
        return asked.text
    edge = r"[^\p{L}\p{N}_]"
    return f"(^|{edge}){re.escape(asked.text)}($|{edge})"


def _reason(error: duckdb.Error) -> str:
    return str(error).splitlines()[0].partition(": ")[2].strip()
