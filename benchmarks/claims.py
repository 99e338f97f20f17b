"""docs/claims.md: each claim of the paper and of this project, its figure, and whether it holds.

.venv/bin/python -m benchmarks.claims
.venv/bin/python -m benchmarks.claims --only moving    its rows alone; the others stay as they are
.venv/bin/python -m benchmarks.claims --only interpretability

The figures come from the results of the benchmarks that `make claims` has run before, and from the
curves that ship in benchmarks/curves.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import method
from benchmarks.common.harness import as_markdown, machine, results_of
from benchmarks.interpretability import measure as interpretability
from benchmarks.layer_matching import measure as layer_matching
from benchmarks.layer_matching import report as matching_report
from benchmarks.moving import measure as moving
from benchmarks.moving import report as moving_report
from benchmarks.versus_sae import report as itda_vs_sae

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "claims.md"
_OPEN = "not measured"
_PAPER, _OURS = "The paper's claims", "This project's claims"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = {"moving": moves, "interpretability": interpretability.claims}
    parser.add_argument("--only", choices=[*parts], help="rows that are written anew")
    only = parser.parse_args().only
    known = DOCUMENT.read_text(encoding="utf-8") if only else ""
    text = with_rows(known, parts[only]()) if only else whole()
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")


def whole() -> str:
    """The document, every row anew."""
    lines = [_intro()]
    for title, rows in ((_PAPER, paper()), (_OURS, ours())):
        lines += [_table(title, rows), ""]
    lines += ["**Machine**", "", *[f"- {name}: {value}" for name, value in machine().items()], ""]
    return "\n".join(lines)


def with_rows(text: str, rows: Sequence[dict[str, object]]) -> str:
    """A document with a new introduction and these rows at the end of its last table, in place of
    those of the same claims. Its other rows, and its machine, stay."""
    tables = text[text.index(f"**{_PAPER}**") :]
    begins = tuple(f"| {row['claim']} |" for row in rows)
    kept = [line for line in tables.split("\n") if not line.startswith(begins)]
    end = kept.index("**Machine**") - 1
    new = _table(_OURS, rows).split("\n")[-len(rows) :]
    return "\n".join([_intro(), *kept[:end], *new, *kept[end:]])


def paper() -> list[dict[str, object]]:
    """What arXiv 2505.17769 claims and concedes."""
    comparison = {row["claim"]: row for row in itda_vs_sae.claims()}
    return [
        *_those("1 % of an autoencoder's time and data", comparison, "With 1 % of the tokens"),
        {
            "claim": "Models of any size on one consumer GPU",
            "command": "make bench",
            "figure": "no GPU was at hand; what a training needs beyond the model: "
            + _target("training", "Peak memory beyond the model"),
            "holds": None,
        },
        *matching_report.claims(layer_matching.results())[:-1],
        *_those(
            "Conceded by the paper: reconstruction is worse than an autoencoder's at the same L0. "
            "Overcome here",
            comparison,
            "At the same",
        ),
    ]


def ours() -> list[dict[str, object]]:
    """What this project sets out to do."""
    comparison = [row for row in itda_vs_sae.claims() if "published greedy" in row["claim"]]
    costs = [
        {
            "claim": f"Choosing the atoms of {which} costs at most a quarter of the forward pass",
            "command": "python -m benchmarks.speed.training --choice",
            "figure": _target("choice", f"Choosing the atoms of {which}"),
            "holds": _is_met("choice", f"Choosing the atoms of {which}"),
        }
        for which in ("one layer", "three layers")
    ]
    resemblance = matching_report.claims(layer_matching.results())[-1]
    others = [*costs, *interpretability.claims(), resemblance]
    return [*comparison, *method.claims(), *others, *moves()]


def moves() -> list[dict[str, object]]:
    """What a moved dictionary is held to."""
    return moving_report.claims(moving.results())


def _intro() -> str:
    return Path(__file__).with_name("claims_intro.md").read_text(encoding="utf-8")


def _table(title: str, rows: Sequence[dict[str, object]]) -> str:
    columns = ["claim", "figure", "", "command"]
    cells = [_row(row) for row in rows]
    return as_markdown({"table": title, "columns": columns, "rows": cells, "note": ""})


def _those(title: str, rows: dict[str, dict], part: str) -> list[dict[str, object]]:
    """The rows whose claim has a part, under a title of the paper's own."""
    found = [row for claim, row in rows.items() if part in claim]
    return [{**row, "claim": f"{title}. {row['claim']}"} for row in found]


def _row(row: dict[str, object]) -> list[str]:
    holds = {True: "holds", False: "**does not hold**", None: _OPEN}[row["holds"]]
    command = f"`{row['command']}`" if row["command"] else ""
    return [str(row["claim"]), str(row["figure"]), holds, command]


def _target(name: str, what: str) -> str:
    return _of_target(name, what, lambda block: f"{block['measured']} (wanted: {block['wanted']})")


def _is_met(name: str, what: str) -> bool | None:
    return _of_target(name, what, lambda block: block["met"], None)


def _of_target(name: str, what: str, tell: Callable, otherwise=_OPEN):
    try:
        blocks = results_of(name)["blocks"]
    except FileNotFoundError:
        return otherwise
    found = [block for block in blocks if what in block.get("target", "")]
    return tell(found[0]) if found else otherwise


if __name__ == "__main__":
    main()
