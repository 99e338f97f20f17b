"""What the curves of a dictionary are drawn beside: components and autoencoders."""

from collections.abc import Sequence
from typing import Any

from itda_core.evaluation.autoencoders import Autoencoder, topk_autoencoders
from itda_core.evaluation.pca import MAX_WIDTH
from itda_core.runs.run import Run
from pages.components.charts.evaluation import Reference

_GREY = "Grey is for the dictionary that is looked at."
_PCA = (
    "PCA: as many principal components of the evaluated tokens as a token uses terms; no set of as "
    "many directions that all tokens share leaves less."
)
_NO_PCA = (
    "No line of PCA: evaluated by an earlier version, or with more than "
    f"{MAX_WIDTH:,} dimensions (d_model)."
)
_TOPK = (
    "Crosses: TopK autoencoders that were trained on tokens of the same corpus and measured on "
    "8,192 of its held-out ones (docs/comparison.md)."
)


def about(evaluation: dict[str, Any], autoencoders: Sequence[Autoencoder]) -> str:
    """What the grey lines and crosses are, and why there is none of PCA."""
    has_pca = bool(evaluation.get("pca"))
    parts = [_GREY] if has_pca or autoencoders else []
    parts += [_PCA if has_pca else _NO_PCA, *([_TOPK] if autoencoders else [])]
    return " ".join(parts)


def autoencoders_of(run: Run, evaluation: dict[str, Any]) -> list[Autoencoder]:
    """The TopK autoencoders that an evaluation of a run can be read against."""
    model = run.config.model.name
    return topk_autoencoders(model, run.layer, run.site, evaluation["measured_on"])


def references(
    measure: str, evaluation: dict[str, Any], autoencoders: Sequence[Autoencoder], name: str
) -> list[Reference]:
    """What to draw for a measure: "fvu", "fvu_without_massive" or "ce_loss_score". name: of the
    dictionary."""
    found = []
    pca = evaluation.get("pca", {}).get(measure, [])[1:]
    if pca:
        hovers = [f"PCA, {k} component{'s' if k > 1 else ''}" for k in range(1, len(pca) + 1)]
        found.append(Reference(f"PCA, for {name}", [*range(1, len(pca) + 1)], pca, hovers, "dash"))
    points = [(one, getattr(one, measure)) for one in autoencoders]
    points = [(one, value) for one, value in points if value is not None]
    if points:
        hovers = [_said(one) for one, _ in points]
        values = [value for _, value in points]
        title = f"TopK autoencoders, for {name}"
        found.append(Reference(title, [one.l0 for one, _ in points], values, hovers, ""))
    return found


def _said(one: Autoencoder) -> str:
    mean = f", mean of {one.seeds} seeds" if one.seeds > 1 else ""
    return f"TopK autoencoder, {one.latents:,} latents, {one.tokens:,} tokens of {one.corpus}{mean}"
