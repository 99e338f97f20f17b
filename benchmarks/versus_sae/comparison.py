"""What the curves of dictionaries and autoencoders say: rows of tables, nothing run or drawn.

A *record* is one training: its method, model, layer, distinct tokens, seed, and its points, the
best of which counts (for an autoencoder by the FVU on validation tokens: early stopping).
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.versus_sae import pace
from benchmarks.versus_sae.sae_grid import BUDGETS, SMOLLM2, best_point

SAE_NAMES = {"topk": "TopK SAE", "batchtopk": "BatchTopK SAE"}
MEASURES = {"fvu": "FVU", "ce_loss_score": "CE loss score"}
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % quantiles of Student's t, by number of values"""


@dataclass(frozen=True)
class Record:
    """One training."""

    method: str
    model: str
    layer: int
    tokens: int
    """Distinct tokens, the budget"""
    seed: int
    points: tuple[dict, ...]
    """seconds, tokens, distinct, fvu, fvu_all, l0, unused, and at some ce_loss_score and kl"""
    is_sae: bool
    lr: float = 0.0
    epochs: float = 1.0

    @property
    def best(self) -> dict:
        return best_point({"points": self.points})

    @property
    def budget(self) -> str:
        return next((name for name, tokens in BUDGETS.items() if tokens == self.tokens), "")


def records(folder: Path) -> list[Record]:
    """Every training of the comparison whose file is there; sweeps are left out."""
    files = sorted(folder.glob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    measured = pace.read(folder)
    return [_record(one, measured) for one in found if one.get("purpose") in ("curve", "itda")]


def _record(found: dict, measured: dict | None) -> Record:
    where = found["model"], found["layer"]
    if found["purpose"] == "itda":
        name, points = itda_name(found["selection"], found["pursuit"]), tuple(found["points"])
        return Record(name, *where, found["tokens"], found["seed"], points, is_sae=False)
    used = found["settings"]
    points = pace.paced(found["points"], found["model"], used["variant"], measured)
    # Tokens of massive activations are left out, so the budget is a few tokens more.
    tokens = found["distinct_tokens"] + (0 if found["with_massive"] else found["massive_tokens"])
    name, lr, epochs = SAE_NAMES[used["variant"]], used["lr"], used["epochs"]
    return Record(name, *where, tokens, used["seed"], points, True, lr, epochs)


def itda_name(selection: str, pursuit: str) -> str:
    """How a kind of dictionary is called in tables."""
    return f"ITDA, {selection}, {pursuit}"


def chosen(every: Sequence[Record]) -> list[Record]:
    """One record for each method, layer, budget and seed: where several settings were tried, the
    one with the lowest FVU on validation tokens."""
    kept: dict[tuple, Record] = {}
    for record in every:
        place = record.method, record.model, record.layer, record.tokens, record.seed
        other = kept.get(place)
        if other is None or _validated(record) < _validated(other):
            kept[place] = record
    return list(kept.values())


def _validated(record: Record) -> float:
    return record.best.get("validation_fvu", 0.0)


def groups(every: Sequence[Record]) -> Iterator[tuple[tuple[str, int, int, str], list[Record]]]:
    """((model, layer, tokens, method), the seeds' records), in the order of a table."""
    places = {(r.model, r.layer, r.tokens, r.method) for r in every}
    for place in sorted(places, key=lambda p: (p[0] != SMOLLM2, *p[1:])):
        yield place, [r for r in every if (r.model, r.layer, r.tokens, r.method) == place]


def with_interval(values: Sequence[float], digits: int = 4) -> str:
    """Mean ± half of the 95 % interval by Student's t; the mean alone of one value."""
    middle = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2:
        return middle
    half = _STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{middle} ± {half:.{digits}f}"


def table(every: Sequence[Record]) -> list[dict[str, object]]:
    """One row for each layer, method and budget."""
    return [_row(place, some) for place, some in groups(chosen(every))]


def _row(place: tuple[str, int, int, str], some: Sequence[Record]) -> dict[str, object]:
    model, layer, tokens, method = place
    best = [record.best for record in some]

    def shown(measure: str, digits: int = 4) -> str:
        values = [point[measure] for point in best if measure in point]
        return with_interval(values, digits) if values else "–"

    return {
        "model, layer": f"{model}, {layer}", "tokens": f"{tokens:,}", "method": method,
        "FVU": shown("fvu"), "with massive": shown("fvu_all"),
        "CE loss score": shown("ce_loss_score"), "KL, nats": shown("kl"),
        "L0": shown("l0", 1), "unused": shown("unused", 3), "CPU seconds": shown("seconds", 2),
        "passes": shown_passes(some), "seeds": len(some),
    }  # fmt: skip


def shown_passes(some: Sequence[Record]) -> str:
    """Passes over the distinct tokens until the best checkpoint."""
    return f"{statistics.fmean(r.best['tokens'] / r.tokens for r in some):.1f}"


def first_reaching(
    points: Sequence[dict], measure: str, wanted: float
) -> tuple[float, float] | None:
    """Seconds and distinct tokens at which a curve is first as good as `wanted`; None for never.

    Between two checkpoints the seconds are read off the line through both, seconds on a
    logarithmic scale; distinct tokens are those of the later one.
    """
    sign = -1 if measure == "fvu" else 1
    before = None
    for point in points:
        if measure not in point:
            continue
        if sign * point[measure] >= sign * wanted:
            return _between(before, point, measure, wanted), point["distinct"]
        before = point
    return None


def _between(before: dict | None, after: dict, measure: str, wanted: float) -> float:
    if before is None:
        return after["seconds"]
    share = (wanted - before[measure]) / (after[measure] - before[measure])
    return before["seconds"] * (after["seconds"] / before["seconds"]) ** share


def reached(every: Sequence[Record], itda: str) -> list[dict[str, object]]:
    """Where each autoencoder's curves reach the quality of the dictionaries `itda`: a row for each
    layer and budget of the dictionaries, measure and variant; the quickest curve and the one with
    the fewest distinct tokens count."""
    rows = []
    for (model, layer, tokens, method), some in groups(chosen(every)):
        if method != itda:
            continue
        for measure, title in MEASURES.items():
            values = [r.best[measure] for r in some if measure in r.best]
            if not values:
                continue
            wanted, seconds = (
                statistics.fmean(values),
                statistics.fmean(r.best["seconds"] for r in some),
            )
            for sae in SAE_NAMES.values():
                curves = [r for r in every if (r.method, r.model, r.layer) == (sae, model, layer)]
                if curves:
                    rows.append({
                        "model, layer": f"{model}, {layer}", "ITDA's tokens": f"{tokens:,}",
                        "measure": title, "ITDA": f"{wanted:.4f}", "against": sae,
                        **_factors(curves, measure, wanted, seconds, tokens),
                    })  # fmt: skip
    return rows


def _factors(curves, measure: str, wanted: float, seconds: float, tokens: int) -> dict[str, str]:
    found = [first_reaching(curve.points, measure, wanted) for curve in curves]
    found = [place for place in found if place]
    ends = [curve.best[measure] for curve in curves if measure in curve.best]
    best = min(ends) if measure == "fvu" else max(ends)
    return {
        "its best": f"{best:.4f}",
        "time": f"{min(s for s, _ in found) / seconds:,.1f}×" if found else "never",
        "tokens": f"{min(t for _, t in found) / tokens:,.2f}×" if found else "never",
    }


@dataclass(frozen=True)
class Goal:
    """A claim with its figure."""

    claim: str
    figure: str
    holds: bool


def goals(every: Sequence[Record], ours: str, published: str) -> list[Goal]:
    """The three goals, as far as there are records to judge them; a goal without any is left
    out."""
    means = {place: _means(some) for place, some in groups(chosen(every))}
    made = [
        *_same_tokens(means, ours),
        _hundredth(means, ours),
        _against_published(means, ours, published),
    ]
    return [goal for goal in made if goal]


def _means(some: Sequence[Record]) -> dict[str, float]:
    best = [record.best for record in some]
    names = ("fvu", "ce_loss_score", "seconds")
    return {
        name: statistics.fmean(point[name] for point in best if name in point)
        for name in names
        if any(name in point for point in best)
    }


def _pairs(means: dict, ours: str, ours_tokens: int, sae_tokens: int) -> Iterator[tuple]:
    """(layer, our means, each autoencoder's means) of SmolLM2's layers."""
    layers = sorted({layer for model, layer, *_ in means if model == SMOLLM2})
    for layer in layers:
        mine = means.get((SMOLLM2, layer, ours_tokens, ours))
        places = [(SMOLLM2, layer, sae_tokens, name) for name in SAE_NAMES.values()]
        theirs = [means[place] for place in places if place in means]
        if mine and theirs:
            yield layer, mine, theirs


def _same_tokens(means: dict, ours: str) -> Iterator[Goal]:
    for budget, tokens in BUDGETS.items():
        found = list(_pairs(means, ours, tokens, tokens))
        if not found:
            continue
        figures, holds = [], True
        for layer, mine, theirs in found:
            fvu = min(sae["fvu"] for sae in theirs)
            score = max(sae["ce_loss_score"] for sae in theirs)
            holds &= mine["fvu"] < fvu and mine["ce_loss_score"] > score
            figures.append(
                f"layer {layer}: FVU {mine['fvu']:.3f} against {fvu:.3f}, "
                f"CE loss score {mine['ce_loss_score']:.4f} against {score:.4f}"
            )
        yield Goal(
            f"At the same {tokens:,} tokens ({budget}) FVU and CE loss score are better than those "
            "of every autoencoder",
            "; ".join(figures),
            bool(holds),
        )


def _hundredth(means: dict, ours: str) -> Goal | None:
    few, many = BUDGETS["1×"], BUDGETS["100×"]
    figures, holds = [], True
    for layer, mine, theirs in _pairs(means, ours, few, many):
        best = max(theirs, key=lambda sae: sae["ce_loss_score"])
        behind = best["ce_loss_score"] - mine["ce_loss_score"]
        time = mine["seconds"] / best["seconds"]
        holds &= behind <= 0.01 and time <= 0.01
        ahead = [
            f"{tokens / many:.0%}"
            for tokens in sorted(BUDGETS.values())
            if means.get((SMOLLM2, layer, tokens, ours), {}).get("ce_loss_score", -math.inf)
            > best["ce_loss_score"]
        ]
        figures.append(
            f"layer {layer}: {100 * behind:+.2f} points behind at {time:.2%} of the time, "
            + (f"ahead from {ahead[0]} of the tokens on" if ahead else "never ahead")
        )
    if not figures:
        return None
    claim = (
        f"With 1 % of the tokens ({few:,} of {many:,}) and 1 % of the CPU time the CE loss score "
        "is within 1 point of the best autoencoder's"
    )
    return Goal(claim, "; ".join(figures), bool(holds))


def _against_published(means: dict, ours: str, published: str) -> Goal | None:
    figures, ratios = [], []
    for (model, layer, tokens, method), mine in means.items():
        other = means.get((model, layer, tokens, published))
        if method == ours and other and model == SMOLLM2:
            ratios.append(mine["fvu"] / other["fvu"])
            figures.append(f"layer {layer}, {tokens:,} tokens: {ratios[-1]:.2f}×")
    if not ratios or ours == published:
        return None
    claim = "FVU is at most 0.70× that of the published greedy method at equal atoms, L0 and data"
    return Goal(claim, "; ".join(figures), max(ratios) <= 0.70)
