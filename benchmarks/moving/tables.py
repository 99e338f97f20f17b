"""The tables of docs/moving.md: what each part has measured, row by row."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

NAMES = {"smollm2-135m": "SmolLM2", "minilm-l6": "MiniLM"}
Rows = Sequence[Mapping]


def _seed_tables(rows: Rows) -> list[dict]:
    cells = []
    for (shape, layer), some in _grouped(rows, lambda row: (_shape(row), row["to"]["layer"])):
        fvu = [f"{_mean(some, which, 'fvu'):.4f}" for which in ("own", "moved", "random")]
        scores = [_score(_mean(some, of, "ce_loss_score")) for of in ("own", "moved", "random")]
        told = [spread(ratios(some, which)) for which in ("moved", "random")]
        cells.append([f"{shape}, {layer}", *fvu, *told, " · ".join(scores)])
    columns = [
        "shape, layer",
        "FVU, own",
        "moved",
        "random tokens",
        "moved / own",
        "random / own",
        "CE loss score: own · moved · random",
    ]
    return [
        {
            "table": "Means over the 20 ordered pairs of seeds",
            "columns": columns,
            "rows": cells,
            "note": "",
        }
    ]


def _layer_tables(rows: Rows) -> list[dict]:
    tables = []
    for name, some in by_models(rows):
        left_out = _left_out(some)
        of_fvu = _matrix(f"{name}: FVU over that of an own dictionary", some, _ratio_cell)
        tables.append({**of_fvu, "note": left_out})
        if some[0]["moved"]["ce_loss_score"] is not None:
            tables.append(_matrix(f"{name}: CE loss score", some, _score_cell))
    return tables


def by_models(rows: Rows) -> list[tuple[str, list]]:
    """Rows by where they are from and where they go, each with a name."""
    groups = _grouped(rows, lambda row: (row["from"]["model"], row["to"]["model"]))
    return [(_names_of(*models), some) for models, some in groups]


def _names_of(origin: str, target: str) -> str:
    names = NAMES.get(origin, origin), NAMES.get(target, target)
    return f"{names[0]}, layer to layer" if origin == target else " to ".join(names)


def _matrix(title: str, rows: Rows, cell: Callable[[Mapping, str], str]) -> dict:
    """A row for each layer that was moved from, a column for each that was moved to."""
    targets = sorted({row["to"]["layer"] for row in rows})
    by_place = {(row["from"]["layer"], row["to"]["layer"]): row for row in rows}
    own = {row["to"]["layer"]: row for row in rows}
    cells = [["own (FVU)" if cell is _ratio_cell else "own"]]
    which = "fvu" if cell is _ratio_cell else "ce_loss_score"
    cells[0] += [f"{own[layer]['own'][which]:.4f}" for layer in targets]
    for origin in sorted({row["from"]["layer"] for row in rows}):
        found = [by_place.get((origin, layer)) for layer in targets]
        cells.append(
            [f"from {origin}", *("–" if row is None else cell(row, "moved") for row in found)]
        )
    random = [[row for row in rows if row["to"]["layer"] == layer] for layer in targets]
    of_random = "ratio" if cell is _ratio_cell else "ce_loss_score"
    cells.append(["random tokens"])
    digits = 3 if cell is _ratio_cell else 4
    cells[-1] += [f"{_mean(some, 'random', of_random):.{digits}f}" for some in random]
    columns = ["", *(f"layer {layer}" for layer in targets)]
    return {"table": title, "columns": columns, "rows": cells, "note": ""}


def _ratio_cell(row: Mapping, which: str) -> str:
    value, random = row[which]["ratio"], row["random"]["ratio"]
    return f"{value:.3f}" if value < random else f"**{value:.3f}**"


def _score_cell(row: Mapping, which: str) -> str:
    return _score(row[which]["ce_loss_score"])


def _left_out(rows: Rows) -> str:
    """How many latents had no token of their own, where some had none."""
    found = {row["from"]["layer"]: (row["left_out"], row["together"]) for row in rows}
    if not any(map(any, found.values())):
        return ""
    told = [f"layer {layer}: {out} and {both}" for layer, (out, both) in sorted(found.items())]
    return f"Latents left out, and latents on the token of another: from {'; from '.join(told)}."


def _noise_tables(rows: Rows) -> list[dict]:
    cells = []
    for row in rows:
        scores = [_score(row[of]["ce_loss_score"]) for of in ("own", "moved", "random")]
        cells.append(
            [
                f"{row['to']['noise']:.0%}, {row['to']['layer']}",
                *(f"{row[of]['fvu']:.4f}" for of in ("own", "moved", "random")),
                *(_with_interval(row[of]) for of in ("moved", "random")),
                " · ".join(scores),
            ]
        )
    columns = ["noise, layer", "FVU, own", "moved", "random tokens", "moved / own", "random / own"]
    columns.append("CE loss score: own · moved · random")
    title = "SmolLM2 to itself with noise, same layer"
    return [{"table": title, "columns": columns, "rows": cells, "note": ""}]


def _both_tables(rows: Rows) -> list[dict]:
    cells = []
    for (model, layers), some in _grouped(rows, _kind_of_both):
        told = [spread(ratios(some, which)) for which in ("moved", "both")]
        closed = np.mean(ratios(some, "both") < ratios(some, "moved"))
        scores = [_score(_mean(some, of, "ce_loss_score")) for of in ("own", "moved", "both")]
        cells.append([f"{model}, {layers}", *told, f"{closed:.0%}", " · ".join(scores)])
    columns = [
        "",
        "moved / own",
        "for both / own",
        "for both below moved",
        "CE loss score: own · moved · for both",
    ]
    title = "A dictionary for two, in each of the two: FVU over that of its own"
    return [{"table": title, "columns": columns, "rows": cells, "note": ""}]


def _reachable_tables(rows: Rows) -> list[dict]:
    cells = []
    for row in rows:
        origin, target = (row[side]["model"] for side in ("from", "to"))
        names = NAMES.get(origin, origin), NAMES.get(target, target)
        told = [_with_interval(row[of]) for of in ("random", "reachable")]
        place = f"{names[0]} to {names[1]}, layer {row['to']['layer']}"
        cells.append([place, f"{row['reachable_share']:.0%}", *told])
    columns = ["", "tokens at such an end", "random tokens", "random among those"]
    title = "FVU over that of an own dictionary, of tokens drawn where the other's tokens end"
    return [{"table": title, "columns": columns, "rows": cells, "note": ""}]


def _seed_of_choice_tables(rows: Rows) -> list[dict]:
    cells = []
    for row in rows:
        model, others = row["to"]["model"], [row[f"seed {k}"] for k in (1, 2, 3)]
        of_others = " · ".join(f"{of['ratio']:.3f}" for of in others)
        scores = " · ".join(_score(of["ce_loss_score"]) for of in (row["own"], *others))
        cells.append([f"{NAMES.get(model, model)}, {row['to']['layer']}", of_others, scores])
    columns = ["model, layer", "FVU of seeds 1 · 2 · 3", "CE loss score of seeds 0 · 1 · 2 · 3"]
    title = "Own dictionaries by other seeds of the choice, over the one of seed 0"
    return [{"table": title, "columns": columns, "rows": cells, "note": ""}]


def _kind_of_both(row: Mapping) -> tuple[str, str]:
    if row["to"]["model"] == row["from"]["model"]:
        return NAMES[row["to"]["model"]], "two layers"
    return _shape(row), f"layer {row['to']['layer']}"


def _grouped(rows: Rows, key: Callable[[Mapping], tuple]) -> list[tuple[tuple, list]]:
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [*groups.items()]


def _shape(row: Mapping) -> str:
    return row["to"]["model"].split("-")[1]


def ratios(rows: Rows, which: str) -> np.ndarray:
    """FVU of moved, random, … over that of own, [n_rows]."""
    return np.array([row[which]["ratio"] for row in rows])


def _mean(rows: Rows, which: str, what: str) -> float | None:
    values = [row[which][what] for row in rows]
    return None if None in values else float(np.mean(values))


def wins(rows: Rows) -> int:
    """Moves that leave less than random tokens."""
    return int((ratios(rows, "moved") < ratios(rows, "random")).sum())


def spread(values: np.ndarray) -> str:
    """Mean, smallest and largest."""
    return f"{values.mean():.3f} ({values.min():.3f} – {values.max():.3f})"


def _with_interval(of: Mapping) -> str:
    return f"{of['ratio']:.3f} ({of['low']:.3f} – {of['high']:.3f})"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


TABLES: Mapping[str, Callable[[Rows], list[dict]]] = {
    "seeds": _seed_tables,
    "layers": _layer_tables,
    "noise": _noise_tables,
    "tokenizers": _layer_tables,
    "both": _both_tables,
    "reachable": _reachable_tables,
    "other seeds": _seed_of_choice_tables,
}
"""What makes the tables of each part out of its rows"""
