"""What an evaluation's numbers say in a sentence. Pure functions: nothing is said that is not a
number of the evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from itda_core.evaluation.autoencoders import Autoencoder

NOT_KEPT = (
    "Evaluated by an earlier version, which kept no cross-entropies: evaluate it again to have "
    "them in nats."
)
MEDIAN_MEANS = (
    "The variance is a sum of squares, most of which a few tokens with a large norm can hold. What "
    "is left on half of the tokens, the median token's share, is that of an ordinary token."
)


def verdict(row: Mapping[str, Any], without_massive: bool) -> str:
    """What one L0 of a dictionary leaves and costs. row: of `Store.runs.evaluations`."""
    return f"At L0 {row['l0']} it {says(row, without_massive)}"


def says(row: Mapping[str, Any], without_massive: bool) -> str:
    """The same, without the L0: "leaves …"."""
    fvu = row["fvu_without_massive" if without_massive else "fvu"]
    about = " but for massive activations" if without_massive and row["massive_tokens"] else ""
    left = f"leaves {_percent(fvu)} of the variance unexplained{about}"
    if not _is_missing(row["median_unexplained"]):
        left += f", {_percent(row['median_unexplained'])} or less on half of the tokens,"
    if _is_missing(row["cross_entropy"]):
        return f"{left.removesuffix(',')}."
    return f"{left} and {_cost(row)}."


def _cost(row: Mapping[str, Any]) -> str:
    model, zeros = row["model_cross_entropy"], row["zeros_cross_entropy"]
    cost = row["cross_entropy"] - model
    if abs(cost) < 0.005:
        change = "changes the model's cross-entropy by less than 0.01 nats"
    elif cost > 0:
        change = f"costs the model {cost:.2f} nats"
    else:
        change = f"spares the model {-cost:.2f} nats"
    of = f" of {model:.2f} a prediction"
    if cost <= -0.005:
        tokens = int(row["tokens"])
        return (
            f"{change}{of}, a CE loss score above 1: on {tokens:,} tokens that may be chance, or "
            "these texts are like those that the dictionary was chosen from, and what it leaves "
            "out had misled the model"
        )
    zeros_cost = zeros - model
    if zeros_cost <= 0:  # then there is nothing that a share could be of
        return f"{change}{of}"
    return f"{change}{of}, {_percent(cost / zeros_cost)} of the {zeros_cost:.2f} that zeros cost"


def beside(
    l0: int, mean_l0: float, pca: Sequence[float], autoencoders: Sequence[Autoencoder], fvu: str
) -> str:
    """What others leave of the variance; empty where nothing is known. pca: FVU by number of
    components; autoencoders: by tokens; fvu: which FVU of theirs."""
    parts = []
    components = _components(l0, mean_l0)
    if components < len(pca):
        many = "principal component" + ("s" if components > 1 else "")
        are = "are" if components > 1 else "is"
        parts.append(
            f"{components} {many}, which {are} fitted to these very tokens, "
            f"leave{'' if components > 1 else 's'} {_percent(pca[components])}"
        )
    same = [one for one in autoencoders if one.l0 == components]
    if same:
        left = _in_words([_percent(getattr(one, fvu)) for one in same])
        tokens = _in_words([f"{one.tokens:,}" for one in same])
        parts.append(
            f"a TopK autoencoder with {same[0].latents:,} latents and L0 {same[0].l0} leaves {left}"
            f" where it was trained on {tokens} tokens of {same[0].corpus}"
        )
    return "; ".join(parts) + "." if parts else ""


def on_different_texts(evaluations: pd.DataFrame) -> str:
    """A sentence where dictionaries were measured on different texts, or on other numbers of their
    tokens, which names them by that; else empty. evaluations: of `Store.runs.evaluations`, with
    `dictionary`."""
    each = evaluations.drop_duplicates("run_id")
    groups = each.groupby(["corpus", "held_out", "tokens"], sort=False)["dictionary"].agg(list)
    if len(groups) < 2:
        return ""
    parts = [
        f"{_in_words(names)} on {tokens:,} {'held-out ' if held_out else ''}tokens of {corpus}"
        for (corpus, held_out, tokens), names in groups.items()
    ]
    return f"Measured on different tokens, and so not to be compared: {'; '.join(parts)}."


def _components(l0: int, mean_l0: float) -> int:
    """As many as the terms that a token really uses, rounded up."""
    return l0 if _is_missing(mean_l0) else max(1, min(l0, math.ceil(mean_l0 - 1e-6)))


def _in_words(words: Sequence[str]) -> str:
    """Such as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def quick_note(tokens: int) -> str:
    """What has to be known of a quick run's numbers."""
    return (
        f"A quick run: {tokens:,} tokens and few L0s. A full evaluation, which Evaluate again "
        "makes, reads more of them and gives other numbers."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _is_missing(value: Any) -> bool:
    return value is None or math.isnan(value)
