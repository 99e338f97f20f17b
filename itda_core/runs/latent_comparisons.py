"""The latents of two runs compared one by one, kept beside the runs.

comparisons/latents/<name>.parquet   one row a pair of latents with the same source, as in
                                     LATENT_COLUMNS, and in STRONG_COLUMNS where both runs have
                                     scores; what is compared and its sums, as in ABOUT, those of
                                     strong uses, as in SUMS, and its settings, as JSON in the
                                     file's own metadata

A comparison is of two dictionaries as they are: their runs' times of training tell those of others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from itda_core.clock import now
from itda_core.config import CorpusSpec
from itda_core.digests import digest
from itda_core.errors import RunError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.runs.comparisons import comparisons_folder
from itda_core.runs.headed_tables import checked_fields, fits, read_header, write_headed_table
from itda_core.sealed import faults
from itda_core.tables import read_table

FORMAT_VERSION = 1
LATENT_COLUMNS = {
    "latent_a": pa.int32(), "latent_b": pa.int32(), "correlation": pa.float64(),
    "rank_a": pa.int32(), "rank_b": pa.int32(),
    "uses_a": pa.int64(), "uses_b": pa.int64(), "uses_both": pa.int64(),
    "chance": pa.float64(),
}  # fmt: skip
"""correlation, ranks and chance (the correlation where the sources are permuted) are null where one
of the two has none; the others are counts of tokens"""
STRONG = "strong_"
"""What the name of a number begins with that is of strong uses alone"""
STRONG_COLUMNS = {
    f"{STRONG}{name}": kind for name, kind in LATENT_COLUMNS.items() if name[:7] != "latent_"
}
"""The same of strong uses"""
SUMS = {
    "compared": int, "only_a": int, "only_b": int, "unused": int,
    "best_value": float, "best_low": float, "best_high": float, "best_chance": float,
    "median_value": float, "median_low": float, "median_high": float, "median_chance": float,
    "alone_a": float, "alone_b": float,
}  # fmt: skip
"""What the pairs come to; those that are float may be None"""
ABOUT = {
    "run_a": str, "run_b": str, "created_a": str, "created_b": str, "digest_a": str,
    "digest_b": str, "corpus": str, "held_out": bool, "seed": int, "unit": str, "tokens": int,
    "prompts": int, "atoms_a": int, "atoms_b": int, "namesakes": int, **SUMS, "created": str,
}  # fmt: skip
"""What is told of a comparison: which dictionaries, which tokens, and the sums; those that are
float may be None"""


@dataclass(frozen=True)
class LatentComparison:
    """One comparison as its file has it."""

    about: dict[str, Any]
    """the fields of ABOUT"""
    latents: pa.Table
    """the columns of LATENT_COLUMNS, and of STRONG_COLUMNS where `strong` is known"""
    settings: dict[str, Any] | None = None
    """What makes it again, beside the runs and the seed: max_tokens, and corpus, the fields of a
    CorpusSpec or None for held-out prompts; None in a file of a version that did not keep them"""
    strong: dict[str, Any] | None = None
    """The fields of SUMS, of strong uses; None where one of the two runs had no scores, and in a
    file of a version that did not tell them"""

    @property
    def likely_settings(self) -> dict[str, Any]:
        """`settings`, or those that come nearest where the file did not keep them: as many tokens
        as were compared, of a corpus that is read as its file shows."""
        if self.settings is not None:
            return self.settings
        corpus = None if self.about["held_out"] else {"name": self.about["corpus"]}
        return {"max_tokens": self.about["tokens"], "corpus": corpus}


def latent_comparisons_folder(runs: Path) -> Path:
    """Where the comparisons of latents of the runs in a folder are kept."""
    return comparisons_folder(runs) / "latents"


def save_latent_comparison(folder: Path, result: Mapping[str, Any]) -> Path:
    """Keep what `similarity.same_latents` found of two runs; the file appears whole or not at all,
    and takes the place of an earlier one of the same two dictionaries. `kept_comparison` says which
    one counts until then."""
    there, _ = read_latent_comparisons(folder)
    created = now(later_than=[one.about["created"] for one in there])
    about = {**result, "created": created}
    header = {name: about[name] for name in ABOUT}
    header |= {name: result.get(name) for name in ("settings", "strong")}
    schema = pa.schema(_columns(header["strong"]))
    table = pa.Table.from_pylist(result["latents"], schema=schema)
    names = ("run_a", "run_b", "digest_a", "digest_b")
    path = folder / f"{digest(chr(10).join(about[name] for name in names))}.parquet"
    with disk_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_headed_table(path, table, FORMAT_VERSION, header, begin=True)
    return path


def read_latent_comparison(path: Path) -> LatentComparison:
    """Raises RunError where the file is damaged, foreign or of a newer version."""
    try:
        table = read_table(path)
        header = read_header(table.schema, path, FORMAT_VERSION, "comparison of latents")
        about = checked_fields(header, ABOUT, may_lack=True)
        settings, strong = _checked_settings(header.get("settings")), header.get("strong")
        if strong is not None:
            strong = checked_fields(strong, SUMS, may_lack=True)
        for error in faults(path.parent, [path.name]).values():
            raise error
        return LatentComparison(about, _checked_latents(table, strong), settings, strong)
    except RunError:
        raise
    except Exception as error:  # whatever the file holds
        raise why_unreadable(path, error, "Delete it and compare again.") from error


def read_latent_comparisons(folder: Path) -> tuple[list[LatentComparison], RunError | None]:
    """Those of a folder, the newest of each two runs, and why a file can't be read, if one
    can't."""
    newest, failed = {}, None
    for path in sorted(folder.glob("*.parquet")):
        try:
            found = read_latent_comparison(path)
        except RunError as error:
            failed = failed or error
            continue
        names = frozenset((found.about["run_a"], found.about["run_b"]))
        if names not in newest or newest[names].about["created"] < found.about["created"]:
            newest[names] = found
    return list(newest.values()), failed


def kept_comparison(folder: Path, run_a: str, run_b: str) -> LatentComparison | None:
    """The comparison that counts of two runs, in either order; None where none is kept."""
    found, _ = read_latent_comparisons(folder)
    runs = {run_a, run_b}
    return next((one for one in found if {one.about["run_a"], one.about["run_b"]} == runs), None)


def _checked_settings(settings: Any) -> dict[str, Any] | None:
    if settings is None:
        return None
    corpus, max_tokens = settings["corpus"], settings["max_tokens"]
    if corpus is not None:
        CorpusSpec(**corpus)
    if not fits(max_tokens, int):
        raise ValueError(f"its max_tokens is {max_tokens!r}")
    return {"max_tokens": max_tokens, "corpus": corpus}


def _columns(strong: Mapping[str, Any] | None) -> dict[str, pa.DataType]:
    return LATENT_COLUMNS if strong is None else {**LATENT_COLUMNS, **STRONG_COLUMNS}


def _checked_latents(table: pa.Table, strong: Mapping[str, Any] | None) -> pa.Table:
    if "chance" not in table.column_names:  # the first comparisons did not keep it
        table = table.append_column("chance", pa.nulls(len(table), pa.float64()))
    columns = _columns(strong)
    return table.select(list(columns)).cast(pa.schema(columns))
