"""What the benchmarks share: measuring in turn, and a report of tables, plots and targets.

Wall-clock figures drift on shared machines, so what is compared is measured alternately in one
process (A B A B …) and reported as ratios of the same round: min–median–max.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

RESULTS = Path(__file__).resolve().parents[1] / "results"
ROUNDS = 5
_PACKAGES = ("torch", "numpy", "numba", "transformers", "duckdb", "streamlit", "scikit-learn")


@dataclass(frozen=True)
class Spread:
    """Values of several rounds: seconds, or ratios of seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __truediv__(self, other: "Spread") -> "Spread":
        """Ratios round by round."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def per(self, amount: float) -> "Spread":
        """`amount` things took these seconds: things a second."""
        return Spread(tuple(amount / value for value in self.values))

    def times(self, factor: float) -> "Spread":
        return Spread(tuple(value * factor for value in self.values))

    def __str__(self) -> str:
        low, middle, high = (number(f(self.values)) for f in (min, statistics.median, max))
        return f"{low} – **{middle}** – {high}"


def in_turn(
    contenders: Mapping[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, Spread]:
    """Seconds of each contender, measured alternately; one round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - started)
    return {name: Spread(tuple(values)) for name, values in seconds.items()}


def number(value: float) -> str:
    """Three significant digits, with thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


@dataclass
class Report:
    """The results of one benchmark; printed as it grows, saved as JSON."""

    name: str
    title: str
    about: str
    blocks: list[dict] = field(default_factory=list)

    def table(self, title: str, rows: Sequence[Mapping[str, object]], note: str = "") -> None:
        """rows: one mapping from column to value for each line; all have the same columns."""
        cells = [[_cell(value) for value in row.values()] for row in rows]
        block = {"table": title, "columns": list(rows[0]), "rows": cells, "note": note}
        self.blocks.append(block)
        print(f"\n{as_markdown(block)}", flush=True)

    def plot(self, title: str, x: str, y: str, series: Mapping[str, Mapping[float, float]]) -> None:
        """Growth on logarithmic axes; series: {name: {x: y}}."""
        lines = {name: [[*map(float, point)] for point in s.items()] for name, s in series.items()}
        self.blocks.append({"plot": title, "x": x, "y": y, "series": lines})

    def target(self, what: str, wanted: str, measured: Spread | float, met: bool) -> None:
        """One line of the list of targets; `met` is decided where the limit is known."""
        block = {"target": what, "wanted": wanted, "measured": _cell(measured), "met": bool(met)}
        self.blocks.append(block)
        print(f"{'met' if met else 'MISSED'}: {what}: {block['measured']} ({wanted})", flush=True)

    def save(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps({**asdict(self), "machine": machine()}, indent=1))
        return path


def results_of(name: str) -> dict:
    """What the newest run of a benchmark has saved."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def as_markdown(block: Mapping) -> str:
    """A table block as Markdown."""
    lines = [f"**{block['table']}**", "", " | ".join(["", *block["columns"], ""]).strip()]
    lines.append("|" + "---|" * len(block["columns"]))
    lines += [" | ".join(["", *row, ""]).strip() for row in block["rows"]]
    return "\n".join([*lines, *(["", block["note"]] if block["note"] else [])])


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    import torch

    return {
        "processor": _processor(),
        "cores": str(torch.get_num_threads()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "–"
