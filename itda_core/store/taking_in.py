"""What ended the process that took it in, and is left out from then on.

A file that somebody made, such as a table that unfolds to more than the memory, can end a process
without an error that could be caught. Left alone, it would do so at each start.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from itda_core.digests import digest
from itda_core.errors import ItdaError, RunError
from itda_core.files.json_files import read_json, write_json

TAKING_IN_FILE = "taking-in.json"
MOST_ENDS = 3
"""Processes that may end before it is left out: one may be ended by somebody meanwhile"""


class TakingIn:
    """Notes beside the database what is taken in, for as long as it takes."""

    def __init__(self, database: Path | str):
        """database: its path, or ":memory:", of which nothing is noted."""
        self._file = None if database == ":memory:" else Path(database).with_name(TAKING_IN_FILE)
        self._lock = threading.Lock()

    @contextmanager
    def of(self, path: Path, seen: object) -> Iterator[None]:
        """Within this context a file or folder is taken in. seen: tells whether it has changed.
        Raises RunError where as many processes as may be have ended in it since then."""
        name = digest(repr((str(path), seen)))
        ends = 0
        with contextlib.suppress(OSError):
            ends = self._ends().get(name, 0)
        if ends >= MOST_ENDS:
            raise RunError(
                f"{path} is left out: the explorer has ended {ends} times while it took it in, "
                "perhaps for want of memory. Move it away or bring back a copy of it; to have it "
                f"tried again as it is, delete {self._file}."
            )
        self._note(name, ends + 1)
        try:
            yield
        finally:
            self._note(name, 0)

    def _ends(self) -> dict[str, int]:
        """How many processes ended, by what they took in; nothing where the file is damaged. Raises
        OSError where it can't be read now."""
        if self._file is None or not self._file.exists():
            return {}
        with contextlib.suppress(ValueError, ItdaError):
            said = read_json(self._file)
            if isinstance(said, dict):
                return {name: ends for name, ends in said.items() if isinstance(ends, int)}
        return {}

    def _note(self, name: str, ends: int) -> None:
        """Without a note a disk that is full still lets runs be taken in, as far as it goes."""
        if self._file is None:
            return
        with self._lock, contextlib.suppress(OSError, ItdaError):
            noted = {key: value for key, value in self._ends().items() if key != name}
            if ends:
                noted[name] = ends
            if noted:
                write_json(self._file, noted)
            else:
                self._file.unlink(missing_ok=True)
