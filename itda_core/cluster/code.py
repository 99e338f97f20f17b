"""What a machine runs: the same package on all of them, or no training."""

import functools
import socket
from pathlib import Path

from itda_core.digests import digest


@functools.cache
def code_digest() -> str:
    """Of all modules of the package."""
    folder = Path(__file__).resolve().parent.parent
    files = sorted(folder.rglob("*.py"))
    return digest(part for file in files for part in (file.name, file.read_bytes()))


def host_name() -> str:
    """This machine, as people call it."""
    return socket.gethostname()
