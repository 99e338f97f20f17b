"""Trainings that stopped before they were done."""

from pathlib import Path

from itda_core.config import TrainConfig
from itda_core.errors import InputError, RunError
from itda_core.files.json_files import read_json
from itda_core.leftovers import remove_leftovers
from itda_core.runs.training_lock import (
    is_held,
    lock_file,
    remove_if_free,
)


def interrupted_trainings(runs: Path) -> dict[str, TrainConfig]:
    """Trainings that stopped before they were done, by training id; those can be resumed."""
    read = _read_waiting(runs)
    return {name: config for name, config in read.items() if isinstance(config, TrainConfig)}


def lost_trainings(runs: Path) -> dict[str, str]:
    """Those that can't be resumed, and why: their settings are damaged, of a newer version, or
    such that they end in the same error each time. They can only be deleted."""
    read = _read_waiting(runs)
    lost = {name: str(error) for name, error in read.items() if isinstance(error, InputError)}
    # A folder that no training ever held belongs to something else.
    return {name: why for name, why in lost.items() if lock_file(runs / f".{name}").exists()}


def _read_waiting(runs: Path) -> dict[str, TrainConfig | InputError]:
    """The settings of each training that nobody works on, or why they can't be used."""
    read: dict[str, TrainConfig | InputError] = {}
    for path in sorted(runs.glob(".*/config.json")):
        folder = path.parent
        is_other = folder.name.startswith((".writing-", ".deleted-"))
        if is_other or is_held(folder):
            continue
        try:
            read[folder.name[1:]] = TrainConfig.from_dict(read_json(path))
        except InputError as error:
            read[folder.name[1:]] = error
        except OSError as error:
            reason = error.strerror or error
            read[folder.name[1:]] = InputError(f"Its settings can't be read ({reason}).")
        except Exception:  # whatever else a file holds
            read[folder.name[1:]] = InputError("Its settings are damaged.")
    return read


def delete_interrupted(runs: Path, training_id: str) -> None:
    """Give up an interrupted training; what it has on disk is removed. Raises RunError where it
    can't be."""
    if training_id in interrupted_trainings(runs) or training_id in lost_trainings(runs):
        directory = runs / f".{training_id}"
        remove_if_free(directory)
        remove_leftovers(runs, depth=2)
        if directory.exists() and not is_held(directory):
            raise RunError(
                f"{directory} can't be removed. Close what uses it, or change the rights of it and "
                f"of {runs}, and discard it again."
            )
