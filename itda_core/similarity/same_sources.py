"""Which latent of one dictionary is which of another: those with the same source token.

It is the rule by which labels are shown elsewhere (`store.label_sources`), which knows of no
tokenizers: a test compares the two.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ComparisonError
from itda_core.similarity.source_sets import same_tokenizer, sentence
from itda_core.tables import read_frame

_NUMBER = ("number",)
_PLACE = ("prompt_id", "position", "start", "end")
_END = ("prompt_id", "end")
_UNKNOWN = -1


def namesakes(
    a: Dictionary, b: Dictionary, numbers: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Pairs of latents with the same source, [n_pairs, 2] int64: A's and B's, in A's order.

    numbers: [n_a] and [n_b] int64, what the latents of both are called in the run that both were
    moved from, or the one from the other; the same number is the same latent then. Otherwise, with
    one tokenizer a source is the same where the same characters stand at the same position of a
    prompt: a mark that closes a cut text stands where a longer reading has a word. Across
    tokenizers it is so too, or where both end the text at the same character, so that both models
    have read the same; of the pieces of one character only the last one ends it, and no other is
    the same as that. What several latents of a dictionary are called by is no one's name. Raises
    ComparisonError where no source is the same, or an imported autoencoder is among them.
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
    left, right = (one.sources.assign(latent=np.arange(len(one))) for one in (a, b))
    if numbers is not None:
        left, right = left.assign(number=numbers[0]), right.assign(number=numbers[1])
        joined = _paired(left, right, _NUMBER)
    elif same_tokenizer(a, b):
        joined = _paired(left, right, _PLACE)
    else:
        joined = _across_tokenizers(left, right, _closes(a), _closes(b))
    if not len(joined):
        raise ComparisonError(
            sentence(
                a,
                b,
                "have no source in common, so there is nothing to compare latent by latent. Train "
                "both on the same texts (corpus and seed), or move one dictionary to the other's "
                "model.",
            )
        )
    return joined[np.argsort(joined[:, 0], kind="stable")]


def _across_tokenizers(
    a: pd.DataFrame, b: pd.DataFrame, closes_a: np.ndarray, closes_b: np.ndarray
) -> np.ndarray:
    """[n, 2] int64: pairs by place, then, of those that are left, by the end. closes: of
    `_closes`."""
    pairs = _paired(a, b, _PLACE)
    found = closes_a[pairs[:, 0]], closes_b[pairs[:, 1]]
    pairs = pairs[(found[0] == found[1]) | (found[0] == _UNKNOWN) | (found[1] == _UNKNOWN)]
    a = a[(closes_a == 1) & ~a["latent"].isin(pairs[:, 0])]
    b = b[(closes_b == 1) & ~b["latent"].isin(pairs[:, 1])]
    return np.concatenate([pairs, _paired(a, b, _END)])


def _closes(dictionary: Dictionary) -> np.ndarray:
    """[n_latents] int64: 1 where a source is the last token of its last character, 0 where it is
    not. Those of ASCII are never cut in pieces; of others the run directory says whether another
    end comes after them. Of the last token that was read, and without a directory, it is not
    known."""
    sources = dictionary.sources
    has_text = (sources["end"] > sources["start"]).to_numpy()
    is_ascii = np.array([token[-1:].isascii() for token in sources["token"]], bool)
    asked = sources[has_text & ~is_ascii]
    ends = _ends(dictionary, asked["prompt_id"]) if len(asked) else {}
    closes = np.where(has_text & ~is_ascii, _UNKNOWN, has_text)
    for latent, row in zip(np.flatnonzero(has_text & ~is_ascii), asked.itertuples(), strict=True):
        after = ends.get(row.prompt_id, ())[row.position + 1 :]
        closes[latent] = int(after[0] != row.end) if len(after) else _UNKNOWN
    return closes


def _ends(dictionary: Dictionary, prompt_ids: pd.Series) -> dict[str, np.ndarray]:
    """Where the tokens of some prompts end, by prompt; none where there is no run directory."""
    file = Path(dictionary.directory or "") / "prompts.parquet"
    if dictionary.directory is None or not file.exists():
        return {}
    table = read_frame(file, columns=["prompt_id", "ends"])
    table = table[table["prompt_id"].isin(set(prompt_ids))]
    return dict(zip(table["prompt_id"], table["ends"], strict=True))


def _paired(a: pd.DataFrame, b: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """[n, 2] int64: the latents of both that alone have the same names."""
    columns = list(names)
    a, b = (one[~one.duplicated(columns, keep=False)][["latent", *columns]] for one in (a, b))
    both = a.merge(b, on=columns, suffixes=("_a", "_b"))
    return both[["latent_a", "latent_b"]].to_numpy(np.int64)
