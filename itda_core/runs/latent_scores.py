"""What tells how far each latent of a run can be trusted, kept in its directory.

scores.parquet   one row a latent, as in SCORE_COLUMNS; what it is of, as in ABOUT, as JSON in the
                 file's own metadata. A run is whole without it.

It names the content of the files that it was computed from, and is refused beside others.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from itda_core.clock import now, when_written
from itda_core.digests import digest
from itda_core.errors import RunError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import check_foreign
from itda_core.runs.headed_tables import checked_fields, read_header, write_headed_table
from itda_core.runs.run import Run
from itda_core.tables import read_table

CHANCE = 0.5
"""The AUROC of a source that tells nothing"""
SCORES_FILE = "scores.parquet"
FORMAT_VERSION = 1
FEW, UNSIGNED, NONE = "too few uses", "no negative coefficients", "the largest use is negative"
"""Why a latent has no threshold"""
_OF = ("codes.parquet", "prompts.parquet", "sources.parquet")
_READ_BYTES = 1 << 22
SCORE_COLUMNS = {
    "latent": pa.int32(),
    "threshold": pa.float32(),
    "why": pa.string(),
    "uses": pa.int64(),
    "strong": pa.int64(),
    "strong_squares": pa.float64(),
    "filler": pa.float64(),
    "first": pa.float64(),
    "on_token": pa.float64(),
    "on_word": pa.float64(),
    "strong_first": pa.float64(),
    "strong_on_token": pa.float64(),
    "strong_on_word": pa.float64(),
    "word_above": pa.float32(),
    "word_uses": pa.int64(),
    "drawn": pa.int64(),
    "auroc": pa.float64(),
    "auroc_low": pa.float64(),
    "auroc_high": pa.float64(),
    "same_drawn": pa.int64(),
    "same_auroc": pa.float64(),
    "same_low": pa.float64(),
    "same_high": pa.float64(),
}
"""What `analysis.latent_scores` says of each latent; null where there is no such number. An
infinite threshold is that of a latent none of whose uses can be told from filler"""
_ALWAYS = ("why", "uses", "drawn", "same_drawn")
_WITH = {
    "threshold": ("strong", "filler"), "word_above": ("word_uses",),
    "auroc": ("auroc_low", "auroc_high"), "same_auroc": ("same_low", "same_high"),
}  # fmt: skip
"""Numbers, and what each latent that has one has as well"""
ABOUT = {
    "run_id": str, "digest": str, "judged": str, "embedder": str, "seed": int, "tokens": int,
    "seconds": float, "created": str,
}  # fmt: skip


@dataclass(frozen=True)
class LatentScores:
    """The scores of a run as their file has them."""

    about: dict[str, Any]
    """the fields of ABOUT; embedder is "" where nothing was judged by nearness"""
    latents: pa.Table
    """the columns of SCORE_COLUMNS, in the order of the latents"""


def scored_digest(run: Run) -> str:
    """Names what the scores of a run are computed from: its codes, prompts and sources."""
    return digest(part for name in _OF for part in _parts(run.directory / name))


def save_scores(run: Run, about: Mapping[str, Any], latents: Mapping[str, Any]) -> Path:
    """Keep scores; the file appears whole or not at all. about: ABOUT without `created`; latents:
    the columns of SCORE_COLUMNS, where NaN stands for null."""
    header = {**about, "created": now(later_than=when_written(lambda: when_scored(run)))}
    columns = [
        pa.array(latents[name], kind, from_pandas=True) for name, kind in SCORE_COLUMNS.items()
    ]
    table = pa.table(columns, schema=pa.schema(SCORE_COLUMNS))
    path = run.directory / SCORES_FILE
    with disk_errors_as_sentences(run.directory):
        write_headed_table(path, table, FORMAT_VERSION, {name: header[name] for name in ABOUT})
    return path


def when_scored(run: Run) -> str | None:
    """When the scores of a run were made, by a look at nothing but the end of their file; None
    where there are none. Raises RunError as `read_scores`, but not for those of other codes."""
    path = run.directory / SCORES_FILE
    if not path.exists():
        return None
    with _errors_as_sentences(run):
        check_foreign(path)
        return _about(pq.read_schema(path), path)["created"]


def read_scores(run: Run) -> LatentScores | None:
    """The scores kept of a run; None where there are none. Raises RunError where the file is
    damaged, of a newer version, or of other codes than the run has now."""
    path = run.directory / SCORES_FILE
    if not path.exists():
        return None
    with _errors_as_sentences(run):
        table = read_table(path)
        about = _about(table.schema, path)
        table = table.select(list(SCORE_COLUMNS)).cast(pa.schema(SCORE_COLUMNS))
        table = _with_none_strong(table)
        if table.column("latent").to_pylist() != list(range(run.metrics["atoms"])):
            raise ValueError("it is of other latents")
        _check_is_whole(table)
        if about["digest"] != scored_digest(run):
            raise RunError(f"{path} is of other codes than the run has now. {_remedy(run)}")
    return LatentScores(about, table.replace_schema_metadata())


def _with_none_strong(table: pa.Table) -> pa.Table:
    """Earlier versions had no threshold where no use can be told from filler, as if that were not
    known."""
    is_none = pc.and_(pc.equal(table["why"], NONE), table["threshold"].is_null())
    none = {"threshold": np.inf, "filler": 1.0, "strong": 0, "strong_squares": 0}
    for name, value in none.items():
        kind = SCORE_COLUMNS[name]
        column = pc.if_else(is_none, pa.scalar(value, kind), table[name])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _check_is_whole(table: pa.Table) -> None:
    """Raises ValueError where a latent lacks what pages say of it."""
    for name in _ALWAYS:
        if table.column(name).null_count:
            raise ValueError(f"a latent has no {name}")
    for name, others in _WITH.items():
        has = table.column(name).is_valid()
        for other in others:
            if pc.any(pc.and_(has, table.column(other).is_null())).as_py():
                raise ValueError(f"a latent with a {name} has no {other}")


def thresholds_of(run: Run) -> np.ndarray | None:
    """From which coefficient up each latent's uses are strong, [n_latents] float32, inf where none
    is, NaN for a latent of which that is not known, all of whose uses count; None where the run has
    no scores or its scores tell no strong uses. Raises RunError as `read_scores`."""
    scores = read_scores(run)
    if scores is None or scores.about["judged"] != "strong":
        return None
    return scores.latents["threshold"].to_numpy().astype(np.float32)


def _remedy(run: Run) -> str:
    return f"Score it again: python -m itda_core score {run.run_id}"


@contextmanager
def _errors_as_sentences(run: Run) -> Iterator[None]:
    """Turns what reading the file of a run raises into a RunError."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # whatever the file holds
        raise why_unreadable(run.directory / SCORES_FILE, error, _remedy(run)) from error


def _about(schema: pa.Schema, path: Path) -> dict[str, Any]:
    return checked_fields(read_header(schema, path, FORMAT_VERSION, "table of scores"), ABOUT)


def _parts(path: Path) -> Iterator[bytes]:
    """The name, the size and the content of a file."""
    yield f"{path.name} {path.stat().st_size} ".encode()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            yield part
