"""What a machine of a cluster is called, and what it computes with: the same on all of them, or no
training."""

import functools
import socket
from importlib import metadata
from pathlib import Path

from itda_core.digests import digest
from itda_core.errors import InputError

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "numba")
"""Beside this package: what the numbers may depend on"""


def machine_name() -> str:
    """What a person calls this machine."""
    return socket.gethostname()


@functools.cache
def packages() -> dict[str, str]:
    """Versions of what the numbers may depend on; of this package a digest of its code."""
    folder = Path(__file__).resolve().parent.parent
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    code = (part for name in sorted(files) for part in (name, files[name].read_bytes()))
    return {"itda-explorer": digest(code), **{name: metadata.version(name) for name in _LIBRARIES}}


def check_packages(machine: str, there: dict[str, str], at_start: dict[str, str]) -> None:
    """Raises InputError where a machine computes with other packages than the one that starts the
    training. machine: its name; there, at_start: what `packages` gives on each."""
    for name, version in there.items():
        if version != at_start.get(name):
            raise InputError(
                f"The machine {machine} has another {name} ({version}) than the one that starts "
                f"the training ({at_start.get(name, 'none')}). Install the same on all machines."
            )
