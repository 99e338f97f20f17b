"""Where the prompts of a run say what was searched for, and which of its tokens are there or near.

Characters of all prompts are numbered through, with a gap between two prompts.
"""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from itda_core.store.database import Database

NEAR = 20
"""Characters between a token and what was searched for where it is near, at most"""
AROUND = 40
"""The same of a source whose context it is"""
_BEYOND = 200
"""Characters that are read further, so that what begins in a context is whole, and what the end of
the reading makes of a word or an expression is in none"""
_GAP = 1_000
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Two of the code points that Unicode keeps from texts"""
# Of a prompt that was read to a part only that part, and what is around it.
_TEXTS = f"""WITH sources AS (
        SELECT l.prompt, max(l."end") AS "end" FROM latents l JOIN runs r USING (run)
        WHERE r.run_id = $run GROUP BY l.prompt),
    read AS (
        SELECT rp.prompt, rp.explored, rp.starts, rp.ends FROM run_prompts rp
        JOIN runs r USING (run) WHERE r.run_id = $run),
    texts AS (
        SELECT prompt, coalesce(explored, false) AS explored, coalesce(starts, []) AS starts,
            coalesce(ends, []) AS ends,
            left(text, greatest(coalesce(list_max(ends), 0), coalesce(s."end", 0))
                + {AROUND + _BEYOND}) AS text
        FROM read FULL JOIN sources s USING (prompt) JOIN prompts USING (prompt)
        WHERE regexp_matches(text, $pattern, 'i'))"""
_PLAIN = f"{_TEXTS} SELECT * FROM texts ORDER BY prompt"
_MARKED = f"""{_TEXTS} SELECT * REPLACE (regexp_replace(translate(text, $marks, '  '), $pattern,
        $put, 'gi') AS text) FROM texts ORDER BY prompt"""


@dataclass(frozen=True)
class Read:
    """The prompts of a run that may say it."""

    prompts: np.ndarray
    """[n_prompts] int64, in order"""
    explored: np.ndarray
    """[n_prompts] bool"""
    bases: np.ndarray
    """[n_prompts] int64, the number of each prompt's first character"""
    rows: np.ndarray
    """[n_tokens] int64, the prompt of each token"""
    positions: np.ndarray
    """[n_tokens] int64"""
    spans: np.ndarray
    """[n_tokens, 2] int64, characters as they are numbered"""


@dataclass(frozen=True)
class Occurrences:
    """Where it is said, in order."""

    spans: np.ndarray
    """[n, 2] int64, characters as `Read` numbers them; none is empty, no two overlap"""
    is_whole: np.ndarray
    """[n] bool: no letter or digit is beside it"""

    def whole(self) -> "Occurrences":
        return Occurrences(self.spans[self.is_whole], self.is_whole[self.is_whole])

    def distance(self, spans: np.ndarray) -> np.ndarray:
        """Characters between each of some spans and what is nearest, [n] int64, 0 where one holds
        a character of the other, 1 where they touch. spans: [n, 2]; an empty one is far from
        all."""
        starts, ends = spans.T
        far = np.iinfo(np.int64).max // 4
        padded_ends = np.concatenate([[-far], self.spans[:, 1]])
        padded_starts = np.concatenate([self.spans[:, 0], [far]])
        following = np.searchsorted(self.spans[:, 1], starts, side="right")
        after = padded_starts[following] - ends + 1
        before = starts - padded_ends[following] + 1
        return np.where(starts == ends, far, np.maximum(0, np.minimum(after, before)))


def find_text(
    database: Database, run_id: str, text: str, is_whole: bool = False
) -> tuple[Read, Occurrences]:
    """The prompts of a run, and where they say a text: upper and lower case are one, and so is
    white space. is_whole: only where no letter or digit is beside it."""
    words = text.split() or [text]
    longest = max(words, key=len)
    table = database.query_table(_PLAIN, run=run_id, pattern=re.escape(longest))
    texts = table.column("text").to_pylist()
    joined = "\0".join(texts)
    pattern = r"\s+".join(map(re.escape, words))
    pattern = rf"(?<!\w){pattern}(?!\w)" if is_whole else pattern
    found = [one.span() for one in re.finditer(pattern, joined, re.IGNORECASE)]
    wholes = [is_whole or _stands_alone(joined, *span) for span in found]
    lengths = np.array([len(one) for one in texts], np.int64)
    spans = np.array(found, np.int64).reshape(-1, 2)
    return _read(table, lengths), Occurrences(_moved(spans, lengths, 1), np.array(wholes, bool))


def find_pattern(database: Database, run_id: str, pattern: str) -> tuple[Read, Occurrences]:
    """The same of a regular expression of RE2, where all occurrences count as whole. Raises
    duckdb.InvalidInputException for one that is none."""
    marks = _OPEN + _CLOSE
    put = rf"{_OPEN}\0{_CLOSE}"
    table = database.query_table(_MARKED, run=run_id, pattern=pattern, marks=marks, put=put)
    texts = table.column("text").to_pylist()
    units = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    opens, closes = (np.flatnonzero(units == ord(mark)) for mark in marks)
    marked = np.concatenate([[0], np.cumsum([len(one) for one in texts])]).astype(np.int64)
    in_prompt = np.searchsorted(marked, opens, side="right") - 1
    lengths = np.diff(marked) - 2 * np.bincount(in_prompt, minlength=len(texts))
    earlier = 2 * np.arange(len(opens))
    spans = np.stack([opens - earlier, closes - earlier - 1], axis=1)
    spans = _moved(spans, lengths, 0)[spans[:, 1] > spans[:, 0]]
    return _read(table, lengths), Occurrences(spans, np.ones(len(spans), bool))


def _stands_alone(text: str, start: int, end: int) -> bool:
    return not (_is_of_word(text[start - 1 : start]) or _is_of_word(text[end : end + 1]))


def _is_of_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def _bases(lengths: np.ndarray, gap: int) -> np.ndarray:
    """The number of each text's first character, [n] int64, with so many characters between two."""
    return np.concatenate([[0], np.cumsum(lengths + gap)[:-1]]).astype(np.int64)


def _moved(spans: np.ndarray, lengths: np.ndarray, gap: int) -> np.ndarray:
    """Spans in texts with a gap between them, as `Read` numbers characters."""
    firsts = _bases(lengths, gap)
    shifts = _bases(lengths, _GAP) - firsts
    rows = np.searchsorted(firsts, spans[:, 0], side="right") - 1
    return spans + shifts[rows][:, None]


def _read(table: pa.Table, lengths: np.ndarray) -> Read:
    bases = _bases(lengths, _GAP)
    starts, ends = (table.column(name).combine_chunks() for name in ("starts", "ends"))
    counts = starts.value_lengths().to_numpy()
    rows = np.repeat(np.arange(len(lengths)), counts)
    spans = np.stack([one.flatten().to_numpy() for one in (starts, ends)], axis=1)
    return Read(
        table.column("prompt").to_numpy(),
        table.column("explored").to_numpy(),
        bases,
        rows,
        np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts),
        spans.astype(np.int64) + bases[rows][:, None],
    )
