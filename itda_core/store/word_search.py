"""Latents by what was searched for: those that a person labelled with it, then those whose uses or
source are on it, then by how much of their uses is near it, then those with it around their source.
"""

from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from itda_core.corpus.words import is_content_word
from itda_core.errors import InputError
from itda_core.store.database import Database
from itda_core.store.latent_search import LatentSearch, listing
from itda_core.store.occurrences import (
    AROUND,
    NEAR,
    Occurrences,
    Read,
    find_pattern,
    find_text,
)
from itda_core.store.strong_tables import uses_of

LABEL, USES_ON, USES_NEAR = "label", "uses on", "uses near"
SOURCE, CONTEXT = "source", "context"
"""What a latent is found by"""
MIN_SHARE = 0.2
"""Share of a latent's squared coefficients that is on what was searched for, or on it and near it,
from which a latent is found by its uses"""
TIMES_CHANCE = 3.0
"""and how many times the share of the explored tokens that are so"""
FEW_USES = 5
"""Uses there that count half of what many do: one use of one says little. Of fewer no latent is
found by what is near its uses."""
_SOURCES = """SELECT l.latent, l.prompt, l."start", l."end", l.token
    FROM latents l JOIN runs r USING (run) WHERE r.run_id = $run ORDER BY l.latent"""
_TOTALS = """SELECT u.latent, sum(u.coefficient::DOUBLE ** 2) AS total FROM ({}) u
    GROUP BY u.latent ORDER BY u.latent"""
_TOUCHED = """SELECT u.latent,
        coalesce(sum(u.coefficient::DOUBLE ** 2) FILTER (g.is_on), 0) AS "on",
        coalesce(sum(u.coefficient::DOUBLE ** 2) FILTER (NOT g.is_on), 0) AS near, count(*) AS uses,
        count(*) FILTER (g.is_on) AS uses_on
    FROM ({}) u JOIN given g USING (prompt, position) GROUP BY u.latent"""


class Sought(NamedTuple):
    """What is searched for in the texts and uses of a dictionary."""

    text: str
    way: str
    """one of the ways of LatentSearch"""
    of_strong: bool
    """strong uses alone, where the run's scores tell them from filler"""


def find_latents(database: Database, run_id: str, sought: Sought) -> pd.DataFrame:
    """The latents that are found, best first: by their labels; then those whose uses or source are
    on it, by the share of the uses; then those whose uses are near it, and those whose source is,
    by how far the share that is near lies above what chance gives, the sources that say something
    by themselves before function words. Of plain text all that is found as a whole word comes
    before the rest.

    latent; by, one of LABEL, USES_ON, SOURCE, USES_NEAR and CONTEXT; on, near: share of its squared
    coefficients on tokens that share a character with what was searched for, and on those at most
    NEAR characters from it; uses: how many these are, and uses_on those
    on it. Raises InputError for an expression that is none.
    """
    read, occurrences = _occurrences(database, run_id, sought)
    parts = [(sought.way, occurrences)]
    if sought.way == "text":
        parts = [("word", occurrences.whole()), *parts]
    found = [_found(database, run_id, sought._replace(way=way), read, part) for way, part in parts]
    return pd.concat(found).drop_duplicates("latent").reset_index(drop=True)


def _occurrences(database: Database, run_id: str, sought: Sought) -> tuple[Read, Occurrences]:
    if sought.way != "regex":
        return find_text(database, run_id, sought.text, sought.way == "word")
    try:
        return find_pattern(database, run_id, sought.text)
    except duckdb.InvalidInputException as error:
        raise no_expression(sought.text, error) from error


def no_expression(text: str, error: duckdb.Error) -> InputError:
    """What to say of a regular expression that is none."""
    reason = str(error).splitlines()[0].partition(": ")[2].strip()
    return InputError(
        f"“{text}” is no regular expression: {reason}. Correct it, or search for plain text."
    )


def _labelled(database: Database, run_id: str, sought: Sought) -> list[int]:
    """Those whose label or note has it, here or where the same source is an atom; of an expression
    that an empty text matches, which says nothing, none."""
    if sought.way == "regex":
        select = "SELECT regexp_matches('', ?, 'i') AS is_empty"
        if database.query(select, sought.text)["is_empty"][0]:
            return []
    listed, values = listing(LatentSearch(sought.text, "label", sought.way))
    return database.query(listed, run=run_id, **values)["latent"].tolist()


def _found(
    database: Database,
    run_id: str,
    sought: Sought,
    read: Read,
    occurrences: Occurrences,
) -> pd.DataFrame:
    distances = occurrences.distance(read.spans)
    touched = distances <= NEAR
    given = pa.table(
        {
            "prompt": read.prompts[read.rows[touched]],
            "position": read.positions[touched],
            "is_on": distances[touched] == 0,
        }
    )
    uses = uses_of(database, run_id, sought.of_strong, "SEMI JOIN given USING (prompt, position)")
    touching = database.query_beside(given, _TOUCHED.format(uses), run=run_id)
    totals = database.known(_totals, database, run_id, sought.of_strong)
    shares = touching.merge(totals, on="latent")
    shares = shares.assign(**{name: shares[name] / shares["total"] for name in ("on", "near")})
    sources = _sources(database, run_id, read, occurrences)
    table = sources.merge(shares, on="latent", how="left").fillna(0)
    table = table.astype({"uses": int, "uses_on": int})
    table["is_labelled"] = table["latent"].isin(_labelled(database, run_id, sought))
    return _ranked(table, _by_chance(database, run_id, read, distances))


def _totals(database: Database, run_id: str, of_strong: bool) -> pd.DataFrame:
    """latent, and the sum of its squared coefficients; of those that are used."""
    return database.query(_TOTALS.format(uses_of(database, run_id, of_strong)), run=run_id)


class Chance(NamedTuple):
    """What chance gives: shares of the tokens of the explored prompts."""

    on: float
    """that are on what was searched for"""
    near: float
    """that are on it or near it"""


def _by_chance(database: Database, run_id: str, read: Read, distances: np.ndarray) -> Chance:
    distances = distances[read.explored[read.rows]]
    tokens = max(1, database.known(_explored_tokens, database, run_id))
    counts = (distances == 0).sum(), (distances <= NEAR).sum()
    return Chance(*(float(count) / tokens for count in counts))


def _explored_tokens(database: Database, run_id: str) -> int:
    """All tokens of the explored prompts, also those without codes."""
    select = """SELECT coalesce(sum(len(rp.starts)), 0) AS tokens
        FROM run_prompts rp JOIN runs r USING (run) WHERE r.run_id = ? AND rp.explored"""
    return int(database.query(select, run_id)["tokens"][0])


def _sources(database: Database, run_id: str, read: Read, occurrences: Occurrences) -> pd.DataFrame:
    """latent, distance of its source to what was searched for, and whether that source says
    something by itself."""
    table = database.known(_source_table, database, run_id)
    rows = pd.Index(read.prompts).get_indexer(table["prompt"])
    bases = np.append(read.bases, 0)[rows]
    spans = table[["start", "end"]].to_numpy(np.int64) + bases[:, None]
    spans[rows < 0] = 0  # an empty span is far from all
    return table[["latent", "is_content"]].assign(distance=occurrences.distance(spans))


def _source_table(database: Database, run_id: str) -> pd.DataFrame:
    table = database.query(_SOURCES, run=run_id)
    words = table["token"].fillna("")
    is_content = {word: is_content_word(word) for word in set(words)}
    return table.assign(is_content=words.map(is_content))


def _ranked(table: pd.DataFrame, chance: Chance) -> pd.DataFrame:
    on, near = table["on"], table["on"] + table["near"]
    is_on = on >= max(MIN_SHARE, TIMES_CHANCE * chance.on)
    is_near = near >= max(MIN_SHARE, TIMES_CHANCE * chance.near)
    is_near &= table["uses"] >= FEW_USES
    distance = table["distance"]
    kinds = [table["is_labelled"], is_on, distance == 0, is_near, distance <= AROUND]
    kind = np.select(kinds, range(5), 5)
    tier = np.array([0, 1, 1, 2, 3, 4])[kind]  # a source on it is as good as uses on it
    share = np.where(tier < 2, on, near - chance.near)
    # Few uses are a reason to trust a large share less, and none to put a small one before others.
    weight = np.where(share > 0, table["uses"] / (table["uses"] + FEW_USES), 1)
    strength = share * weight
    is_function = (tier >= 2) & ~table["is_content"].to_numpy(bool)
    order = np.lexsort([table["latent"], -strength, is_function, tier])
    by = np.array([LABEL, USES_ON, SOURCE, USES_NEAR, CONTEXT, ""], object)
    table = table.assign(by=by[kind])
    columns = ["latent", "by", "on", "near", "uses", "uses_on"]
    return table.iloc[order[: int((tier < 4).sum())]][columns]
