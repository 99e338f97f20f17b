"""Which latent of one dictionary is which of another: those with the same source token."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ComparisonError
from itda_core.similarity.source_sets import same_tokenizer, sentence

_NUMBER = ("number",)
_TOKEN = ("prompt_id", "position")
_END = ("prompt_id", "end")
_WORD = ("prompt_id", "word")


def namesakes(
    a: Dictionary, b: Dictionary, numbers: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Pairs of latents with the same source, [n_pairs, 2] int64: A's and B's, in A's order.

    numbers: [n_a] and [n_b] int64, what the latents of both are called in the run that both were
    moved from, or the one from the other; the same number is the same latent then. Otherwise, with
    one tokenizer a source is the same where prompt and token position are. Across tokenizers
    it is where its text ends at the same character of the prompt; of those that are left, where it
    is of the same white-space word. What several latents of a dictionary are called by is no
    one's name. Raises ComparisonError where no source is the same, or an imported autoencoder is
    among them.
    """
    if "sae" in (a.kind, b.kind):
        raise ComparisonError(
            sentence(
                a,
                b,
                "can't be compared latent by latent: those of an autoencoder are no tokens, so "
                "none of them has a namesake. Choose dictionaries that were trained or moved here.",
            )
        )
    left, right, pairs = _named(a), _named(b), []
    if numbers is not None:
        left, right = left.assign(number=numbers[0]), right.assign(number=numbers[1])
        ways = (_NUMBER,)
    else:
        ways = (_TOKEN,) if same_tokenizer(a, b) else (_END, _WORD)
    for names in ways:
        found = _paired(left, right, names)
        left = left[~left["latent"].isin(found[:, 0])]
        right = right[~right["latent"].isin(found[:, 1])]
        pairs.append(found)
    joined = np.concatenate(pairs)
    if not len(joined):
        raise ComparisonError(
            sentence(
                a,
                b,
                "have no source in common, so there is nothing to compare latent by latent. Train "
                "both on the same corpus, or move one dictionary to the other's model.",
            )
        )
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _named(dictionary: Dictionary) -> pd.DataFrame:
    words = np.asarray(dictionary.word_starts(), np.int64)
    return dictionary.sources.assign(latent=np.arange(len(dictionary)), word=words)


def _paired(a: pd.DataFrame, b: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """[n, 2] int64: the latents of both that alone have the same names; a special token belongs
    to no word."""
    columns = list(names)
    a, b = (one[(one["word"] >= 0) | ("word" not in names)] for one in (a, b))
    a, b = (one[~one.duplicated(columns, keep=False)][["latent", *columns]] for one in (a, b))
    both = a.merge(b, on=columns, suffixes=("_a", "_b"))
    return both[["latent_a", "latent_b"]].to_numpy(np.int64)
