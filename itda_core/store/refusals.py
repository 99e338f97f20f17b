"""Why the database did not take something in, as a sentence that tells whose fault it is."""

import re
from pathlib import Path

import duckdb
import pyarrow as pa

from itda_core.data_folder import data_directory
from itda_core.errors import ItdaError, RunError, StoreError, first_line
from itda_core.files.disk_errors import disk_error_in
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import DAMAGED, RUN_COLUMNS, Run
from itda_core.tables import read_table

_MADE_AGAIN = {
    EVALUATION_FILE: ("evaluation", "Evaluate it again: python -m itda_core evaluate {} --save"),
    SCORES_FILE: ("scores", "Score it again: python -m itda_core score {}"),
}
"""What is in a file that is added to a run, and what makes it again"""


def why_not_imported(run: Run, error: duckdb.Error) -> ItdaError:
    """The error as a sentence that tells whose fault it is. A run is called damaged only where one
    of its files can't be read by another reader either."""
    message = first_line(error)
    if is_of_the_database(error):
        return why_refused(run.run_id, error)
    damage = _damage_of(run)
    if damage:
        return RunError(f"{run.directory} is damaged ({damage}). {DAMAGED}")
    if isinstance(error, duckdb.IOException):
        return RunError(
            f"{run.directory} could not be read just now ({message}). It is tried again in a "
            "minute; its files are left as they are."
        )
    return RunError(
        f"{run.directory} says what the database can't hold ({message}). Its tables can be read "
        "and are left as they are: look at its config.json and metrics.json."
    )


def why_not_added(run: Run, name: str, error: Exception) -> ItdaError:
    """The same of a file without which the run is whole. name: EVALUATION_FILE or SCORES_FILE."""
    what, remedy = _MADE_AGAIN[name]
    if is_of_the_database(error):
        return why_refused(f"the {what} of {run.run_id}", error)
    return RunError(
        f"{run.directory / name} says what the database can't hold ({first_line(error)}). "
        f"{remedy.format(run.run_id)}"
    )


def why_refused(what: str, error: duckdb.Error) -> StoreError:
    """Why the database did not take something in, where its files are not to blame."""
    message = first_line(error)
    named = re.search(r'"([^"]+)"', message)
    if told := disk_error_in(message, Path(named[1]).parent if named else data_directory()):
        return StoreError(str(told))
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in message:
        return StoreError(f"There is not enough memory to import {what} ({message}).")
    return StoreError(
        f"The database did not take in {what} ({message}). The files are left as they are. Start "
        "the explorer again; if it stays so, make the database anew from the run directories: "
        "python -m itda_core rebuild"
    )


def is_of_the_database(error: Exception) -> bool:
    """Whether the database itself fails: its disk, its memory, its state."""
    own = (
        duckdb.OutOfMemoryException,
        duckdb.TransactionException,
        duckdb.InternalException,
        duckdb.FatalException,
        duckdb.InterruptException,
        duckdb.ConnectionException,
    )
    message = str(error)
    return isinstance(error, own) or "No space left" in message or "Out of Memory" in message


def _damage_of(run: Run) -> str:
    """What pyarrow says of the first table of a run that it can't read; "" where it reads all."""
    for name, columns in RUN_COLUMNS.items():
        try:
            read_table(run.directory / name, columns=columns)
        except OSError as error:
            if error.errno is None:  # of the content, not of the disk or of rights
                return f"{name}: {first_line(error)}"
        except (pa.ArrowException, ValueError, KeyError) as error:
            return f"{name}: {first_line(error)}"
    return ""
