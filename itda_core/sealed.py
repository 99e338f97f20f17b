"""Digests of the files of a folder, kept in it, by which a bit that has flipped is noticed.

digests.json    {"version": 1, "files": {name: {"bytes", "blake2b"}}, "next": {…}, "digest"}

What is replaced later is noted under `next` before it is written, so that a process that is killed
in between leaves no file that is taken for damaged.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from itda_core.digests import digest
from itda_core.errors import RunError
from itda_core.files.foreign import open_foreign
from itda_core.files.json_files import json_bytes, read_json
from itda_core.files.writing import write_atomically

DIGESTS_FILE = "digests.json"
_VERSION = 1
_LOCK = ".digests.lock"
_SIZE = 16
"""Bytes of a digest"""

Entry = dict[str, Any]
"""bytes and blake2b of a file"""
Faults = dict[str, Exception]
"""By the name of a file: ValueError where it is not what was written, or is gone; OSError where
that can't be told"""


def seal(folder: Path, names: Iterable[str] | None = None) -> None:
    """Keep the digests of some files of a folder, by default of every one but hidden ones. Raises
    OSError or ValueError where one can't be read."""
    chosen = names_to_seal(folder) if names is None else names
    files = {name: entry_of(folder / name) for name in chosen}
    _write(folder, {"files": files, "next": {}})


def names_to_seal(folder: Path) -> list[str]:
    """The files of a folder that get digests: folders that somebody put there are no part of it."""
    there = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path.name for path in there if path.name != DIGESTS_FILE and not path.is_dir())


def is_sealed(folder: Path) -> bool:
    """Whether a folder has digests; those that an earlier version wrote have none."""
    return os.path.lexists(folder / DIGESTS_FILE)


def sealed_names(folder: Path) -> list[str]:
    """The files that have digests. Raises OSError or ValueError where these can't be read."""
    return list(_read(folder)["files"]) if is_sealed(folder) else []


def write_sealed(path: Path, content: bytes, begin: bool = False) -> None:
    """Write a file atomically, and its digest where its folder has any. begin: also where it has
    none yet. Raises RunError where the folder is gone, as of a run that was deleted meanwhile."""
    if not path.parent.is_dir():  # which the lock would make anew
        raise RunError(f"{path.parent} is gone: {path.name} could not be kept.")
    with FileLock(path.with_name(_LOCK)):
        try:
            kept = _read(path.parent) if is_sealed(path.parent) else None
        except (OSError, ValueError):  # what can't be read is told when it is checked
            write_atomically(path, content)
            return
        kept = kept or ({"files": {}, "next": {}} if begin else None)
        if kept is None:
            write_atomically(path, content)
            return
        files, coming = kept["files"], kept["next"]
        if path.name in coming and not _fault(path, [coming[path.name]]):
            files[path.name] = coming[path.name]
        coming[path.name] = {"bytes": len(content), "blake2b": digest(content, _SIZE)}
        _write(path.parent, kept)
        write_atomically(path, content)
        files[path.name] = coming.pop(path.name)
        with contextlib.suppress(OSError):  # it is there, and its digest is one of two
            _write(path.parent, kept)


def faults(folder: Path, names: Iterable[str] | None = None, only_sizes: bool = False) -> Faults:
    """What is wrong with the files that have digests, by name; nothing of a folder without any.
    names: those that are looked at; that the digests themselves can't be read is told where all
    are, since it says nothing against a file. only_sizes: without reading them."""
    wanted = None if names is None else list(names)
    while is_sealed(folder):
        try:
            kept = _read(folder)
            found = _faults(folder, kept, wanted, only_sizes)
            if not found or kept == _read(folder):  # else one was replaced meanwhile
                return found
        except (OSError, ValueError) as error:
            return {DIGESTS_FILE: error} if wanted is None else {}
    return {}


def _faults(
    folder: Path, kept: dict[str, dict[str, Entry]], names: list[str] | None, only_sizes: bool
) -> Faults:
    known = {**kept["files"], **kept["next"]}
    found: Faults = {}
    for name in known if names is None else [name for name in names if name in known]:
        entries = [kept[which][name] for which in ("files", "next") if name in kept[which]]
        may_lack = name not in kept["files"]
        if may_lack and not (folder / name).exists():  # the process ended before it wrote it
            continue
        if error := _fault(folder / name, entries, only_sizes):
            found[name] = error
    return found


def digests_of(folder: Path, names: Iterable[str]) -> bytes:
    """The content of `digests.json` for a copy of some files of a folder, as they were written;
    those without a digest get one. Raises OSError or ValueError where one can't be read."""
    known = _read(folder)["files"] if is_sealed(folder) else {}
    files = {name: known.get(name) or entry_of(folder / name) for name in names}
    return _content({"files": files, "next": {}})


def entry_of(path: Path) -> Entry:
    """What is kept of a file. Raises ValueError where it is none, which might be endless."""
    with open_foreign(path) as file:
        state = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_SIZE))
        return {"bytes": file.tell(), "blake2b": state.hexdigest()}


def _fault(path: Path, entries: list[Entry], only_sizes: bool = False) -> Exception | None:
    """Why a file is none of those that it may be."""
    try:
        size = path.stat().st_size
        if size not in [entry["bytes"] for entry in entries]:
            return ValueError(f"it has {size:,} bytes, and {entries[0]['bytes']:,} were written")
        if not only_sizes and entry_of(path) not in entries:
            return ValueError("it is not what was written: its digest is another one")
    except FileNotFoundError:
        return ValueError("it is gone")
    except (OSError, ValueError) as error:
        return error
    return None


def _read(folder: Path) -> dict[str, dict[str, Entry]]:
    """Raises ValueError where the digests are not what was written."""
    kept = read_json(folder / DIGESTS_FILE)
    if not isinstance(kept, dict) or not isinstance(kept.get("version"), int):
        raise ValueError("it holds no digests")
    if kept["version"] > _VERSION:
        raise ValueError("it was written by a newer version, or is not what was written")
    whole = {name: kept.get(name) for name in ("files", "next")}
    if kept["version"] != _VERSION or kept.get("digest") != _own_digest(whole):
        raise ValueError("it is not what was written: its own digest is another one")
    for entries in whole.values():
        if not isinstance(entries, dict) or not all(map(_is_entry, entries, entries.values())):
            raise ValueError("it holds no digests of files in its folder")
    return whole


def _is_entry(name: str, entry: Any) -> bool:
    """Whether this is of a file that can lie in the folder itself."""
    is_plain = not {"/", "\\", "\0"} & set(name) and 0 < len(name.encode(errors="replace")) < 256
    if not (is_plain and isinstance(entry, dict)):
        return False
    return type(entry.get("bytes")) is int and isinstance(entry.get("blake2b"), str)


def _write(folder: Path, kept: Mapping[str, Any]) -> None:
    write_atomically(folder / DIGESTS_FILE, _content(kept))


def _content(kept: Mapping[str, Any]) -> bytes:
    whole = {"version": _VERSION, **kept, "digest": _own_digest(kept)}
    return json_bytes(whole)


def _own_digest(kept: Mapping[str, Any]) -> str:
    return digest(json.dumps({name: kept[name] for name in ("files", "next")}, sort_keys=True))
