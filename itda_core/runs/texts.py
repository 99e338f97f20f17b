"""Texts that are too long for a link, kept beside the runs by their digest, so that the link finds
them again.

texts/<digest>.txt, in UTF-8: written whole or not at all, checked by the digest when it is read.
Those that were looked at longest ago make room for others.
"""

import contextlib
import os
import re
from pathlib import Path

from itda_core.digests import digest
from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.files.writing import write_atomically

TEXTS_FOLDER = "texts"
LONGEST_TEXT = 1_000_000
"""Bytes of one text"""
MOST_TEXTS = 1_000
_NAME = re.compile(r"[0-9a-f]{32}")


def texts_folder(runs: Path) -> Path:
    """Where the texts beside a folder of runs are kept."""
    return runs.absolute().parent / TEXTS_FOLDER


def keep_text(folder: Path, text: str) -> str:
    """Keep a text; returns its digest, by which `kept_text` finds it. Raises InputError where it
    is too long to be kept, ItdaError where the disk refuses."""
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > LONGEST_TEXT:
        raise InputError(f"A text of more than {LONGEST_TEXT:,} bytes is not kept for links.")
    name = digest(content, size=16)
    path = folder / f"{name}.txt"
    with disk_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _note_look(path)
        else:
            write_atomically(path, content)
            _make_room(folder)
    return name


def kept_text(folder: Path, name: str) -> str | None:
    """The text with a digest; None where there is none, or its file is not what was written."""
    if not _NAME.fullmatch(name):  # a link can ask for anything
        return None
    path = folder / f"{name}.txt"
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_TEXT + 1)
        if digest(content, size=16) != name:
            return None
        _note_look(path)
        return content.decode("utf-8", "surrogatepass")
    except (OSError, UnicodeError):
        return None


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago, beyond `MOST_TEXTS`."""
    used = {}
    for path in folder.glob("*.txt"):
        with contextlib.suppress(FileNotFoundError):  # another session removes some as well
            used[path] = path.stat().st_mtime_ns
    for path in sorted(used, key=used.get)[:-MOST_TEXTS]:
        path.unlink(missing_ok=True)


def _note_look(path: Path) -> None:
    """That a text was looked at; a folder that can only be read makes no room for others."""
    with contextlib.suppress(OSError):
        os.utime(path)
