"""Which latents of a dictionary are listed, and in which order: searches and filters as SQL."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from itda_core.store.label_sources import LABELLED, LATENTS, SHOWN, WRITTEN
from itda_core.store.score_tables import SCORED, SHOWN_SCORES

ORDERS = (
    "match", "number", "density", "strength", "similarity", "auroc", "strong_density",
    "strong_first", "strong_on_token", "strong_on_word",
)  # fmt: skip
FREQUENT = 0.1
"""Latents on a larger share of the tokens say little of any of them."""
_EDGE = r"[^\p{L}\p{N}_]"
_CONTEXT = 40
"""Characters on either side of a source that belong to its context"""
DENSITY = "l.tokens / greatest(r.explored_tokens, 1)"
STRONG_DENSITY = "coalesce(q.strong, l.tokens) / greatest(r.explored_tokens, 1)"
"""Of strong uses, or of all where the latent has no threshold"""
_NOISE = f"(l.position = 0 OR {{density}} > {FREQUENT})"
_OF_KIND = {
    "usual": f"NOT {_NOISE}",
    "noise": _NOISE,
    "unused": "l.tokens = 0",
    "first": "l.position = 0",
    "frequent": f"{{density}} > {FREQUENT}",
}
_RANKED = """JOIN (SELECT unnest($ranked::INTEGER[]) AS latent, unnest(range(len($ranked))) AS rank)
    m ON m.latent = l.latent"""
_BY = {
    "match": """CASE WHEN lower(trim(l.token)) = lower(trim($sought)) THEN 0
        WHEN contains(lower(l.token), lower($sought)) THEN 1 ELSE 2 END""",
    "number": "l.latent",
    "density": "l.tokens DESC",
    "strength": "l.strongest DESC",
    "similarity": "list_extract($similarities::FLOAT[], l.latent + 1) DESC",
    "strong_density": f"{STRONG_DENSITY} DESC",
    **{
        name: f"q.{name} DESC NULLS LAST"
        for name in ("auroc", "strong_first", "strong_on_token", "strong_on_word")
    },
}
_LEFT = f'greatest(0, l."start" - {_CONTEXT})'
_TEXTS = {
    "context": f'substr(p.text, {_LEFT} + 1, l."end" + {_CONTEXT} - {_LEFT})',
    "token": "l.token",
    "prompt": "p.text",
    "label": WRITTEN,
}
LATENT_COLUMNS = f"""l.latent, p.prompt_id, p.title, p.text, l.position, l."start", l."end",
    l.token, l.origin, l.tokens, {DENSITY} AS density, l.strongest, {SHOWN}"""
SCORE_COLUMNS = f"{STRONG_DENSITY} AS strong_density, {SHOWN_SCORES}"


@dataclass(frozen=True)
class LatentSearch:
    """Which latents of a dictionary are wanted."""

    text: str = ""
    place: str = "context"
    """where the text is looked for: the "context" of 40 characters around the source, the source
    "token", the whole "prompt", the "label" and note, or by "meaning": in the label, on the uses
    and the source, then near these, as `word_search.find_latents` says"""
    way: str = "text"
    """"text" as it is, a whole "word", or a "regex" of RE2; upper and lower case are one"""
    min_density: float = 0.0
    """share of the explored tokens, in [0, 1]"""
    max_density: float = 1.0
    bookmarked: bool = False
    """only those, here or as the same source elsewhere"""
    labelled: bool = False
    """only those with a label or a note, from here or elsewhere"""
    kind: str = "all"
    """"usual" leaves out the noise: sources on the "first" position, and what is "frequent", on
    more than 10 % of the tokens; "noise" is nothing but these; "unused": on none"""
    in_list: str = ""
    """only those that were put into the list of that name"""
    among: tuple[int, ...] | None = None
    """only these numbers"""
    min_auroc: float = 0.0
    """0 takes in latents without a score"""
    of_strong: bool = False
    """whether densities and uses are of strong uses alone, where the run's scores tell them"""
    ranked: tuple[int, ...] | None = None
    """only these numbers, the best match first; then no text is looked for"""

    @property
    def asks_for_scores(self) -> bool:
        return self.min_auroc > 0 or self.of_strong

    @property
    def is_by_meaning(self) -> bool:
        return bool(self.text) and self.place == "meaning" and self.ranked is None

    @property
    def asks_for_labels(self) -> bool:
        by_text = bool(self.text) and self.place == "label"
        return by_text or self.bookmarked or self.labelled or bool(self.in_list)


@dataclass(frozen=True)
class LatentPage:
    """A page of a list of latents, the one that holds a given latent."""

    numbers: list[int]
    first: int
    """place in the whole list of the first of them"""
    total: int
    place: int | None
    """of the given latent in the whole list; None where it is not in the list"""


def listing(
    search: LatentSearch, order: str = "number", similarities: Sequence[float] = ()
) -> tuple[str, dict[str, Any]]:
    """The query for the whole list of a search (latent and place from 0), and the values
    that it names, all but $run. order: one of ORDERS; similarities: of each latent, [n_latents],
    for the order "similarity"."""
    condition, values = _condition(search)
    if order == "match" and not search.text and search.ranked is None:
        order = "number"
    by = "m.rank" if order == "match" and search.ranked is not None else _BY[order]
    if order == "similarity":
        values["similarities"] = list(similarities)
    if "$sought" in by:
        values["sought"] = search.text
    tables = LABELLED if search.asks_for_labels else LATENTS
    if search.asks_for_scores or "q." in by:
        tables += f" {SCORED}"
    if search.ranked is not None:
        tables += f" {_RANKED}"
        values["ranked"] = list(search.ranked)
    select = f"""SELECT l.latent, row_number() OVER (ORDER BY {by}, l.latent) - 1 AS place
        FROM {tables} WHERE r.run_id = $run AND {condition}"""
    return select, values


def _condition(search: LatentSearch) -> tuple[str, dict[str, Any]]:
    """What holds of the latents that are wanted, and the values that it names."""
    conditions, values = ["true"], {}
    density = STRONG_DENSITY if search.of_strong else DENSITY
    if search.text and search.ranked is None:
        conditions.append(_match(search))
        values["text"] = (
            search.text if search.way == "text" else text_pattern(search.text, search.way)
        )
    if (search.min_density, search.max_density) != (0.0, 1.0):
        conditions.append(f"{density} BETWEEN $least AND $most")
        values |= {"least": search.min_density, "most": search.max_density}
    if search.min_auroc > 0:
        conditions.append("q.auroc >= $auroc")
        values["auroc"] = search.min_auroc
    if search.bookmarked:
        conditions.append("(b.bookmarked OR o.bookmarked_from IS NOT NULL)")
    if search.labelled:
        conditions.append(f"trim({WRITTEN}) <> ''")
    if search.kind != "all":
        conditions.append(_OF_KIND[search.kind].format(density=density))
    if search.in_list:
        conditions.append("(list_contains(b.lists, $list) OR list_contains(o.lists, $list))")
        values["list"] = search.in_list
    if search.among is not None:
        conditions.append("list_contains($among::INTEGER[], l.latent)")
        values["among"] = list(search.among)
    return " AND ".join(conditions), values


def _match(search: LatentSearch) -> str:
    if search.way == "text":
        return f"contains(lower({_TEXTS[search.place]}), lower($text))"
    if search.way == "regex":
        return f"regexp_matches({_TEXTS[search.place]}, $text, 'i')"
    text = f"' ' || {_TEXTS[search.place]} || ' '"
    if search.place == "context":
        text = with_edges("p.text", _LEFT, f'l."end" + {_CONTEXT} - {_LEFT}')
    return f"regexp_matches({text}, $text, 'i')"


def text_pattern(text: str, way: str) -> str:
    """The regular expression of RE2 that a text is, one of the ways of LatentSearch; a whole word
    is searched for in text with a character on each side."""
    if way == "regex":
        return text
    return re.escape(text) if way == "text" else f"{_EDGE}{re.escape(text)}{_EDGE}"


def with_edges(text: str, first: str, length: str) -> str:
    """SQL for a part of a text with the character on each side of it, a space where the text has
    none, so that a word that the part cuts is not taken for a whole one. first: from 0."""
    return f"""rpad(CASE WHEN {first} > 0 THEN '' ELSE ' ' END
        || substr({text}, greatest({first}, 1), {length} + 1 + ({first} > 0)::INTEGER),
        ({length} + 2)::INTEGER, ' ')"""
