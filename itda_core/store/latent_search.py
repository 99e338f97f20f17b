"""Which latents of a dictionary are listed: searches, filters and orders, a page at a time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pandas as pd

from itda_core.errors import InputError
from itda_core.store.index import Index

ORDERS = ("match", "number", "density", "strength", "similarity")
FREQUENT = 0.1
"""Latents on a larger share of the tokens say little of any of them."""
_CONTEXT = 40
"""Characters on either side of a source that belong to its context"""
_DENSITY = "l.tokens / greatest(r.explored_tokens, 1)"
_NOISE = f"(l.position = 0 OR {_DENSITY} > {FREQUENT})"
_OF_KIND = {
    "usual": f"NOT {_NOISE}",
    "noise": _NOISE,
    "unused": "l.tokens = 0",
    "first": "l.position = 0",
    "frequent": f"{_DENSITY} > {FREQUENT}",
}
_BY = {
    "match": """CASE WHEN lower(trim(l.token)) = lower(trim($sought)) THEN 0
        WHEN contains(lower(l.token), lower($sought)) THEN 1 ELSE 2 END""",
    "number": "l.latent",
    "density": "l.tokens DESC",
    "strength": "l.strongest DESC",
    "similarity": "list_extract($similarities::FLOAT[], l.latent + 1) DESC",
}
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
_LATENT_COLUMNS = f"""l.latent, p.prompt_id, p.title, p.text, l.position, l."start", l."end",
    l.token, l.tokens, {_DENSITY} AS density, l.strongest,
    coalesce(b.label, '') AS label, coalesce(b.note, '') AS note,
    coalesce(b.bookmarked, false) AS bookmarked, coalesce(b.lists, []) AS lists"""


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
    kind: str = "all"
    """"usual" leaves out the noise: sources on the "first" position, and what is "frequent", on
    more than 10 % of the tokens; "noise" is nothing but these; "unused": on none"""
    in_list: str = ""
    """only those that were put into the list of that name"""
    among: tuple[int, ...] | None = None
    """only these numbers"""


@dataclass(frozen=True)
class LatentPage:
    """A page of a list of latents, the one that holds a given latent."""

    numbers: list[int]
    first: int
    """place in the whole list of the first of them"""
    total: int
    place: int | None
    """of the given latent in the whole list; None where it is not in the list"""


class LatentLists(Index):
    """A database that lists latents."""

    def latent_page(
        self,
        run_id: str,
        asked: LatentSearch,
        latent: int,
        rows: int,
        order: str = "number",
        similarities: Sequence[float] = (),
    ) -> LatentPage:
        """The page that holds a latent, else the first one. rows: of a page; similarities: of each
        latent, [n_latents], for the order "similarity". Raises InputError for an expression that is
        none."""
        found = self._ordered(
            """, wanted AS (SELECT max(place) AS at FROM found WHERE latent = $latent)
            SELECT found.*, wanted.at AS wanted FROM found, wanted
            WHERE found.place // $rows = coalesce(wanted.at, 0) // $rows ORDER BY found.place""",
            *(run_id, asked, order, similarities),
            latent=latent,
            rows=rows,
        )
        if found.empty:
            return LatentPage([], 0, 0, None)
        row = found.iloc[0]
        place = None if pd.isna(row["wanted"]) else int(row["wanted"])
        return LatentPage(found["latent"].tolist(), int(row["place"]), int(row["total"]), place)

    def latent_at(
        self,
        run_id: str,
        asked: LatentSearch,
        place: int,
        order: str = "number",
        similarities: Sequence[float] = (),
    ) -> int:
        """The latent at a place of the list, which has no end: after the last comes the first."""
        found = self._ordered(
            "SELECT latent FROM found WHERE place = ($place % total + total) % total",
            *(run_id, asked, order, similarities),
            place=place,
        )
        return int(found["latent"][0])

    def latent_numbers(
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
        asked = LatentSearch(search) if isinstance(search, str) else search
        select = "SELECT latent FROM found ORDER BY place"
        return self._ordered(select, run_id, asked, order, similarities)["latent"].tolist()

    def hidden_noise(self, run_id: str, asked: LatentSearch) -> int:
        """How many latents a search leaves out as noise."""
        if asked.kind != "usual":
            return 0
        noise = replace(asked, kind="noise")
        return int(self._ordered("SELECT count(*) AS n FROM found", run_id, noise)["n"][0])

    def latents(self, run_id: str, numbers: Sequence[int]) -> pd.DataFrame:
        """The given latents with their sources, in the order of their numbers."""
        return self.query(
            f"""SELECT {_LATENT_COLUMNS} FROM {_LATENTS}
            WHERE r.run_id = ? AND list_contains(?::INTEGER[], l.latent) ORDER BY l.latent""",
            run_id,
            list(numbers),
        )

    def labels_of(self, run_id: str) -> dict[int, str]:
        """The label of each latent of a dictionary that has one."""
        found = self.query(
            f"""SELECT l.latent, b.label FROM {_LATENTS}
            WHERE r.run_id = ? AND b.label <> '' ORDER BY l.latent""",
            run_id,
        )
        return dict(zip(found["latent"].tolist(), found["label"], strict=True))

    def list_names(self) -> list[str]:
        """The names of all lists that hold a latent, in order of the alphabet."""
        found = self.query("SELECT DISTINCT unnest(lists) AS name FROM labels ORDER BY name")
        return found["name"].tolist()

    def _ordered(
        self,
        select: str,
        run_id: str,
        asked: LatentSearch,
        order: str = "number",
        similarities: Sequence[float] = (),
        **values: Any,
    ) -> pd.DataFrame:
        """What `select` takes of `found`: latent, place and total of all that are asked for."""
        where, named = _where(asked)
        if order == "match" and not asked.text:
            order = "number"
        if order == "similarity":
            named["similarities"] = list(similarities)
        if order == "match":
            named["sought"] = asked.text
        try:
            return self.query(
                f"""WITH found AS (
                    SELECT l.latent, row_number() OVER (ORDER BY {_BY[order]}, l.latent) - 1
                        AS place, count(*) OVER () AS total
                    FROM {_LATENTS} WHERE r.run_id = $run AND {where}) {select}""",
                run=run_id,
                **named,
                **values,
            )
        except duckdb.InvalidInputException as error:
            raise InputError(
                f"“{asked.text}” is no regular expression: {_reason(error)}. Correct it, or search "
                "for plain text."
            ) from error


def _where(asked: LatentSearch) -> tuple[str, dict[str, Any]]:
    """The condition, and the values that it names."""
    conditions, values = ["true"], {}
    if asked.text:
        conditions.append(_match(asked))
        values["text"] = _pattern(asked)
    if (asked.least_density, asked.most_density) != (0.0, 1.0):
        conditions.append(f"{_DENSITY} BETWEEN $least AND $most")
        values |= {"least": asked.least_density, "most": asked.most_density}
    if asked.bookmarked:
        conditions.append("b.bookmarked")
    if asked.labelled:
        conditions.append("(b.label <> '' OR b.note <> '')")
    if asked.kind != "all":
        conditions.append(_OF_KIND[asked.kind])
    if asked.in_list:
        conditions.append("list_contains(b.lists, $list)")
        values["list"] = asked.in_list
    if asked.among is not None:
        conditions.append("list_contains($among::INTEGER[], l.latent)")
        values["among"] = list(asked.among)
    return " AND ".join(conditions), values


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
