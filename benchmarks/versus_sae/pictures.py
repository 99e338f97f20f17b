"""Pictures of the comparison: quality against time, and against distinct tokens."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.versus_sae.comparison import MEASURES, SAE_NAMES, Record, chosen, groups

_DASHES = {"1×": ":", "10×": "--", "100×": "-"}
_MARKS = {"1×": "v", "10×": "s", "100×": "*"}


def draw(every: Sequence[Record], folder: Path) -> Iterator[tuple[str, str]]:
    """Write the pictures; gives each one's title and file name."""
    matplotlib.rcParams["svg.hashsalt"] = "the same picture for the same figures"
    kept = chosen(every)
    for model, layer in dict.fromkeys((place[0], place[1]) for place, _ in groups(kept)):
        some = [r for r in kept if (r.model, r.layer) == (model, layer)]
        for name, plot, unit in (
            ("time", _against_time, "CPU seconds of training"),
            ("tokens", _against_tokens, "distinct tokens"),
        ):
            file = f"itda-vs-sae-{model}-{layer}-{name}.svg"
            _draw_measures(some, plot, unit, folder / file)
            yield f"{model}, layer {layer}: quality against {unit}", file


def _draw_measures(some: Sequence[Record], plot, unit: str, path: Path) -> None:
    measures = [m for m in MEASURES if any(m in point for r in some for point in r.points)]
    size = (4.2 * len(measures) + 2.4, 3.6)
    figure, panels = pyplot.subplots(1, len(measures), figsize=size, layout="constrained")
    for measure, axes in zip(measures, panels if len(measures) > 1 else [panels], strict=True):
        plot(axes, some, measure)
        axes.set(xscale="log", xlabel=unit, ylabel=MEASURES[measure])
        axes.grid(alpha=0.3)
    _fit(panels[1] if len(measures) > 1 else None, some)
    labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        labels.values(), labels.keys(), loc="outside right center", fontsize="small", frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _colours(some: Sequence[Record]) -> dict[str, str]:
    """The same colour for a method in every picture."""
    methods = dict.fromkeys([*SAE_NAMES.values(), *sorted({r.method for r in some})])
    return {method: f"C{number}" for number, method in enumerate(methods)}


def _fit(axes, some: Sequence[Record]) -> None:
    """CE loss scores of the first steps are far below all others: cut them off."""
    if axes is None:
        return
    ends = [r.best["ce_loss_score"] for r in some if "ce_loss_score" in r.best]
    if ends:
        axes.set_ylim(bottom=min(ends) - 0.5 * (1 - min(ends)), top=1.0)


def _against_time(axes, some: Sequence[Record], measure: str) -> None:
    colours = _colours(some)
    for record in some:
        if record.seed:  # one line for each method and budget is enough
            continue
        points = [point for point in record.points if measure in point]
        x, y = [p["seconds"] for p in points], [p[measure] for p in points]
        colour = colours[record.method]
        label = f"{record.method}, {record.tokens:,}"
        if record.is_sae:
            axes.plot(x, y, _DASHES.get(record.budget, "-"), color=colour, label=label)
        else:
            mark = _MARKS.get(record.budget, "o")
            axes.plot(x, y, mark, color=colour, label=label, markersize=9)


def _against_tokens(axes, some: Sequence[Record], measure: str) -> None:
    for method, colour in _colours(some).items():
        points = []
        for (_, _, tokens, name), seeds in groups(some):
            values = [r.best[measure] for r in seeds if measure in r.best]
            if name == method and values:
                points.append((tokens, statistics.fmean(values), min(values), max(values)))
        if points:
            x, y, low, high = zip(*sorted(points), strict=True)
            axes.plot(x, y, marker="o", color=colour, label=method)
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
