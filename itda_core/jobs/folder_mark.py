"""By what a job knows the folder that it was queued in (`Job.mark`).

Whoever is handed a data folder is handed its queue, whose commands may write anywhere and join any
cluster. So a job starts by itself only in the folder where this person queued it, on this machine:
its mark is made of the folder's inode and of a secret that is kept outside of all data folders.
"""

import contextlib
import os
import secrets
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

_BYTES = 32
_OF_THIS_PROCESS = secrets.token_hex(_BYTES)
"""Where no secret can be kept: then jobs that an earlier process left wait to be let in"""


def folder_mark(folder: Path) -> str:
    """A folder of jobs to this person on this machine, in 16 hexadecimal digits: the same after a
    restart and a renaming, another one for a copy beside it, and to anybody else. Empty where
    there is no such folder."""
    with contextlib.suppress(OSError):
        said = f"jobs {_secret()} {folder.stat().st_ino}"  # not as it was written into jobs before
        return blake2b(said.encode(), digest_size=8).hexdigest()
    return ""


def _secret() -> str:
    """This person's, made once."""
    try:
        path = _secret_file()
        if not path.exists():
            _make(path)
        kept = path.read_text("utf-8")
    except (OSError, ValueError):
        return _OF_THIS_PROCESS
    return kept if len(kept) == 2 * _BYTES else _OF_THIS_PROCESS


def _secret_file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("itda-explorer", appauthor=False) / "secret"


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name("secret.lock")):
        if path.exists():  # by another process, just now
            return
        new = path.with_name("secret.new")
        new.unlink(missing_ok=True)
        opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(secrets.token_hex(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
