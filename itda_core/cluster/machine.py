"""What a machine of a cluster is called, and what it computes with: the same on all of them, or no
training."""

import contextlib
import functools
import os
import socket
from importlib import metadata
from pathlib import Path

from itda_core.data_folder import code_directory, data_directory, is_checkout
from itda_core.digests import digest
from itda_core.errors import InputError

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "numba")
"""Beside this package: what the numbers may depend on"""

_PASSED_ON = ("ITDA_MEMORY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Environment variables that hold on all machines as they do where the command was called; which
device computes each machine says itself (ITDA_DEVICE)"""


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


def environment() -> dict[str, str]:
    """Of processes on the cluster: what was said to the command holds there, too, and the package
    of a checkout is found."""
    said = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if "ITDA_DATA" in os.environ:
        said["ITDA_DATA"] = str(data_directory().absolute())
    if is_checkout():
        paths = [str(code_directory()), *filter(None, [os.environ.get("PYTHONPATH")])]
        said["PYTHONPATH"] = os.pathsep.join(paths)
    # Several OpenMP runtimes in one process stall each other when they spin.
    return {**said, "OMP_WAIT_POLICY": "passive"}


def go_to(folder: str) -> None:
    """Relative paths are meant from where the command was called; where that folder is not here,
    they alone are not found."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
