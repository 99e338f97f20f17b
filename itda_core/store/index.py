"""The database as an index of the run directories: what came is taken in, what went forgotten."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

from itda_core.errors import (
    ItdaError,
    RunError,
    first_line,
    together,
)
from itda_core.runs.checks import check_vital
from itda_core.runs.comparisons import comparisons_folder, read_comparisons
from itda_core.runs.labels import Change, add_changes, labels_file
from itda_core.runs.latent_comparisons import (
    latent_comparisons_folder,
    read_latent_comparisons,
)
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import Run, read_run, survey
from itda_core.store.database import Database
from itda_core.store.file_stamps import (
    comparison_files,
    file_stamps,
    label_files,
    latent_comparison_files,
    run_files,
    stamp,
)
from itda_core.store.importer import (
    insert_comparisons,
    insert_evaluation,
    insert_run,
    is_as_taken_in,
)
from itda_core.store.label_follower import MOST_CUTS, LabelFollower, cut_again
from itda_core.store.label_import import share_labels
from itda_core.store.namesake_tables import insert_latent_comparisons
from itda_core.store.refusals import why_not_added, why_not_imported, why_refused
from itda_core.store.score_tables import insert_scores
from itda_core.store.taking_in import TakingIn

_RETRY_SECONDS = 60.0
"""What kept a run from being read may pass without a trace in its files, such as a limit of open
files."""
_ADDED = {EVALUATION_FILE: insert_evaluation, SCORES_FILE: insert_scores}
"""What takes in each file that may be added to a run once it is there"""
_OF_RUNS = (
    "codes", "latents", "latent_scores", "strong_uses", "scored", "run_prompts", "evaluations",
    "runs",
)  # fmt: skip
"""Tables that say something of a run by its number; the one that has the number last"""


@dataclass(frozen=True)
class _Look:
    """What was seen of a part of the files, when it was read."""

    seen: object
    failed: ItdaError | None
    """what could not be read"""
    when: float


class Index:
    """Has a database follow a folder of runs."""

    def __init__(self, database: Database):
        self._database = database
        self._looks: dict[str, _Look] = {}
        """What was seen last of each part: runs, comparisons, latents (compared), labels"""
        self.notes: list[str] = []
        """What was mended, a sentence each"""
        self._labels = LabelFollower(database, self.notes)
        self._taking_in = TakingIn(database.path)

    def import_run(self, run: Run) -> bool:
        """Take in a run directory in one transaction, then its evaluation and scores; False where
        the run is there already. Another one that had its id is forgotten.

        Raises RunError where its files can't be read, StoreError where there is no space.
        """
        self._forget_replaced([run])
        is_new = self._import_dictionary(run, [])
        for name in _ADDED:
            self._import_added(run, name)
        return is_new

    def _import_dictionary(self, run: Run, damaged: list[ItdaError]) -> bool:
        """Take in a run once its files are known to be what was written. What is not, and is
        needed by nothing else, is added to `damaged`."""
        seen = file_stamps(run_files(run.directory))
        try:
            with self._taking_in.of(run.directory, seen):
                damaged += check_vital(run)
                with self._database.transaction() as cursor:
                    if is_new := insert_run(cursor, run):
                        share_labels(cursor)
                    return is_new
        except duckdb.Error as error:  # the commit's as well: that is when a disk is full
            raise why_not_imported(run, error) from error
        except (ItdaError, MemoryError):
            raise
        except Exception as error:  # whatever a file says must not keep the other runs out
            raise _not_taken_in(run.directory, error) from error

    def _import_added(self, run: Run, name: str) -> None:
        """Take in one of the files that are added to a run."""
        try:
            with self._database.transaction() as cursor:
                _ADDED[name](cursor, run)
        except duckdb.Error as error:
            raise why_not_added(run, name, error) from error
        except (ItdaError, MemoryError):
            raise
        except Exception as error:
            raise why_not_added(run, name, error) from error

    def import_new(self, folder: Path) -> list[str]:
        """Take in every finished run of `folder` that is not there yet; returns their ids.

        Evaluations, comparisons and labels that are new or were made anew are taken in as well.
        Runs whose directory is gone are forgotten, those that were moved are found again. What
        can't be read does not keep the others out; at the end an error is raised that names all of
        it. Runs,
        comparisons, comparisons of latents and labels are each read only where their own files, or
        the runs of the database, have changed since the call before; what could not be read is then
        tried again after a minute.
        """
        taken: list[str] = []
        errors = [
            self._follow_runs(folder, taken),
            *(self._follow(part, folder) for part in ("comparisons", "latents", "labels")),
        ]
        if failed := together([error for error in errors if error]):
            raise failed.with_traceback(None)  # it would grow by every raise
        return taken

    def _follow_runs(self, folder: Path, taken: list[str]) -> ItdaError | None:
        """Take in what is new of the runs, whose ids are added to `taken`; why some can't be
        read."""
        known = self._known_runs()
        outside = _outside(*known, folder)
        looked_at = [file for directory in outside for file in run_files(directory)]
        files = str(folder.absolute()), stamp(folder), file_stamps(looked_at)
        if self._is_as_seen("runs", (files, known)):
            return self._looks["runs"].failed
        listed, damaged = survey(folder)
        here = {run.run_id for run in listed}
        for directory in outside:
            try:
                listed += [] if directory.name in here else [read_run(directory)]
            except RunError as error:
                damaged.append(error)
        self._forget_gone(listed)
        failed = together([*damaged, *self._import_all(listed, taken)])
        # What came while the files were read is not in `files`, and is looked at the next time.
        self._looks["runs"] = _Look((files, self._known_runs()), failed, time.monotonic())
        return failed

    def _follow(self, part: str, folder: Path) -> ItdaError | None:
        """Take in one part of what is kept beside a folder of runs, where its files have changed;
        why some of it can't be read."""
        files, read = {
            "comparisons": (comparison_files, self._import_comparisons),
            "latents": (latent_comparison_files, self._import_latent_comparisons),
            "labels": (label_files, self._labels.take_in),
        }[part]
        seen = str(folder.absolute()), file_stamps(files(folder))
        if not self._is_as_seen(part, seen):
            self._looks[part] = _Look(seen, read(folder), time.monotonic())
        return self._looks[part].failed

    def _is_as_seen(self, part: str, seen: object) -> bool:
        """Whether there is nothing to read: all is as it was, and what failed did so just now."""
        look = self._looks.get(part)
        if look is None or look.seen != seen:
            return False
        return look.failed is None or time.monotonic() < look.when + _RETRY_SECONDS

    def _known_runs(self) -> tuple[dict[str, str], list[str]]:
        """The runs of the database, and those of them that are there."""
        directories = self._directories()
        return directories, _existing(directories)

    def _directories(self) -> dict[str, str]:
        """The directory of every run that is known, by id."""
        table = self._database.query("SELECT run_id, directory FROM runs")
        return dict(zip(table["run_id"], table["directory"], strict=True))

    def _forget_gone(self, listed: list[Run]) -> None:
        """Forget the runs whose directory is gone or has another run of the same id now, and note
        where others were moved."""
        self._forget_replaced(listed)
        listed_at = {run.run_id: str(run.directory.resolve()) for run in listed}
        for run_id, directory in self._directories().items():
            if run_id not in listed_at and not Path(directory).exists():
                self.forget_run(run_id)
            elif listed_at.get(run_id, directory) != directory:
                update = "UPDATE runs SET directory = ? WHERE run_id = ?"
                with self._database.transaction() as cursor:
                    cursor.execute(update, [listed_at[run_id], run_id])

    def _forget_replaced(self, listed: list[Run]) -> None:
        """What the database says of them is of a dictionary that is gone: they are taken in anew,
        or named where they can't be."""
        known = self._directories()
        for run in listed:
            if run.run_id in known and not is_as_taken_in(self._database, run):
                self.forget_run(run.run_id)

    def _import_all(self, listed: list[Run], taken: list[str]) -> list[ItdaError]:
        """Import what is new of `listed`, whose ids are added to `taken`; why some is not."""
        errors: list[ItdaError] = []
        earlier = self._directories()
        for run in listed:
            try:
                if run.run_id not in earlier and self._import_dictionary(run, errors):
                    taken.append(run.run_id)
            except ItdaError as error:
                errors.append(error)
                continue
            for name in _ADDED:
                try:
                    self._import_added(run, name)
                except ItdaError as error:
                    errors.append(error)
        return errors

    def _import_comparisons(self, folder: Path) -> ItdaError | None:
        """Have the comparisons that are kept beside a folder of runs; why one can't be read."""
        seen = file_stamps(comparison_files(folder))
        try:
            with self._taking_in.of(comparisons_folder(folder), seen):
                table, failed = read_comparisons(comparisons_folder(folder))
        except RunError as error:
            return error
        try:
            with self._database.transaction() as cursor:
                insert_comparisons(cursor, table)
        except duckdb.Error as error:
            return why_refused(f"the comparisons of {comparisons_folder(folder)}", error)
        except Exception as error:  # whatever a file says
            return _not_taken_in(comparisons_folder(folder), error)
        return failed

    def _import_latent_comparisons(self, folder: Path) -> ItdaError | None:
        """The same of the comparisons of latents."""
        seen = file_stamps(latent_comparison_files(folder))
        folder = latent_comparisons_folder(folder)
        try:
            with self._taking_in.of(folder, seen):
                found, failed = read_latent_comparisons(folder)
        except RunError as error:
            return error
        try:
            with self._database.transaction() as cursor:
                insert_latent_comparisons(cursor, found)
        except duckdb.Error as error:
            return why_refused(f"the comparisons of {folder}", error)
        except Exception as error:
            return _not_taken_in(folder, error)
        return failed

    def import_labels(self, folder: Path) -> ItdaError | None:
        """Have the labels that are kept beside a folder of runs, where their file has changed; why
        some can't be read. What the database had of them stays where it can't be read at all."""
        return self._follow("labels", folder)

    def add_labels(self, folder: Path, changes: list[Change]) -> ItdaError | None:
        """Keep changes of labels in the file beside a folder of runs, and have them; why other
        lines of it can't be read. Raises ItdaError where they can't be kept, or not taken in."""
        self.import_labels(folder)  # what the file has lost goes back first: by any clock older
        file = labels_file(folder)
        for _ in range(MOST_CUTS):
            written = add_changes(file, changes)
            failed = self.import_labels(folder)
            if failed and not self._labels.is_known:  # else it is of other lines
                raise failed
            if self._labels.has(written):  # the file may have been cut before it was read
                return failed
        raise cut_again(file, "What was written just now is not kept")

    def forget_run(self, run_id: str) -> None:
        """Remove a run from the index; its directory is not touched."""
        with self._database.transaction() as cursor:
            for table in _OF_RUNS:
                cursor.execute(
                    f"DELETE FROM {table} WHERE run = (SELECT run FROM runs WHERE run_id = ?)",
                    [run_id],
                )
            cursor.execute(
                "DELETE FROM prompts WHERE prompt NOT IN (SELECT prompt FROM run_prompts)"
            )
            share_labels(cursor)


def _not_taken_in(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path} could not be taken in ({type(error).__name__}: {first_line(error)}). Its files "
        "are left as they are."
    )


def _outside(directories: dict[str, str], existing: list[str], folder: Path) -> list[Path]:
    """The directories of runs that were taken in from elsewhere than a folder. directories,
    existing: of all runs, and which are there."""
    here = Path(os.path.realpath(folder))
    there = (Path(directories[run_id]) for run_id in existing)
    return [path for path in there if path.parent != here]


def _existing(directories: dict[str, str]) -> list[str]:
    """The runs whose directory is there; it may lie outside the folder that is looked at."""
    return [run_id for run_id, directory in directories.items() if Path(directory).exists()]
