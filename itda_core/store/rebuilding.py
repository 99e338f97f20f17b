"""The database made anew from the run directories; what is damaged is kept aside."""

import contextlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from itda_core.errors import (
    ItdaError,
    RunError,
    StoreError,
    StoreNotOursError,
    StoreOutdatedError,
    first_line,
)
from itda_core.leftovers import remove, temporary_name
from itda_core.runs.labels import labels_file, read_said
from itda_core.store.database import Database, connect
from itda_core.store.index import Index
from itda_core.store.kept_labels import lost_labels, write_back_labels
from itda_core.store.look import look


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild made."""

    runs: int
    left_out: RunError | None
    """why some of what is there is not in it"""
    kept_aside: Path | None
    """where a damaged file that was there is now"""
    notes: list[str] = field(default_factory=list)
    """what else there is to know, a sentence each"""


def rebuild(path: Path, runs: Path) -> int:
    """`rebuild_all`, which returns how many runs there are. Raises RunError after all others are in
    where one can't be."""
    done = rebuild_all(path, runs)
    if done.left_out:
        raise done.left_out
    return done.runs


def rebuild_all(path: Path, runs: Path) -> Rebuilt:
    """Make the database anew from the run directories.

    The old file is replaced only when the new one is whole; one that is damaged is kept beside it,
    and labels that are in it alone are written back to their file, where they can be read. Raises
    StoreError where the old one is open in another process, of a newer version, good and of another
    data folder than the runs, or good and has labels that can't be written back, and RunError where
    no run can be taken in and the old one is good: it stays.
    """
    damage = _damage(path)
    is_kept = damage is not None and not isinstance(damage, StoreOutdatedError)
    if path.exists() and not is_kept:
        _check_is_of(path, runs)
    notes = _with_its_labels(path, runs, is_kept)
    temporary = path.with_name(temporary_name(path.name))
    try:
        count, left_out = _filled(temporary, runs)
        if left_out and not count and path.exists() and damage is None:
            raise left_out
        aside = _put_aside(path) if is_kept else None
        # First, since no other database may find it beside itself.
        _log_of(path).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        remove([temporary, _log_of(temporary)])
    return Rebuilt(count, left_out, aside, notes)


def _check_is_of(path: Path, runs: Path) -> None:
    """Raises StoreError where a database that is not the one beside a folder of runs is of others,
    or has labels of which no file beside those runs knows: they would be gone with it."""
    ours, theirs = path.absolute().parent, labels_file(runs).parent
    if ours.resolve() == theirs.resolve():
        return
    with contextlib.closing(connect(path)) as old:
        try:
            asked = old.execute("SELECT directory FROM runs").fetchall()
            has_others = any(Path(one).parent != runs.resolve() for [one] in asked)
            said = read_said(labels_file(runs)).newest
            is_ours = not has_others and not lost_labels(old, said)
        except (duckdb.Error, OSError, ItdaError):  # of an earlier version, or nobody can tell
            is_ours = False
    if not is_ours:
        raise StoreError(
            f"{path} is of other runs, or has labels, that are not in {theirs}: it is left as it "
            f"is. To make the database of {runs} anew, set ITDA_DATA={theirs}; to add single runs "
            "to this one: python -m itda_core import"
        )


def _filled(path: Path, runs: Path) -> tuple[int, RunError | None]:
    """A new database of all runs of a folder: how many there are, and why some are left out."""
    left_out = None
    with contextlib.closing(Database(path)) as database:
        try:
            Index(database).import_new(runs)
        except RunError as error:  # the others are in all the same
            left_out = error
        return len(database.query("SELECT run FROM runs")), left_out


def _log_of(path: Path) -> Path:
    """What DuckDB keeps beside a database."""
    return path.with_name(f"{path.name}.wal")


def _damage(path: Path) -> StoreError | None:
    """Why a database can't be used as it is; None where it can, or there is none. Raises
    StoreNotOursError where another process holds it or a newer version wrote it: it is left
    alone."""
    if not path.exists():
        return None
    try:
        Database(path).close()  # which brings one of an earlier version up to date
        look(path, deep=True)
    except StoreNotOursError:
        raise
    except StoreError as error:
        return error
    return None


def _with_its_labels(path: Path, runs: Path, is_kept: bool) -> list[str]:
    """Have the labels that only the old database has in their file. Raises StoreError where that
    can't be and the old database would be gone with them. is_kept: whether it is kept aside."""
    if not path.exists():
        return []
    why_not = ""
    with contextlib.suppress(StoreError, duckdb.Error), contextlib.closing(connect(path)) as old:
        try:
            return list(filter(None, [write_back_labels(old, path, labels_file(runs))]))
        except (OSError, ItdaError) as error:
            why_not = f"Labels that are in {path} alone could not be kept ({first_line(error)})."
    if why_not and not is_kept:
        raise StoreError(f"{why_not} The database is left as it is, since it has them.")
    return [why_not] if why_not else []


def _put_aside(path: Path) -> Path:
    """Rename a damaged file, and what DuckDB keeps beside it, to a name that is free."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for ending in (".wal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}{ending}").rename(aside.with_name(f"{aside.name}{ending}"))
    return aside
