"""By what a job knows the folder that it was queued in.

Whoever is handed a data folder is handed its queue, whose commands may write anywhere and join any
cluster. So a job starts by itself only in the folder, on the machine, where it was queued.
"""

import contextlib
import platform
from hashlib import blake2b
from pathlib import Path

_MACHINE = Path("/etc/machine-id")
"""Of systemd: a number that no two machines have in common, and nobody else is told"""


def folder_mark(folder: Path) -> str:
    """A folder of jobs on this machine, in 16 hexadecimal digits: the same after a restart and a
    renaming, another one for a copy, on another disk or machine. Empty where there is no such
    folder."""
    with contextlib.suppress(OSError):
        said = f"{_machine()} {folder.stat().st_ino}"
        return blake2b(said.encode(), digest_size=8).hexdigest()
    return ""


def _machine() -> str:
    with contextlib.suppress(OSError, ValueError):
        if said := _MACHINE.read_text().strip():
            return said
    return platform.node()
