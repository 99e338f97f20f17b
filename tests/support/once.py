"""What is made once in a test session, whichever of its workers needs it first."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of all workers that `make` fills; the others wait for it. Only to be read."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own in that of the session.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            filling = folder.with_suffix(".filling")
            filling.mkdir()
            make(filling)
            filling.rename(folder)
    return folder
