"""docs/matching.md and its pictures, from what layer_matching measured."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.common.harness import as_markdown

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "matching.md"
PICTURES = DOCUMENT.parent / "pictures"
_PARTS = "Parts: "
_DRAWN = (
    "Source resemblance",
    "Jaccard index, coverage",
    "Jaccard index, published greedy choice",
    "CKA",
    "Relative representations",
    "Mutual nearest neighbours",
    "Procrustes",
    "SVCCA",
)


def write(results: dict) -> None:
    """Write the document, and a picture for each shape and number of tokens."""
    lines = [Path(__file__).with_name("intro.md").read_text(encoding="utf-8")]
    for shape, tokens in dict.fromkeys((r["shape"], r["tokens"]) for r in _ordered(results)):
        some = [r for r in results["seeds"] if (r["shape"], r["tokens"]) == (shape, tokens)]
        lines += [f"## {_named(shape)}, {tokens:,} tokens", "", as_markdown(_table(some)), ""]
        name = f"layer-matching-{shape}-{tokens}.svg"
        _draw(some, PICTURES / name)
        about = "Mean value of each measure by layer, over pairs of models"
        lines += [f"![{about}](pictures/{name})", ""]
    if results["noise"]:
        lines += ["## SmolLM2 against itself with noise in its weights", ""]
        lines += [as_markdown(_noise_table(results["noise"])), ""]
    lines += ["**Machine**", ""]
    lines += [f"- {name}: {value}" for name, value in results["machine"].items()]
    DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")


def best(rows: Sequence[dict]) -> list[dict]:
    """Of each measure the setting that matches most layers right, best measure first."""
    found: dict[str, dict] = {}
    for row in rows:
        known = found.get(row["measure"])
        if known is None or row["share"] > known["share"]:
            found[row["measure"]] = row
    return sorted(found.values(), key=lambda row: (-row["share"], row["distance"]))


def claims(results: dict) -> list[dict[str, object]]:
    """Rows for docs/claims.md: the paper's claim by two choices of atoms, then that of source
    resemblance."""
    places = dict.fromkeys((r["shape"], r["tokens"]) for r in _ordered(results))
    told = {
        "The Jaccard index of the published choice": "Jaccard index, published greedy choice",
        "The Jaccard index of the coverage": "Jaccard index, coverage",
        "Source resemblance, the explorer's own measure,": "Source resemblance",
    }
    return [
        _claim(title, [_against(results, place, measure) for place in places])
        for title, measure in told.items()
    ]


def _claim(title: str, found: Sequence[tuple[str, bool] | None]) -> dict[str, object]:
    known = [one for one in found if one]
    return {
        "claim": f"{title} matches more layers of models from other seeds right than every peer "
        "measure in its best setting, or all of them as the best peer does",
        "command": "python -m benchmarks.layer_matching.measure",
        "figure": "; ".join(figure for figure, _ in known),
        "holds": all(holds for _, holds in known) if known else None,
    }


def _against(results: dict, place: tuple, measure: str) -> tuple[str, bool] | None:
    rows = best([r for r in results["seeds"] if (r["shape"], r["tokens"]) == place])
    ours = [row for row in rows if row["measure"] == measure]
    peers = [row for row in rows if _is_peer(row)]
    if not ours or not peers:
        return None
    holds = ours[0]["share"] > peers[0]["share"] or ours[0]["share"] == 1
    figure = (
        f"{place[0]}, {place[1]:,} tokens: {ours[0]['share']:.3f} against "
        f"{peers[0]['share']:.3f} ({peers[0]['measure']})"
    )
    return figure, holds


def _is_peer(row: dict) -> bool:
    is_jaccard = row["measure"].startswith("Jaccard")
    return not (row["is_ours"] or is_jaccard or row["measure"].startswith(_PARTS))


def _ordered(results: dict) -> list[dict]:
    return sorted(results["seeds"], key=lambda r: (len(r["shape"]), r["shape"], r["tokens"]))


def _named(shape: str) -> str:
    layers, width = shape.split("x")
    return f"{layers} layers of width {width}"


def _table(rows: Sequence[dict]) -> dict:
    cells = [
        [
            f"**{row['measure']}**" if row["is_ours"] else row["measure"],
            row["setting"] or "–",
            f"{row['share']:.3f}",
            f"{row['low']:.3f} – {row['high']:.3f}",
            f"{row['distance']:.2f}",
            f"{row['seconds']:.1f}",
        ]
        for row in best(rows)
    ]
    columns = ["measure", "best setting", "layers matched right", "95 %", "layers off", "seconds"]
    return {"table": "Layers matched right", "columns": columns, "rows": cells, "note": ""}


def _noise_table(rows: Sequence[dict]) -> dict:
    shares = sorted({row["noise"] for row in rows})
    by_share = {share: {r["measure"]: r for r in best(_at(rows, share))} for share in shares}
    names = dict.fromkeys(row["measure"] for row in rows)
    cells = []
    for name in names:
        found = [by_share[share][name] for share in shares]
        diagonals = [float(np.diag(row["matrix"]).mean()) for row in found]
        is_graded = all(a > b for a, b in itertools.pairwise(diagonals))
        right = [f"{r['share']:.2f} · {d:.2f}" for r, d in zip(found, diagonals, strict=True)]
        cells.append([name, *right, "yes" if is_graded else "no"])
    columns = ["measure", *(f"{share:.0%}" for share in shares), "falls with the noise"]
    title = "Layers matched right · mean value of a layer with itself, by noise"
    return {"table": title, "columns": columns, "rows": cells, "note": ""}


def _at(rows: Sequence[dict], share: float) -> list[dict]:
    return [row for row in rows if row["noise"] == share]


def _draw(rows: Sequence[dict], path: Path) -> None:
    """The mean matrix of each measure, in its own range, best matches of the rows marked."""
    matplotlib.rcParams["svg.hashsalt"] = "the same picture for the same figures"
    found = {row["measure"]: row for row in best(rows)}
    kept = [found[name] for name in _DRAWN if name in found]
    figure, panels = pyplot.subplots(2, -(-len(kept) // 2), figsize=(12, 6), layout="constrained")
    for axes in panels.flat[len(kept) :]:
        axes.set_visible(False)
    for row, axes in zip(kept, panels.flat, strict=False):
        matrix = np.array(row["matrix"])
        image = axes.imshow(matrix, cmap="viridis")
        axes.plot(matrix.argmax(1), range(len(matrix)), "o", color="white", markersize=4)
        axes.set_title(f"{row['measure']}\n{row['share']:.0%} right", fontsize="small")
        axes.set(xlabel="layer of B", ylabel="layer of A")
        figure.colorbar(image, ax=axes, shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
