"""The uses of a latent and of its namesake on the same tokens. Pure functions."""

import numpy as np
import pandas as pd

from pages.components.scale import usual_largest


def paired_uses(a: pd.DataFrame, b: pd.DataFrame, has_one_tokenizer: bool) -> pd.DataFrame:
    """The tokens that use the one or the other, the strongest first: prompt_id, title, start, end,
    and of both sides position and coefficient (position_a, coefficient_a …), missing where the
    token does not use it, and strength: the larger |coefficient|, each against its latent's
    `usual_largest`.

    a, b: every use of the two, as Store.uses.all() gives them. With one tokenizer tokens are the
    same that are the same characters at the same position; otherwise those that end at the same
    character, the last of a side where several do, and special tokens, which have no characters,
    stand alone.
    """
    both = [a.assign(special=_special(a)), b.assign(special=-_special(b))]
    names = ["prompt_id", *(["position", "start"] if has_one_tokenizer else ["special"]), "end"]
    columns = list(dict.fromkeys([*names, "title", "start", "position", "coefficient"]))
    both = [one[columns].drop_duplicates(names, keep="last").copy() for one in both]
    for one in both:
        one["share"] = one["coefficient"].abs() / max(1e-30, usual_largest(one["coefficient"]))
        one["place"] = one["position"]
    merged = both[0].merge(both[1], on=names, how="outer", suffixes=("_a", "_b"))
    shares = merged[["share_a", "share_b"]]
    paired = pd.DataFrame(
        {
            "prompt_id": merged["prompt_id"],
            "title": _either(merged, "title", names),
            "start": _either(merged, "start", names).astype(int),
            "end": merged["end"],
            "position_a": merged["place_a"].astype("Int64"),
            "position_b": merged["place_b"].astype("Int64"),
            "coefficient_a": merged["coefficient_a"],
            "coefficient_b": merged["coefficient_b"],
            "strength": shares.max(axis=1),
        }
    )
    order = ["strength", "prompt_id", "end"]
    return paired.sort_values(order, ascending=[False, True, True], ignore_index=True)


def strong_pairs(
    paired: pd.DataFrame, threshold_a: float | None, threshold_b: float | None
) -> pd.DataFrame:
    """Those that use the one or the other strongly, with is_strong_a and is_strong_b. paired: of
    `paired_uses`; thresholds: None for a latent without one, all of whose uses count."""
    thresholds = {"a": threshold_a, "b": threshold_b}
    strong = {
        f"is_strong_{side}": paired[f"coefficient_{side}"]
        >= (-np.inf if threshold is None else threshold)
        for side, threshold in thresholds.items()
    }
    paired = paired.assign(**strong)
    return paired[paired[list(strong)].any(axis=1)].reset_index(drop=True)


def _special(tokens: pd.DataFrame) -> pd.Series:
    """1 + position of those without characters, 0 of all others."""
    return (tokens["position"] + 1).where(tokens["start"] == tokens["end"], 0)


def _either(merged: pd.DataFrame, name: str, names: list[str]) -> pd.Series:
    return merged[name] if name in names else merged[f"{name}_a"].fillna(merged[f"{name}_b"])


def with_partners(
    shown: pd.DataFrame, tokens_a: pd.DataFrame, tokens_b: pd.DataFrame, has_one_tokenizer: bool
) -> pd.DataFrame:
    """Each token with its place in both, also in the one that does not use it: position_a and
    position_b, missing where there is no such token, and has_terms_a and has_terms_b, whether any
    latent is used there. shown: of `paired_uses`; tokens_a, tokens_b: of Store.uses.at_ends().
    """
    placed = shown.reset_index(drop=True)
    sides = {"a": tokens_a, "b": tokens_b}
    own = {side: placed[f"position_{side}"] for side in sides}
    for side, tokens in sides.items():
        wanted = own[side]
        if has_one_tokenizer:
            wanted = wanted.fillna(own["b" if side == "a" else "a"])
        else:
            last = tokens.drop_duplicates(["prompt_id", "end"], keep="last")
            found = placed.merge(last, on=["prompt_id", "end"], how="left")["position"]
            wanted = wanted.fillna(found.where(placed["start"] < placed["end"]).astype("Int64"))
        names = ["prompt_id", "end", "position"]
        found = placed.assign(position=wanted)[names].merge(tokens, on=names, how="left")
        placed[f"position_{side}"] = wanted.where(found["has_terms"].notna())
        placed[f"has_terms_{side}"] = found["has_terms"].eq(True)
    return placed


def difference(token: pd.Series) -> str:
    """How the uses of a token differ, in words; "" where both use it with one sign, or strongly,
    and where one of the two has not looked at it. token: a row of `with_partners`."""
    for one, other in ("ab", "ba"):
        if not token.get(f"is_strong_{other}", True):
            return f"strong only in {one.upper()}" if token[f"has_terms_{other}"] else ""
        if np.isnan(token[f"coefficient_{other}"]):
            return f"only in {one.upper()}" if token[f"has_terms_{other}"] else ""
    return "" if token["coefficient_a"] * token["coefficient_b"] > 0 else "of the other sign"
