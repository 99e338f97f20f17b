"""How alike dictionaries are: the Jaccard index of their source tokens.

Two dictionaries built on the same prompts are sets of (prompt, token) pairs, so |A ∩ B| / |A ∪ B|
says how alike two layers or models are, and the sets say which tokens make the difference
(arXiv 2505.17769, section 5). Across tokenizers a source is called by its white-space word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.dictionary import Dictionary
from itda_core.errors import ComparisonError

KEYS = ("token", "word")


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
    return np.array([[jaccard(one, other, key) for other in b] for one in a])


def model_comparison(
    a: Mapping[int, Dictionary], b: Mapping[int, Dictionary], key: str = "token"
) -> Comparison:
    """Two models: the unions of their sources over the layers that both have, compared.

    a, b: a dictionary for each layer. Raises ComparisonError where no layer is common.
    """
    layers = sorted(set(a) & set(b))
    if not layers:
        raise ComparisonError("The two models have no layer in common: train one that is.")
    tables_a, tables_b = [], []
    for layer in layers:
        shared_prompts = common_prompts(a[layer], b[layer], key)
        tables_a.append(_table(a[layer], key, shared_prompts))
        tables_b.append(_table(b[layer], key, shared_prompts))
    return _comparison(_distinct(pd.concat(tables_a)), _distinct(pd.concat(tables_b)))


def common_prompts(a: Dictionary, b: Dictionary, key: str) -> frozenset[str] | None:
    """The prompts offered to both dictionaries; None where they are the same for both.

    Both read their prompts in one order, so one list has to begin with the other: with another
    tokenizer or token budget the same order only goes on for longer. Anything else would compare
    the choice of prompts and not the models: ComparisonError.
    """
    if key not in KEYS:
        raise ComparisonError(f"key must be one of {', '.join(KEYS)}, got {key!r}.")
    if key == "token" and a.tokenizer != b.tokenizer:
        raise ComparisonError(
            f"{_name(a)} and {_name(b)} have different tokenizers, so their token positions do "
            'not match. Compare them by word (key="word").'
        )
    if a.reading != b.reading:
        raise ComparisonError(
            f"{_name(a)} and {_name(b)} read different parts of the prompts ({a.reading}; "
            f"{b.reading}). Train both with the same context length."
        )
    common = min(len(a.prompt_ids), len(b.prompt_ids))
    if a.prompt_ids[:common] != b.prompt_ids[:common] or (
        not common and len(a.prompt_ids) != len(b.prompt_ids)
    ):
        both = len(set(a.prompt_ids) & set(b.prompt_ids))
        raise ComparisonError(
            f"{_name(a)} and {_name(b)} were built on different prompts (they share {both:,} of "
            f"{len(a.prompt_ids):,} and {len(b.prompt_ids):,}). Train both with the same corpus "
            "and seed."
        )
    same = len(a.prompt_ids) == len(b.prompt_ids)
    return None if same else frozenset(a.prompt_ids[:common])


def _name(dictionary: Dictionary) -> str:
    return f"{dictionary.hook_point.model} layer {dictionary.hook_point.layer}"


def _table(dictionary: Dictionary, key: str, prompts: frozenset[str] | None) -> pd.DataFrame:
    """Sources indexed by key, one row for each key, of the given prompts only.

    A key is (prompt id, token position), or (prompt id, character where the word begins).
    """
    sources = dictionary.sources
    if key == "token":
        second = sources["position"]
    else:  # special tokens belong to no word; each stays apart by a number of its own
        words = dictionary.word_starts()
        second = np.where(words >= 0, words, -1 - sources["position"])
    keys = list(zip(sources["prompt_id"], np.asarray(second).tolist(), strict=True))
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
