"""Dictionaries as sets of source tokens: their keys as numbers, and what keeps two from comparing.

A source is called by (prompt, token position) or, across tokenizers, by (prompt, the character
where its white-space word begins). Both become one number, in the order of the prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.activations.pool import CandidatePool
from itda_core.config import HookPoint
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ComparisonError
from itda_core.model.built_in import DIGEST_PREFIX
from itda_core.model.tokenizer import is_of_before, may_be_same

KEYS = ("token", "word")
PER_PROMPT = 1 << 32
"""A key is the prompt's number times this, and more; so it tells its prompt."""
_MIDDLE = 1 << 31
NO_LAYER = "The two models have no layer in common: train one that is."


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
    model_digest: str = ""
    kind: str = "itda"
    pool: CandidatePool | None = None
    n_seed_atoms: int = 0
    """So many sources, the first ones, were taken before any was chosen"""

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
            model_digest=dictionary.model_digest,
            kind=dictionary.kind,
            pool=dictionary.pool,
            n_seed_atoms=dictionary.n_seed_atoms,
        )

    def keys(self, numbers: Mapping[str, int], key: str) -> np.ndarray:
        """[n_atoms] int64: a number for each source, the same for equal ones of any dictionary;
        -1 for those whose prompt has no number."""
        prompts = np.array([numbers.get(name, -1) for name in self.names], np.int64)
        return _keys(prompts[self.prompts], self.positions, self.words, key)


LONG_WORD = 8.0
"""Tokens in a usual "word" above which white space hardly separates words. English has 1.3 with a
usual vocabulary, and 5 with one token a character; Chinese has whole paragraphs."""


def doubt_of_words(sides: Iterable["Side"]) -> str:
    """Why a comparison by word says little of these sides; "" where nothing is known against it."""
    pools = {id(one.pool): one.pool for side in sides for one in side.values() if one.pool}
    longest = max((pool.tokens_per_word for pool in pools.values()), default=0.0)
    if not longest > LONG_WORD:
        return ""
    return (
        f"A “word” of these texts has {longest:.0f} tokens on average: words are what white space "
        "separates, which texts in Chinese, Japanese, Thai or Khmer and texts without spaces don't "
        "have. An index by word says little of them. Compare by token, which needs dictionaries of "
        "one tokenizer, or by the measures of activations."
    )


Side = Mapping[int, SourceSet]
"""A row or column of a matrix: a dictionary's sources for each layer"""


def pool_keys(
    pool: CandidatePool, prompt_ids: Sequence[str], numbers: Mapping[str, int], key: str
) -> np.ndarray:
    """The keys of all tokens that could become atoms, in prompts that have a number."""
    prompts = np.array([numbers.get(name, -1) for name in prompt_ids], np.int64)
    prompts = np.repeat(prompts, pool.counts)
    keys = _keys(prompts, pool.positions.astype(np.int64), pool.words.astype(np.int64), key)
    return np.unique(keys[keys >= 0])


def _keys(prompts: np.ndarray, positions: np.ndarray, words: np.ndarray, key: str) -> np.ndarray:
    """Special tokens belong to no word; each stays apart by a number of its own."""
    second = positions if key == "token" else np.where(words >= 0, words, -1 - positions)
    return np.where(prompts >= 0, prompts * PER_PROMPT + second + _MIDDLE, -1)


def check_key(key: str) -> None:
    """Raises ComparisonError for a key that there isn't."""
    if key not in KEYS:
        raise ComparisonError(f"key must be one of {', '.join(KEYS)}, got {key!r}.")


def common_prompts(
    a: Dictionary | SourceSet, b: Dictionary | SourceSet, key: str
) -> tuple[str, ...]:
    """The prompts that both trainings read, in order; none where neither names any.

    Both read their prompts in one order, so one list has to begin with the other: with another
    tokenizer or token budget the same order only goes on for longer. Anything else would compare
    the choice of prompts and not the models: ComparisonError.
    """
    check_key(key)
    reason = obstacle(a, b, key)
    if reason:
        raise ComparisonError(sentence(a, b, reason))
    return tuple(min(a.prompt_ids, b.prompt_ids, key=len))


def prompt_numbers(a: Sequence[Side], b: Sequence[Side], key: str) -> dict[int, dict[str, int]]:
    """For each layer that two groups of `alike` sides both have, the prompts that count there,
    with their numbers, which are the same in all layers. Raises ComparisonError."""
    numbers: dict[str, int] = {}
    by_list: dict[tuple[str, ...], dict[str, int]] = {}
    by_layer = {}
    for layer in sorted(set(a[0]) & set(b[0])):
        prompts = common_prompts(a[0][layer], b[0][layer], key)
        if not prompts and not a[0][layer].prompt_ids and not b[0][layer].prompt_ids:
            prompts = tuple(sorted({str(n) for side in (*a, *b) for n in side[layer].names}))
        if prompts not in by_list:
            by_list[prompts] = {name: numbers.setdefault(name, len(numbers)) for name in prompts}
        by_layer[layer] = by_list[prompts]
    return by_layer


def obstacle(a: Dictionary | SourceSet, b: Dictionary | SourceSet, key: str) -> str:
    """What keeps two dictionaries from being compared, to be said after their names; or ""."""
    if "sae" in (a.kind, b.kind):
        return (
            "can't be compared by their sources: the latents of an autoencoder are no tokens, and "
            "a source is only where one is strongest. Choose dictionaries that were trained here."
        )
    if key == "token" and not (a.tokenizer and b.tokenizer):
        return (
            "can't be compared by token: one of the two is from a folder of activations that does "
            'not say which tokenizer it is of. Compare them by word (key="word").'
        )
    if key == "token" and not may_be_same(a.tokenizer, b.tokenizer):
        return (
            "have different tokenizers, so their token positions do not match. Compare them by "
            'word (key="word").'
        )
    if key == "token" and not same_tokenizer(a, b):
        return (
            "may have different tokenizers: an earlier version, which told fewer of them apart, "
            "trained one of the two. Delete that one and train it again, or compare them by word "
            '(key="word").'
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
        n_shared = len(set(a.prompt_ids) & set(b.prompt_ids))
        return (
            f"were built on different prompts (they share {n_shared:,} of {len(a.prompt_ids):,} "
            f"and {len(b.prompt_ids):,}). Train both with the same corpus and seed."
        )
    return ""


def same_tokenizer(a: Dictionary | SourceSet, b: Dictionary | SourceSet) -> bool:
    """Whether token positions of two dictionaries surely match.

    Earlier versions named a tokenizer by less than all that it does. Where one of the two is of
    them, the model has to be the same too, or both built in, where the name says enough.
    """
    if not may_be_same(a.tokenizer, b.tokenizer):
        return False
    if not (is_of_before(a.tokenizer) or is_of_before(b.tokenizer)):
        return True
    are_built_in = all(one.model_digest.startswith(DIGEST_PREFIX) for one in (a, b))
    return are_built_in or _model(a) == _model(b)


def _model(of: Dictionary | SourceSet) -> tuple[str, str]:
    return of.hook_point.model, of.model_digest


def sentence(a: Dictionary | SourceSet, b: Dictionary | SourceSet, reason: str) -> str:
    """An obstacle with the names of the two before it."""
    names = [
        f"{dictionary.hook_point.model} {dictionary.hook_point.in_words}" for dictionary in (a, b)
    ]
    if names[0] == names[1]:
        return f"Two dictionaries of {names[0]} {reason}"
    return f"{' and '.join(names)} {reason}"


def alike(sides: Sequence[Side], by_model: bool = False) -> list[list[int]]:
    """The numbers of the sides in groups whose members compare with any other side alike.

    That is decided by the layers and what they read, which is usually one for all. by_model: and
    by the model, as `same_tokenizer` does with files of earlier versions.
    """
    groups: dict[tuple, list[int]] = {}
    for number, side in enumerate(sides):
        offers = (
            (layer, s.kind, s.tokenizer, s.reading, s.prompt_ids, *(_model(s) if by_model else ()))
            for layer, s in side.items()
        )
        groups.setdefault(tuple(sorted(offers, key=lambda offer: offer[0])), []).append(number)
    return list(groups.values())


def why_not(a: list[Side], b: list[Side], key: str) -> list[list[str]] | str | None:
    """The reasons of each pair of two groups, [len(a), len(b)], or one for all; or None."""
    layers = sorted(set(a[0]) & set(b[0]))
    if not layers:
        return NO_LAYER
    for layer in layers:
        reason = obstacle(a[0][layer], b[0][layer], key)
        if reason:
            return [[sentence(one[layer], other[layer], reason) for other in b] for one in a]
    return None
