"""The database of a data folder that can only be read: a copy elsewhere, while it is open."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import duckdb

from itda_core.errors import StoreError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.leftovers import leftovers, remove, temporary_name
from itda_core.store.database import Database, connect
from itda_core.store.look import look
from itda_core.store.store import Store

_NAME = "itda-explorer"


class StoreApart(Store):
    """A database in the system's folder for what is temporary, which begins as a copy where there
    is one to copy, else empty, and is gone when it is closed. What is taken into it is in no data
    folder."""

    def __init__(self, path: Path):
        """path: where the database lies, or would. Raises ItdaError where there is no room."""
        self._folder = _own_folder()
        try:
            apart = self._folder / path.name
            if not _is_copied(path, apart):
                remove([*self._folder.iterdir()])
            super().__init__(apart)
        except BaseException:
            remove([self._folder])
            raise

    def close(self) -> None:
        super().close()
        remove([self._folder])


def _own_folder() -> Path:
    """A new folder that nobody else may look into; those of processes that were killed go."""
    around = Path(tempfile.gettempdir())
    remove(leftovers(around, depth=1, name=_NAME))
    folder = around / temporary_name(_NAME)
    with disk_errors_as_sentences(around):
        folder.mkdir(mode=0o700)
    return folder


def _is_copied(path: Path, to: Path) -> bool:
    """Copy a database that is whole, of this version or one that can be brought up to it, and in no
    other process."""
    if not path.exists():
        return False
    with contextlib.suppress(StoreError, duckdb.Error, OSError):
        with contextlib.closing(connect(path, read_only=True)):  # so that nobody writes meanwhile
            for ending in ("", ".wal"):
                file = path.with_name(f"{path.name}{ending}")
                if file.exists():
                    shutil.copyfile(file, to.with_name(f"{to.name}{ending}"))
        Database(to).close()  # which brings it up to this version
        look(to)
        return True
    return False
