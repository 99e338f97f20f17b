"""docs/moving.md and the rows of docs/claims.md, from what moving has measured."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.common.harness import as_markdown
from benchmarks.moving.tables import TABLES, Rows, by_models, ratios, spread, wins

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "moving.md"
BETWEEN_SEEDS, ACROSS_TOKENIZERS = 1.05, 1.15
"""FVU of a moved dictionary over that of an own one, at most: the goals"""
_TITLES = {
    "seeds": "Between seeds",
    "layers": "From layer to layer",
    "noise": "With noise in the weights",
    "tokenizers": "Across tokenizers",
    "both": "One dictionary for two models",
    "reachable": "What random tokens have that sources of another tokenizer lack",
    "other seeds": "How much the choice itself varies",
}
_ASIDE = ("both", "reachable", "other seeds")
"""Parts that explain the others: nothing is claimed of them"""
_COMMAND = "python -m benchmarks.moving.measure"
_BY_PART = ("cores", "date")
"""What of a machine is told with each part"""


def write(results: Mapping[str, Mapping]) -> None:
    """Write the document."""
    lines = [Path(__file__).with_name("intro.md").read_text(encoding="utf-8")]
    lines += [as_markdown(_goals(results)), "", as_markdown(_summary(results)), ""]
    for part, kept in results.items():
        lines += [f"## {_TITLES[part]}", "", _measured(kept), ""]
        for table in TABLES[part](kept["rows"]):
            lines += [as_markdown(table), ""]
        if part == "reachable" and "tokenizers" in results:
            lines += [_against_reachable(results), ""]
    lines += ["**Machine**", ""]
    newest = max((kept["machine"] for kept in results.values()), key=lambda of: of["date"])
    lines += [f"- {name}: {value}" for name, value in newest.items() if name not in _BY_PART]
    DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")


def claims(results: Mapping[str, Mapping]) -> list[dict[str, object]]:
    """Rows for docs/claims.md: the goals of a move."""
    goals = (
        ("between small models from other seeds, same layer,", "seeds", BETWEEN_SEEDS),
        ("across tokenizers, every layer to every layer,", "tokenizers", ACROSS_TOKENIZERS),
    )
    rows = [
        _claim(
            f"A dictionary moved {where} leaves at most {goal}× the FVU of one chosen there",
            [] if part not in results else results[part]["rows"],
            goal,
        )
        for where, part, goal in goals
    ]
    return [*rows, _random_claim(results)]


def _claim(title: str, rows: Rows, goal: float) -> dict[str, object]:
    if not rows:
        return {"claim": title, "command": _COMMAND, "figure": "not measured", "holds": None}
    of_moved = ratios(rows, "moved")
    within = int((of_moved <= goal).sum())
    return {
        "claim": title,
        "command": _COMMAND,
        "figure": f"{spread(of_moved)}; within it in {within} of {len(rows)} moves",
        "holds": within == len(rows),
    }


def _random_claim(results: Mapping[str, Mapping]) -> dict[str, object]:
    parts = {part: kept["rows"] for part, kept in results.items() if part not in _ASIDE}
    below = {part: wins(rows) for part, rows in parts.items()}
    return {
        "claim": "A moved dictionary leaves less than as many random tokens of the model",
        "command": _COMMAND,
        "figure": "; ".join(
            f"{_TITLES[part].lower()}: in {below[part]} of {len(rows)} moves"
            for part, rows in parts.items()
        )
        or "not measured",
        "holds": all(below[part] == len(rows) for part, rows in parts.items()) if parts else None,
    }


def _goals(results: Mapping[str, Mapping]) -> dict:
    told = {True: "met", False: "**missed**", None: "not measured"}
    cells = [[row["claim"], row["figure"], told[row["holds"]]] for row in claims(results)]
    return {"table": "Goals", "columns": ["goal", "figure", ""], "rows": cells, "note": ""}


def _summary(results: Mapping[str, Mapping]) -> dict:
    cells = []
    for part, kept in results.items():
        if part not in _ASIDE:
            cells.append(_summed(_TITLES[part], kept["rows"]))
        if part == "tokenizers":
            cells += [_summed(f"– {name}", rows) for name, rows in by_models(kept["rows"])]
    columns = [
        "",
        "moves",
        "moved",
        "random tokens",
        "moved below random",
        "CE loss score: own · moved · random",
        "moved above random",
    ]
    title = "FVU over that of a dictionary chosen in the model itself: mean (smallest – largest)"
    return {"table": title, "columns": columns, "rows": cells, "note": ""}


def _summed(title: str, rows: Rows) -> list[str]:
    judged = [row for row in rows if row["moved"]["ce_loss_score"] is not None]
    scores = {of: [row[of]["ce_loss_score"] for row in judged] for of in ("own", "moved", "random")}
    above = sum(a > b for a, b in zip(scores["moved"], scores["random"], strict=True))
    return [
        title,
        str(len(rows)),
        spread(ratios(rows, "moved")),
        spread(ratios(rows, "random")),
        f"{wins(rows)} of {len(rows)}",
        " · ".join(f"{sum(some) / len(judged):.4f}" for some in scores.values()) if judged else "–",
        f"{above} of {len(judged)}" if judged else "–",
    ]


def _measured(kept: Mapping) -> str:
    threads = kept["machine"]["cores"]
    tokens = sorted({row["held_out_tokens"] for row in kept["rows"] if "held_out_tokens" in row})
    held_out = f"FVU on {' to '.join(f'{n:,}' for n in _ends(tokens))} held-out tokens. "
    date = f"Measured on {kept['machine']['date']}"
    return f"{held_out if tokens else ''}{date}, threads of the CPU: {threads}."


def _ends(values: list[int]) -> list[int]:
    return values if len(values) < 2 else [values[0], values[-1]]


def _against_reachable(results: Mapping[str, Mapping]) -> str:
    """Moves across tokenizers against random tokens that the other model could have had."""
    known = {
        (row["from"]["model"], *row["to"].values()): row["reachable"]["ratio"]
        for row in results["reachable"]["rows"]
    }
    rows = results["tokenizers"]["rows"]
    told = []
    for name, some in by_models(rows):
        there = [known[row["from"]["model"], *row["to"].values()] for row in some]
        below = sum(a < b for a, b in zip(ratios(some, "moved"), there, strict=True))
        told.append(f"{name} in {below} of {len(some)} moves")
    return f"Moved dictionaries leave less than random tokens among those: {'; '.join(told)}."
