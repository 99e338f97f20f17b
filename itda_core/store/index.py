"""The database as an index of the run directories: what came is taken in, what went forgotten."""

import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from itda_core.errors import RunError
from itda_core.runs.comparisons import comparisons_folder, read_comparisons
from itda_core.runs.labels import labels_file, read_labels
from itda_core.runs.run import Run, list_runs
from itda_core.store.database import Database
from itda_core.store.importer import (
    file_stamps,
    insert_comparisons,
    insert_evaluation,
    insert_labels,
    insert_run,
    stamp,
    why_not_imported,
)

_RETRY_SECONDS = 60.0
"""What kept a run from being read may pass without a trace in its files, such as a limit of open
files."""


class Index(Database):
    """A database that follows a folder of runs."""

    def __init__(self, path: Path | str = ":memory:"):
        """Open or make the database. Raises StoreError where it is locked, damaged or newer."""
        super().__init__(path)
        self._looked: tuple[object, RunError | None, float] | None = None
        """What `import_new` saw last, what it could not read, and when that was"""

    def import_run(self, run: Run) -> bool:
        """Take in a run directory in one transaction, then its evaluation; False where the run is
        there already.

        Raises RunError where its files can't be read, StoreError where there is no space.
        """
        is_new = self._import(insert_run, run)
        self._import(insert_evaluation, run)
        return is_new

    def _import(self, insert: Callable[..., bool], run: Run) -> bool:
        try:
            with self.transaction() as cursor:
                return insert(cursor, run)
        except duckdb.Error as error:  # the commit's as well: that is when a disk is full
            raise why_not_imported(run, error) from error

    def import_new(self, folder: Path) -> list[str]:
        """Take in every finished run of `folder` that is not there yet; returns their ids.

        Evaluations and comparisons that are new or were made anew are taken in as well. Runs whose
        directory is gone are forgotten, those that were moved are found again. What can't be read
        does not keep the others out; its RunError is raised at the end. No file is opened while
        neither the folders nor the database have changed since the call before; what could not be
        read is then tried again after a minute.
        """
        seen = self._seen(folder)
        if self._looked and self._looked[0] == seen:
            _, failed, when = self._looked
            if failed is None:
                return []
            if time.monotonic() < when + _RETRY_SECONDS:
                raise failed.with_traceback(None)  # it would grow by every raise
        listed = list_runs(folder)
        self._follow(listed)
        taken, failed = self._import_all(listed)
        failed = failed or self._import_comparisons(folder)
        failed = failed or self.import_labels(folder)
        # What came while the files were read is not in `seen`, and is looked at the next time.
        known = self._directories()
        self._looked = ((*seen[:3], known, _existing(known)), failed, time.monotonic())
        if failed:
            raise failed
        return taken

    def _seen(self, folder: Path) -> tuple:
        """All that decides what there is to import."""
        known = self._directories()
        stamps = stamp(folder), file_stamps(folder)
        return str(folder.absolute()), *stamps, known, _existing(known)

    def _directories(self) -> dict[str, str]:
        """The directory of every run that is known, by id."""
        found = self.query("SELECT run_id, directory FROM runs")
        return dict(zip(found["run_id"], found["directory"], strict=True))

    def _follow(self, listed: list[Run]) -> None:
        """Forget the runs whose directory is gone, and note where others were moved."""
        here = {run.run_id: str(run.directory.resolve()) for run in listed}
        for run_id, directory in self._directories().items():
            if run_id not in here and not Path(directory).exists():
                self.forget_run(run_id)
            elif here.get(run_id, directory) != directory:
                self.query("UPDATE runs SET directory = ? WHERE run_id = ?", here[run_id], run_id)

    def _import_all(self, listed: list[Run]) -> tuple[list[str], RunError | None]:
        """Import what is new of `listed`: the ids of what was, and the first error."""
        taken, failed, known = [], None, self._directories()
        for run in listed:
            try:
                if run.run_id not in known and self._import(insert_run, run):
                    taken.append(run.run_id)
                self._import(insert_evaluation, run)
            except RunError as error:
                failed = failed or error
        return taken, failed

    def _import_comparisons(self, folder: Path) -> RunError | None:
        """Have the comparisons that are kept beside a folder of runs; why one can't be read."""
        table, failed = read_comparisons(comparisons_folder(folder))
        with self.transaction() as cursor:
            insert_comparisons(cursor, table)
        return failed

    def import_labels(self, folder: Path) -> RunError | None:
        """Have the labels that are kept beside a folder of runs; why some can't be read."""
        file = labels_file(folder)
        labels, bad = read_labels(file.read_bytes() if file.exists() else b"")
        with self.transaction() as cursor:
            insert_labels(cursor, labels)
        if not bad:
            return None
        return RunError(
            f"{bad:,} lines of {file} can't be read; the other labels are there. Correct or delete "
            "these lines."
        )

    def forget_run(self, run_id: str) -> None:
        """Remove a run from the index; its directory is not touched."""
        with self.transaction() as cursor:
            for table in ("codes", "latents", "run_prompts", "evaluations", "runs"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE run = (SELECT run FROM runs WHERE run_id = ?)",
                    [run_id],
                )
            cursor.execute(
                "DELETE FROM prompts WHERE prompt NOT IN (SELECT prompt FROM run_prompts)"
            )


def _existing(directories: dict[str, str]) -> list[str]:
    """The runs whose directory is there; it may lie outside the folder that is looked at."""
    return [run_id for run_id, directory in directories.items() if Path(directory).exists()]
