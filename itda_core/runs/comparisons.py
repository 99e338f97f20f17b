"""What was measured between the layers of models, kept beside the runs.

comparisons/<name>.parquet       one row a measure and pair: measure, a, b (what was compared, by
                                 Run.activations_id), value or reason, tokens, unit, created

Values belong to activations, not to dictionaries: they outlive a run that is trained anew.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from itda_core.clock import now
from itda_core.digests import digest
from itda_core.errors import RunError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.sealed import faults, write_sealed
from itda_core.tables import read_frame, write_frame

COLUMNS = {
    "measure": "str", "a": "str", "b": "str", "value": "float64", "reason": "str",
    "tokens": "int64", "unit": "str", "created": "str",
}  # fmt: skip


def comparisons_folder(runs: Path) -> Path:
    """Where the comparisons of the runs in a folder are kept."""
    return runs.absolute().parent / "comparisons"


def save_comparisons(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Keep what a comparison of layers found; the file appears whole or not at all. The same
    comparison, made again, takes its place."""
    created = now(later_than=read_comparisons(folder)[0]["created"])
    table = pd.DataFrame(rows).assign(created=created)[list(COLUMNS)].astype(COLUMNS)
    names = "\n".join(sorted(table["measure"] + table["a"] + table["b"]))
    path = folder / f"{digest(names)}.parquet"
    content = io.BytesIO()
    write_frame(table, content, index=False)
    with disk_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(path, content.getvalue(), begin=True)
    return path


def read_comparisons(folder: Path) -> tuple[pd.DataFrame, RunError | None]:
    """Every measure and pair once, the newest of each, and why a file can't be read, if one
    can't."""
    tables, failed = [pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)], None
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = read_frame(path, columns=list(COLUMNS)).astype(COLUMNS)
            for error in faults(path.parent, [path.name]).values():
                raise error
            tables.append(table)
        except Exception as error:  # whatever the file holds
            failed = failed or why_unreadable(path, error, "Delete it and compare again.")
    table = pd.concat(tables, ignore_index=True).sort_values("created", kind="stable")
    return table.drop_duplicates(["measure", "a", "b"], keep="last"), failed
