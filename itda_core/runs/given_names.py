"""What people call their dictionaries: names.json, beside the folder of runs.

{"version": 1, "names": {run_id: name}}: a small file, written whole. It belongs to no run
directory, so that a run stays what its training wrote, and to no database, so that a rebuild loses
nothing.
"""

import threading
from pathlib import Path

from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.json_files import read_json, write_json
from itda_core.signs import has_half_character

NAMES_FILE = "names.json"
LONGEST_NAME = 60
_VERSION = 1
_writing = threading.Lock()


def names_file(runs: Path) -> Path:
    """Where the names of the runs in a folder are kept."""
    return runs.absolute().parent / NAMES_FILE


def read_names(file: Path) -> dict[str, str]:
    """Names by run id; none where there is no file. Raises RunError where it can't be used."""
    if not file.exists():
        return {}
    try:
        content = read_json(file)
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise ValueError(f"it is not of version {_VERSION}")
        names = content.get("names")
        if not isinstance(names, dict):
            raise ValueError("it has no names by run")
        return {run_id: _checked(name) for run_id, name in names.items()}
    except Exception as error:  # whatever the file holds
        raise why_unreadable(
            file, error, "Mend it, or delete it to be without given names."
        ) from error


def keep_name(file: Path, run_id: str, name: str) -> None:
    """Call a dictionary so; an empty name takes its name away. Raises InputError for a name that
    can't be kept, RunError where the file can't be read: then it is left as it is."""
    name = _checked(name)
    with _writing, disk_errors_as_sentences(file.parent):
        names = read_names(file)
        if names.get(run_id, "") == name:
            return
        names = {**names, run_id: name} if name else {k: v for k, v in names.items() if k != run_id}
        write_json(file, {"version": _VERSION, "names": names})


def _checked(name: object) -> str:
    """A name as it is kept, without white space around it."""
    if not isinstance(name, str):
        raise InputError("A name is text.")
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME:
        raise InputError(f"A name has at most {LONGEST_NAME} characters, got {len(name)}.")
    if has_half_character(name):
        raise InputError("The name holds half a character (a lone surrogate).")
    return name
