"""One text taken apart by two dictionaries: which tokens they explain by the same latents."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.analysis.decomposition import Decomposition
from itda_core.errors import InputError


@dataclass(frozen=True)
class SideBySide:
    """The tokens that both decompose, and all terms of them."""

    tokens: pd.DataFrame
    """position_a, position_b, token (its text in A), in_common in [0, 1], left_a and left_b
    (‖x − x̂‖² / ‖x − offset‖²), latents_a, latents_b and latents_both (counts); those with the
    least in common first, those without a term at all last.

    in_common: of what each side's terms explain, the share that is due to latents whose namesake
    the other uses on the same token with the same sign; the mean of both sides. What a term
    explains is what its step took off ‖x − x̂‖² in the pursuit. NaN where neither has a term.
    """
    terms: pd.DataFrame
    """position_a (the token), latent_a and latent_b (missing where a latent has no namesake),
    coefficient_a and coefficient_b (NaN where it is not used), explains_a and explains_b
    (shares of ‖x − offset‖², 0 where it is not used), is_common"""
    unmatched_a: int
    """decomposed tokens of A that B has no partner for"""
    unmatched_b: int


def side_by_side(
    a: Decomposition, b: Decomposition, pairs: np.ndarray, has_one_tokenizer: bool
) -> SideBySide:
    """Compare the decompositions of one text token by token.

    pairs: latents with the same source, [n_pairs, 2] int64, A's and B's, each once, as
    `similarity.same_sources.namesakes` gives them. With one tokenizer tokens are the same
    that are the same characters at the same position, since a mark that closes a cut text stands
    where a longer reading has a word; otherwise those that end at the same character, the last of
    each side, and special tokens, which have no characters, have no partner. Raises InputError
    where the texts differ or no token is the same.
    """
    if a.text != b.text:
        raise InputError("Give the decompositions of one text.")
    names = ["place", "start", "end"] if has_one_tokenizer else ["end"]
    tokens = _tokens(a, names).merge(_tokens(b, names), on=names, suffixes=("_a", "_b"))
    if tokens.empty:
        raise InputError("No token of the one ends where a token of the other does.")
    terms = _merged(
        _latents(a, tokens["position_a"]), _latents(b, tokens["position_b"]), tokens, pairs
    )
    return SideBySide(
        tokens=_compared(a, b, tokens, terms),
        terms=terms,
        unmatched_a=len(a.positions) - len(tokens),
        unmatched_b=len(b.positions) - len(tokens),
    )


def _tokens(result: Decomposition, names: list[str]) -> pd.DataFrame:
    """The position of each decomposed token, by what the other's are found by: the names, of place
    (its position), start and end. By the end alone those without characters are none."""
    table = pd.DataFrame(result.spans(), columns=["start", "end"]).iloc[result.positions]
    table = table.assign(place=result.positions, position=result.positions)
    if names == ["end"]:
        table = table[table["end"] > table["start"]]
    return table[[*names, "position"]].drop_duplicates(names, keep="last")


def _latents(result: Decomposition, positions: pd.Series) -> pd.DataFrame:
    """position, latent, coefficient and explains of some tokens; a latent that was taken more than
    once stands there once."""
    table = result.table()
    before = table.groupby("position")["share_left"].shift(fill_value=1.0)
    table = table.assign(explains=before - table["share_left"])
    table = table[table["position"].isin(positions)]
    names = ["position", "latent"]
    return table.groupby(names, as_index=False)[["coefficient", "explains"]].sum()


def _merged(
    a: pd.DataFrame, b: pd.DataFrame, tokens: pd.DataFrame, pairs: np.ndarray
) -> pd.DataFrame:
    own = dict(zip(tokens["position_b"], tokens["position_a"], strict=True))
    to_a = pd.Series(pairs[:, 0], pairs[:, 1], dtype="Int64")
    to_b = pd.Series(pairs[:, 1], pairs[:, 0], dtype="Int64")
    a = a.rename(columns={"position": "position_a"})
    a = a.assign(latent_a=a["latent"].astype("Int64"), name=a["latent"])
    b = b.assign(position_a=b["position"].map(own), name=b["latent"].map(to_a))
    b["latent_b"] = b["latent"].astype("Int64")
    b["name"] = b["name"].fillna(-1 - b["latent_b"]).astype(np.int64)  # one that A does not have
    columns = ["position_a", "name", "coefficient", "explains"]
    terms = a[[*columns, "latent_a"]].merge(
        b[[*columns, "latent_b"]], on=columns[:2], how="outer", suffixes=("_a", "_b")
    )
    terms["latent_a"] = terms["latent_a"].fillna(terms["latent_b"].map(to_a))
    terms["latent_b"] = terms["latent_b"].fillna(terms["latent_a"].map(to_b))
    shares = ["explains_a", "explains_b"]
    terms[shares] = terms[shares].fillna(0.0)
    terms["is_common"] = (terms["coefficient_a"] * terms["coefficient_b"]).gt(0)
    terms["most"] = terms[shares].max(axis=1)
    terms = terms.sort_values(["position_a", "most", "name"], ascending=[True, False, True])
    return terms.drop(columns=["name", "most"]).reset_index(drop=True)


def _compared(
    a: Decomposition, b: Decomposition, tokens: pd.DataFrame, terms: pd.DataFrame
) -> pd.DataFrame:
    columns, by_token = tokens[["position_a", "position_b"]].copy(), terms["position_a"]
    columns.insert(2, "token", [a.token_text(position) for position in tokens["position_a"]])
    shares = []
    for side, result in (("a", a), ("b", b)):
        left = dict(zip(result.positions, result.shares_left, strict=True))
        columns[f"left_{side}"] = columns[f"position_{side}"].map(left)
        explains = terms[f"explains_{side}"]
        sums = explains.groupby(by_token).sum()
        shared = explains.where(terms["is_common"], 0.0).groupby(by_token).sum()
        shares.append((shared / sums.where(sums > 0)).reindex(columns["position_a"]))
        used = terms[f"coefficient_{side}"].notna()
        columns[f"latents_{side}"] = _counted(used, by_token, columns)
    columns["latents_both"] = _counted(terms["is_common"], by_token, columns)
    has_terms = ~(shares[0].isna() & shares[1].isna())
    mean = (shares[0].fillna(0.0) + shares[1].fillna(0.0)) / 2
    columns.insert(3, "in_common", mean.where(has_terms).to_numpy())
    return columns.sort_values(["in_common", "position_a"], ignore_index=True)


def _counted(is_one: pd.Series, by_token: pd.Series, tokens: pd.DataFrame) -> np.ndarray:
    counts = is_one.groupby(by_token).sum()
    return counts.reindex(tokens["position_a"], fill_value=0).to_numpy(np.int64)
