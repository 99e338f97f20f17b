"""How alike dictionaries are: the Jaccard index of their source tokens.

Two dictionaries built on the same prompts are sets of (prompt, token) pairs, so |A ∩ B| / |A ∪ B|
says how alike two layers or models are, and the sets say which tokens make the difference
(arXiv 2505.17769, section 5). Across tokenizers a source is called by its white-space word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.config import HookPoint
from itda_core.dictionary import Dictionary
from itda_core.errors import ComparisonError

KEYS = ("token", "word")
_BLOCK = 1 << 24
"""Entries of an incidence matrix that are held at a time: 64 MB of float32"""
_NO_LAYER = "The two models have no layer in common: train one that is."


@dataclass(frozen=True)
class Comparison:
    """Two dictionaries as sets of source tokens."""

    jaccard: float
    """|A ∩ B| / |A ∪ B|, in [0, 1]"""
    shared: pd.DataFrame
    """sources in both: A's columns and, as `latent_b`, B's latent; by word there may be several
    latents of a side for one word, of which the first stands here"""
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    union: int
    """|A ∪ B|"""


@dataclass(frozen=True)
class SourceSet:
    """What of a dictionary is compared: its sources as numbers, without atoms and texts."""

    hook_point: HookPoint
    names: np.ndarray
    """[n_names] str: the prompts that hold a source, each once"""
    prompts: np.ndarray
    """[n_atoms] int64: the number of each source's prompt in `names`"""
    positions: np.ndarray
    """[n_atoms] int64: token index of each source"""
    words: np.ndarray
    """[n_atoms] int64: the character where each source's word begins, -1 for special tokens"""
    prompt_ids: tuple[str, ...]
    tokenizer: str
    reading: str
    kind: str = "itda"

    @classmethod
    def of(cls, dictionary: Dictionary) -> "SourceSet":
        prompts, names = pd.factorize(dictionary.sources["prompt_id"].to_numpy(object))
        return cls(
            hook_point=dictionary.hook_point,
            names=names,
            prompts=prompts,
            positions=dictionary.sources["position"].to_numpy(np.int64),
            words=np.asarray(dictionary.word_starts(), np.int64),
            prompt_ids=tuple(dictionary.prompt_ids),
            tokenizer=dictionary.tokenizer,
            reading=dictionary.reading,
            kind=dictionary.kind,
        )


Side = Mapping[int, SourceSet]
"""A row or column of a matrix: a dictionary's sources for each layer"""


@dataclass(frozen=True)
class Matrix:
    """Every row compared with every column; all arrays are [n_rows, n_columns]."""

    shared: np.ndarray
    """int64, |A ∩ B|; 0 where there is a reason"""
    union: np.ndarray
    """int64, |A ∪ B|; 0 where there is a reason"""
    reasons: np.ndarray
    """str: why a pair can't be compared, empty where it can"""

    @property
    def jaccard(self) -> np.ndarray:
        """|A ∩ B| / |A ∪ B|, float64 in [0, 1]; 0 for two empty sides, NaN with a reason."""
        index = self.shared / np.maximum(self.union, 1)
        return np.where(self.reasons == "", index, np.nan)


def jaccard(a: Dictionary, b: Dictionary, key: str = "token") -> float:
    """Jaccard index of two dictionaries' sources, in [0, 1]; 0 for two empty ones.

    key: "token" takes a source as (prompt, token position), which needs one tokenizer; "word"
    as (prompt, the white-space word that holds the token), which works across tokenizers.
    Where one dictionary was offered more of the same prompts, only those that both were offered
    count. Raises ComparisonError for dictionaries built on different prompts.
    """
    return compare(a, b, key).jaccard


def compare(a: Dictionary, b: Dictionary, key: str = "token") -> Comparison:
    """The Jaccard index with the sources behind it: shared, only in A, only in B."""
    shared_prompts = common_prompts(a, b, key)
    return _comparison(_table(a, key, shared_prompts), _table(b, key, shared_prompts))


def jaccard_matrix(
    a: Sequence[Dictionary], b: Sequence[Dictionary], key: str = "token"
) -> np.ndarray:
    """The index of every pair, [len(a), len(b)] float64. Raises ComparisonError like `jaccard`."""
    rows, columns = ([{0: SourceSet.of(one)} for one in side] for side in (a, b))
    matrix = compare_all(rows, columns, key)
    for reason in matrix.reasons[matrix.reasons != ""]:
        raise ComparisonError(reason)
    return matrix.jaccard


def compare_all(rows: Sequence[Side], columns: Sequence[Side], key: str = "token") -> Matrix:
    """Every row with every column: unions over the layers both have, as in `model_comparison`.

    What can't be compared has its reason in the matrix instead of an error. Raises
    ComparisonError for an unknown key.
    """
    _check_key(key)
    shape = len(rows), len(columns)
    reasons = np.full(shape, "", object)
    matrix = Matrix(np.zeros(shape, np.int64), np.zeros(shape, np.int64), reasons)
    for some_rows in _alike(rows):
        for some_columns in _alike(columns):
            a, b = [rows[row] for row in some_rows], [columns[column] for column in some_columns]
            place = np.ix_(some_rows, some_columns)
            why_not = _why_not(a, b, key)
            if why_not is not None:
                matrix.reasons[place] = why_not
            else:
                matrix.shared[place], matrix.union[place] = _shared_and_union(a, b, key)
    return matrix


def model_comparison(
    a: Mapping[int, Dictionary], b: Mapping[int, Dictionary], key: str = "token"
) -> Comparison:
    """Two models: the unions of their sources over the layers that both have, compared.

    a, b: a dictionary for each layer. Raises ComparisonError where no layer is common.
    """
    layers = sorted(set(a) & set(b))
    if not layers:
        raise ComparisonError(_NO_LAYER)
    tables_a, tables_b = [], []
    for layer in layers:
        shared_prompts = common_prompts(a[layer], b[layer], key)
        tables_a.append(_table(a[layer], key, shared_prompts))
        tables_b.append(_table(b[layer], key, shared_prompts))
    return _comparison(_distinct(pd.concat(tables_a)), _distinct(pd.concat(tables_b)))


def common_prompts(
    a: Dictionary | SourceSet, b: Dictionary | SourceSet, key: str
) -> frozenset[str] | None:
    """The prompts offered to both dictionaries; None where they are the same for both.

    Both read their prompts in one order, so one list has to begin with the other: with another
    tokenizer or token budget the same order only goes on for longer. Anything else would compare
    the choice of prompts and not the models: ComparisonError.
    """
    _check_key(key)
    obstacle = _obstacle(a, b, key)
    if obstacle:
        raise ComparisonError(_sentence(a, b, obstacle))
    common = min(len(a.prompt_ids), len(b.prompt_ids))
    same = len(a.prompt_ids) == len(b.prompt_ids)
    return None if same else frozenset(a.prompt_ids[:common])


def _check_key(key: str) -> None:
    if key not in KEYS:
        raise ComparisonError(f"key must be one of {', '.join(KEYS)}, got {key!r}.")


def _obstacle(a: Dictionary | SourceSet, b: Dictionary | SourceSet, key: str) -> str:
    """What keeps two dictionaries from being compared, to be said after their names; or ""."""
    if "sae" in (a.kind, b.kind):
        return (
            "can't be compared by their sources: the latents of an autoencoder are no tokens, and "
            "a source is only where one is strongest. Choose dictionaries that were trained here."
        )
    if key == "token" and a.tokenizer != b.tokenizer:
        return (
            "have different tokenizers, so their token positions do not match. Compare them by "
            'word (key="word").'
        )
    if a.reading != b.reading:
        return (
            f"read different parts of the prompts ({a.reading}; {b.reading}). Train both with the "
            "same context length."
        )
    common = min(len(a.prompt_ids), len(b.prompt_ids))
    if a.prompt_ids[:common] != b.prompt_ids[:common] or (
        not common and len(a.prompt_ids) != len(b.prompt_ids)
    ):
        both = len(set(a.prompt_ids) & set(b.prompt_ids))
        return (
            f"were built on different prompts (they share {both:,} of {len(a.prompt_ids):,} and "
            f"{len(b.prompt_ids):,}). Train both with the same corpus and seed."
        )
    return ""


def _sentence(a: Dictionary | SourceSet, b: Dictionary | SourceSet, obstacle: str) -> str:
    names = (f"{one.hook_point.model} layer {one.hook_point.layer}" for one in (a, b))
    return f"{' and '.join(names)} {obstacle}"


def _alike(sides: Sequence[Side]) -> list[list[int]]:
    """The numbers of the sides in groups whose members compare with any other side alike.

    That is decided by the layers and what was offered to them, which is usually one for all.
    """
    groups: dict[tuple, list[int]] = {}
    for number, side in enumerate(sides):
        offers = (
            (layer, s.kind, s.tokenizer, s.reading, s.prompt_ids) for layer, s in side.items()
        )
        groups.setdefault(tuple(sorted(offers, key=lambda offer: offer[0])), []).append(number)
    return list(groups.values())


def _why_not(a: list[Side], b: list[Side], key: str) -> list[list[str]] | str | None:
    """The reasons of each pair of two groups, [len(a), len(b)], or one for all; or None."""
    layers = sorted(set(a[0]) & set(b[0]))
    if not layers:
        return _NO_LAYER
    for layer in layers:
        obstacle = _obstacle(a[0][layer], b[0][layer], key)
        if obstacle:
            return [[_sentence(one[layer], other[layer], obstacle) for other in b] for one in a]
    return None


def _shared_and_union(a: list[Side], b: list[Side], key: str) -> tuple[np.ndarray, np.ndarray]:
    """|A ∩ B| and |A ∪ B| of two groups that compare, [len(a), len(b)] each.

    With a row of zeros and ones for each side and a column for each key, the intersections are
    one matrix product. A key that a side holds several times is a one all the same.
    """
    layers = sorted(set(a[0]) & set(b[0]))
    prompts = {layer: common_prompts(a[0][layer], b[0][layer], key) for layer in layers}
    owners, keys, n_keys = _numbered([*a, *b], prompts, key)
    n_sides = len(a) + len(b)
    shared, sizes = np.zeros((len(a), len(b)), np.int64), np.zeros(n_sides, np.int64)
    width = max(1, _BLOCK // n_sides)
    for first in range(0, n_keys, width):
        inside = (keys >= first) & (keys < first + width)
        # float32 counts exactly up to 2²⁴, which a block can't exceed.
        holds = np.zeros((n_sides, min(width, n_keys - first)), np.float32)
        holds[owners[inside], keys[inside] - first] = 1.0
        shared += (holds[: len(a)] @ holds[len(a) :].T).astype(np.int64)
        sizes += holds.sum(1).astype(np.int64)
    return shared, sizes[: len(a), None] + sizes[None, len(a) :] - shared


def _numbered(
    sides: list[Side], prompts: dict[int, frozenset[str] | None], key: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """The keys of all sides as numbers from 0: owner and number [n_sources], and how many.

    prompts: the layers that count, each with the prompts that do; owner: the number of the side.
    """
    numbers: dict[str, int] = {}
    owners, firsts, seconds = [], [], []
    for owner, side in enumerate(sides):
        for layer, counted in prompts.items():
            one = side[layer]
            named = [numbers.setdefault(name, len(numbers)) for name in one.names]
            counts = np.array([counted is None or name in counted for name in one.names], bool)
            chosen = counts[one.prompts]
            owners.append(np.full(int(chosen.sum()), owner))
            firsts.append(np.array(named, np.int64)[one.prompts][chosen])
            seconds.append(_second(one.positions, one.words, key)[chosen])
    second, distinct = pd.factorize(np.concatenate(seconds))
    keys, found = pd.factorize(np.concatenate(firsts) * len(distinct) + second)
    return np.concatenate(owners), keys, len(found)


def _second(positions: np.ndarray, words: np.ndarray, key: str) -> np.ndarray:
    """The part of a key beside the prompt, [n_sources]: token position, or character of the word.

    Special tokens belong to no word; each stays apart by a number of its own.
    """
    return positions if key == "token" else np.where(words >= 0, words, -1 - positions)


def _table(dictionary: Dictionary, key: str, prompts: frozenset[str] | None) -> pd.DataFrame:
    """Sources indexed by key, one row for each key, of the given prompts only.

    A key is (prompt id, token position), or (prompt id, character where the word begins).
    """
    sources = dictionary.sources
    second = _second(sources["position"].to_numpy(), dictionary.word_starts(), key)
    keys = list(zip(sources["prompt_id"], second.tolist(), strict=True))
    table = sources.set_axis(pd.Index(keys, tupleize_cols=False), axis=0)
    if prompts is not None:
        table = table[table["prompt_id"].isin(prompts)]
    return _distinct(table)


def _distinct(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table.index.duplicated()]


def _comparison(table_a: pd.DataFrame, table_b: pd.DataFrame) -> Comparison:
    in_b, in_a = table_a.index.isin(table_b.index), table_b.index.isin(table_a.index)
    shared = table_a[in_b].assign(latent_b=table_b["latent"].reindex(table_a.index[in_b]))
    union = len(table_a) + len(table_b) - len(shared)
    return Comparison(
        jaccard=len(shared) / union if union else 0.0,
        shared=shared.reset_index(drop=True),
        only_a=table_a[~in_b].reset_index(drop=True),
        only_b=table_b[~in_a].reset_index(drop=True),
        union=union,
    )
