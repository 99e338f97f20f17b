"""Has a database follow the file of labels, and what is written reach both of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb

from itda_core.errors import ItdaError, RunError
from itda_core.runs.labels import (
    BadLine,
    Change,
    Said,
    labels_file,
    labels_said,
    read_said,
)
from itda_core.store.database import Database
from itda_core.store.kept_labels import write_back_labels
from itda_core.store.label_import import insert_labels, replace_labels
from itda_core.store.refusals import why_refused

_NAMED_LINES = 5
MOST_CUTS = 10
"""Of the file, one after another, while it is read"""


class LabelFollower:
    """Takes in what the file of labels says anew, and writes back what it has lost."""

    def __init__(self, database: Database, notes: list[str]):
        """notes: what was written back is added to them, a sentence each."""
        self._database, self._notes = database, notes
        self._said: Said | None = None
        """What the file said when the database last had it; None where it may have other labels"""

    def take_in(self, folder: Path) -> ItdaError | None:
        """Have the labels that are kept beside a folder of runs; why some can't be read. What the
        database had of them stays where the file can't be read at all."""
        file = labels_file(folder)
        try:
            said = self._taken_in(file)
        except ItdaError as error:
            return error
        except OSError as error:
            return RunError(
                f"{file} can't be read ({error.strerror}); the labels shown may be older ones. "
                "Make it readable and open the explorer again."
            )
        except duckdb.Error as error:
            return why_refused(f"the labels of {file}", error)
        return _bad_lines(file, said.bad)

    def _taken_in(self, file: Path) -> Said:
        """What the file says, once the database has it."""
        try:
            with self._database.transaction() as cursor:  # one reader after another
                said = read_said(file)
                if (changed := said.changed_since(self._said)) is not None:
                    replace_labels(cursor, changed, labels_said(changed))
                else:
                    said = self._with_what_is_lost(cursor, file, said)
                    insert_labels(cursor, labels_said(said.newest))
                self._said = said
        except BaseException:
            self._said = None
            raise
        return said

    @property
    def is_known(self) -> bool:
        """Whether the database has what the file said when it was read last."""
        return self._said is not None

    def has(self, changes: Iterable[Change]) -> bool:
        """Whether what was taken in has these, or something newer; also where that is not known."""
        return self._said is None or self._said.has(changes)

    def _with_what_is_lost(self, cursor: duckdb.DuckDBPyConnection, file: Path, said: Said) -> Said:
        """What the file says once it has all that the database has: it may be cut again in
        between, and what neither had then would be gone. Raises RunError where that goes on."""
        for _ in range(MOST_CUTS):
            note = write_back_labels(cursor, self._database.path, file, said.newest)
            if not note:
                return said
            self._notes.append(note)
            said = read_said(file)
        raise cut_again(file, "The labels that the database has stay there")


def cut_again(file: Path, what_becomes: str) -> RunError:
    """For a file that another program doesn't leave alone. what_becomes: of the labels."""
    return RunError(
        f"{file} loses its lines again and again: another program cuts it. {what_becomes}. End "
        "that program, and open the explorer again."
    )


def _bad_lines(file: Path, bad: Sequence[BadLine]) -> RunError | None:
    """Names the lines of a file of labels that can't be read."""
    if not bad:
        return None
    named = "; ".join(map(str, bad[:_NAMED_LINES])) + ("; …" if len(bad) > _NAMED_LINES else "")
    return RunError(
        f"{len(bad):,} lines of {file} can't be read: {named}. The other labels are there. "
        "Correct or delete these lines."
    )
