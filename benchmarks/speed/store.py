"""The store at scale: import, queries while the database grows, and the size of the file.

.venv/bin/python -m benchmarks.speed.store [--codes 20000000 --dictionaries 10]
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from benchmarks.common.harness import Report, Spread, in_turn
from benchmarks.speed.drawn import ATOMS, L0, make_runs
from benchmarks.speed.labelled import label_questions, labelled_store, list_page
from itda_core.runs.run import Run
from itda_core.store.store import Store

QUERY_MILLISECONDS = 50
LIST_MILLISECONDS = 300
LABELLED = (10_000, 40, 2_048)
"""Labels, runs, and latents of each"""
_SEARCHES = {"a rare word": "treaty", "a frequent word": "the", "no hit": "zebrafish"}
_BARE_SCAN = """SELECT count(*), sum(latent), min(prompt_id), sum(position), sum(step),
    sum(coefficient) FROM read_parquet(?)"""


# Measures


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_import(store: Store, run: Run, scratch: Path) -> dict[str, float]:
    """Seconds of one import, and of the work that no way of importing avoids, in turn."""
    codes = str(run.directory / "codes.parquet")
    copy, loaded = scratch / "copy", scratch / "loaded.duckdb"

    def load() -> None:
        with duckdb.connect(str(loaded)) as database:
            database.execute("CREATE TABLE codes AS SELECT * FROM read_parquet(?)", [codes])

    def scan() -> None:
        with duckdb.connect() as database:
            database.execute(_BARE_SCAN, [codes]).fetchall()

    seconds = {
        "copying the bytes": timed(lambda: shutil.copyfile(codes, copy)),
        "reading every column": timed(scan),
        "a bare table, unsorted": timed(load),
        "import": timed(lambda: store.import_run(run)),
    }
    copy.unlink()
    loaded.unlink()
    return seconds


def questions(store: Store, run_id: str, latent: int, codes_file: Path) -> dict[str, Callable]:
    """What the Latents page asks of the store, and two yardsticks."""
    prompts = store.uses.strongest(run_id, latent)["prompt_id"].unique().tolist()
    asked = {
        "the strongest 20 uses": lambda: store.uses.strongest(run_id, latent),
        "all uses in their prompts": lambda: store.uses.in_prompts(run_id, latent, prompts),
        "coefficients for the histogram": lambda: store.uses.coefficients(run_id, latent),
        "50 latents of the list": lambda: store.latents.table(run_id, list(range(50))),
        "latents by density": lambda: store.latents.numbers(run_id, order="density"),
    }
    for name, text in _SEARCHES.items():
        asked[f"search: {name}"] = lambda text=text: store.latents.numbers(run_id, text)
    asked["(a query for nothing)"] = lambda: store.database.query("SELECT 1")
    asked["(the strongest 20 in codes.parquet)"] = lambda: duckdb.execute(
        """SELECT prompt_id, position, min(step), sum(coefficient) AS c FROM read_parquet(?)
        WHERE latent = ? GROUP BY ALL ORDER BY abs(c) DESC LIMIT 20""",
        [str(codes_file), latent],
    ).df()
    return asked


def busiest(store: Store, run_id: str) -> int:
    return store.latents.numbers(run_id, order="density")[0]


def first_answers(path: Path, run_id: str, latent: int) -> dict[str, float]:
    """Seconds of each question asked first of a file that is neither open nor in memory."""
    asked = {
        "the strongest 20 uses": lambda store: store.uses.strongest(run_id, latent),
        "coefficients for the histogram": lambda store: store.uses.coefficients(run_id, latent),
        "search: a rare word": lambda store: store.latents.numbers(run_id, "treaty"),
    }
    seconds = {}
    for name, ask in asked.items():
        _drop_from_memory(path)
        store = Store(path)
        seconds[name] = timed(lambda ask=ask, store=store: ask(store))
        store.close()
    return seconds


def _drop_from_memory(path: Path) -> None:
    """Asks the system to forget the file's pages, so that they come from the disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def first_page(path: Path, runs: Path) -> tuple[dict[str, float], Store]:
    """Seconds of what pages/overview.py asks for when the app starts on a full data folder."""
    _drop_from_memory(path)
    opened: list[Store] = []
    seconds = {
        "open the database": timed(lambda: opened.append(Store(path))),
        "look for new runs": timed(lambda: opened[0].import_new(runs)),
        "list the dictionaries": timed(lambda: opened[0].runs.table()),
    }
    return seconds, opened[0]


def sizes_by_table(path: Path) -> dict[str, int]:
    """Bytes of the blocks that hold each table; a block that two share counts for both."""
    with duckdb.connect(str(path), read_only=True) as database:
        block = database.execute("SELECT block_size FROM pragma_database_size()").fetchone()[0]
        names = database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {
            name: block
            * database.execute(
                "SELECT count(DISTINCT block_id) FROM pragma_storage_info(?) WHERE block_id >= 0",
                [name],
            ).fetchone()[0]
            for (name,) in names
        }


# The benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=20_000_000, help="in all")
    parser.add_argument("--dictionaries", type=int, default=10)
    parser.add_argument("--atoms", type=int, nargs="+", default=ATOMS, help="of the trainings")
    parser.add_argument("--rounds", type=int, default=9, help="of each query")
    parser.add_argument("--folder", type=Path, help="for the data (by default a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.folder) as folder:
        run_benchmark(Path(folder), options)


def run_benchmark(folder: Path, options: argparse.Namespace) -> None:
    report = Report(
        "store",
        "Store",
        "Run directories of real prompts with drawn codes (benchmarks/speed/drawn.py).",
    )
    tokens = max(64, options.codes // options.dictionaries // L0)
    started = time.perf_counter()
    runs = list(make_runs(folder / "runs", options.dictionaries, tokens, options.atoms))
    print(f"{len(runs)} run directories made in {time.perf_counter() - started:.0f} s", flush=True)
    path = folder / "explorer.duckdb"
    stops = sorted({1, round(0.4 * len(runs)) or 1, len(runs)})
    store, imports, growth = Store(path), [], {}
    for number, run in enumerate(runs, start=1):
        imports.append({"codes": _count(run), **measure_import(store, run, folder)})
        if number in stops:
            n_codes = sum(row["codes"] for row in imports)
            growth[n_codes] = _measure_queries(store, runs[0], options.rounds)
    store.close()
    _report_import(report, imports)
    _report_queries(report, growth)
    _report_cold(report, path, runs)
    _report_first_page(report, path, folder / "runs", options.rounds)
    _report_labels(report, options.rounds)
    _report_size(report, path, n_codes)
    print(f"saved as {report.save()}")


def _count(run: Run) -> int:
    return pq.read_metadata(run.directory / "codes.parquet").num_rows


def _measure_queries(store: Store, run: Run, rounds: int) -> dict[str, Spread]:
    asked = questions(
        store, run.run_id, busiest(store, run.run_id), run.directory / "codes.parquet"
    )
    return in_turn(asked, rounds)


def _report_import(report: Report, imports: list[dict]) -> None:
    rates = {
        name: Spread(tuple(row["codes"] / row[name] for row in imports))
        for name in imports[0]
        if name != "codes"
    }
    report.table(
        "Import, codes a second",
        [{"": name, "min – median – max": spread} for name, spread in rates.items()],
        "Each dictionary is one round. The other rows read codes.parquet alone; the import also "
        "takes the prompts and sources, and sorts.",
    )
    report.target(
        "import of a run directory", "≥ 1,000,000 codes/s", rates["import"],
        rates["import"].median >= 1e6,
    )  # fmt: skip


def _report_queries(report: Report, growth: dict[int, dict[str, Spread]]) -> None:
    largest = growth[max(growth)]
    report.table(
        "Warm queries about the most used latent, milliseconds",
        [
            {"": name} | {f"{n / 1e6:.3g}M codes": growth[n][name].times(1e3) for n in growth}
            for name in largest
        ],
        "min – median – max. In brackets: what any query costs, and the same without a database.",
    )
    series = {name: {n: growth[n][name].median * 1e3 for n in growth} for name in largest}
    report.plot("Query time as the database grows", "codes", "milliseconds", series)
    for name in largest:
        if name.startswith(("the ", "coefficients", "search")):
            spread = largest[name].times(1e3)
            wanted = f"≤ {QUERY_MILLISECONDS} ms at {max(growth) / 1e6:.3g}M codes, warm"
            report.target(name, wanted, spread, spread.median <= QUERY_MILLISECONDS)


def _report_cold(report: Report, path: Path, runs: list[Run]) -> None:
    store = Store(path)
    chosen = [(run.run_id, busiest(store, run.run_id)) for run in runs[:5]]
    store.close()
    rounds = [first_answers(path, *one) for one in chosen]
    spreads = {name: Spread(tuple(row[name] * 1e3 for row in rounds)) for name in rounds[0]}
    report.table(
        "The first question to a file that is not in memory, milliseconds",
        [{"": name, "min – median – max": spread} for name, spread in spreads.items()],
    )
    for name, spread in spreads.items():
        wanted = f"≤ {QUERY_MILLISECONDS} ms, cold"
        report.target(name, wanted, spread, spread.median <= QUERY_MILLISECONDS)


def _report_first_page(report: Report, path: Path, runs: Path, rounds: int) -> None:
    taken = []
    for _ in range(rounds):
        seconds, store = first_page(path, runs)
        seconds["look again, nothing new"] = timed(lambda store=store: store.import_new(runs))
        store.close()
        taken.append({name: value * 1e3 for name, value in seconds.items()})
    report.table(
        "What the first page asks of the store, milliseconds",
        [
            {"": name, "min – median – max": Spread(tuple(row[name] for row in taken))}
            for name in taken[0]
        ],
    )
    again = statistics.median(row.pop("look again, nothing new") for row in taken)
    report.target("looking again when nothing is new, ms", "≤ 5 ms", again, again <= 5)
    total = statistics.median(sum(row.values()) for row in taken)
    report.target("the first page's questions, ms", "≤ 1,000 ms, cold", total, total <= 1_000)


def _report_labels(report: Report, rounds: int) -> None:
    store, run_id = labelled_store(*LABELLED)
    whole = "the list's page: the first, second, fourth and fifth of these"
    asked = label_questions(store, run_id)
    asked[whole] = lambda questions=dict(asked): list_page(questions)
    spreads = {name: spread.times(1e3) for name, spread in in_turn(asked, rounds).items()}
    store.close()
    labels, runs, latents = LABELLED
    report.table(
        f"Labels of sources, {labels:,} in {runs} runs of {latents:,} latents, milliseconds",
        [{"": name, "min – median – max": spread} for name, spread in spreads.items()],
        "Each source is in some four dictionaries, and shows what the others say of it.",
    )
    wanted = f"≤ {LIST_MILLISECONDS} ms, warm"
    report.target(whole, wanted, spreads[whole], spreads[whole].median <= LIST_MILLISECONDS)


def _report_size(report: Report, path: Path, n_codes: int) -> None:
    total = path.stat().st_size
    rows = [{"": "whole file", "MB": total / 1e6, "bytes a code": total / n_codes}]
    for name, size in sizes_by_table(path).items():
        rows.append({"": name, "MB": size / 1e6, "bytes a code": size / n_codes})
    report.table("Size of the file", rows, "Blocks of 256 KiB, as DuckDB gives them out.")
    report.target("size of the file", "≤ 12 bytes a code", total / n_codes, total <= 12 * n_codes)


if __name__ == "__main__":
    main()
