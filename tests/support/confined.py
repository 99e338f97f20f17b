"""Children whose disk is really full or closed, and who have no rights that root has.

What libraries write by themselves (Parquet, safetensors, DuckDB) knows nothing of Python's audit
events, so that a disk has to refuse it: a small one in the child's own view of the file system.
"""

import ctypes
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

_NEW_VIEW, _PRIVATE, _READ_ONLY = 0x00020000, 0x44000, 1  # CLONE_NEWNS, MS_REC | MS_PRIVATE
_REMOUNT, _BIND = 32, 4096
_CAPABILITIES = 0x20080522
"""Version 3 of capget(2)"""
_OF_FILES = 0b11110
"""DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER and FSETID: by which root passes over rights"""


def small_disk(folder: Path, n_bytes: int) -> None:
    """Lay a disk of so many bytes over a folder, with what the folder holds. It goes with the
    child, who has to look at it itself. Raises OSError where the system lets nobody do that, or the
    disk is too small for what is there."""
    held = folder.with_name(f"{folder.name}-held")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(held)
    folder.mkdir()
    _own_view()
    _mount(b"tmpfs", folder, b"tmpfs", 0, f"size={n_bytes}".encode())
    shutil.copytree(held, folder, dirs_exist_ok=True)


def read_only(folder: Path) -> None:
    """Let a folder be read alone, by anyone. Raises OSError where the system lets nobody do
    that."""
    _own_view()
    _mount(str(folder).encode(), folder, None, _BIND)
    _mount(b"none", folder, None, _REMOUNT | _BIND | _READ_ONLY)


def without_rights_of_root() -> None:
    """The rights of files count from now on, for root as well."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        sets[0] &= ~_OF_FILES
        sets[1] &= ~_OF_FILES
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "root can't be had without its rights")


def small_files(n_bytes: int) -> None:
    """No file may become larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def little_memory(n_bytes: int) -> None:
    """The process may have so much more address space than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + n_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Little:
    """What confines a child to so many bytes, of the disk of its folder, of each file or of
    memory."""

    of: str
    """disk, files or memory"""
    n_bytes: int

    @property
    def leaves_nothing(self) -> bool:
        """Whether what the child writes goes with it."""
        return self.of == "disk"

    def __call__(self, folder: Path) -> None:
        if self.of == "disk":
            small_disk(folder, self.n_bytes)
        else:
            {"files": small_files, "memory": little_memory}[self.of](self.n_bytes)


def _own_view() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_VIEW):
        raise OSError(ctypes.get_errno(), "the system gives nobody a view of their own")
    _mount(b"none", Path("/"), None, _PRIVATE)


def _mount(
    source: bytes, target: Path, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, str(target).encode(), kind, ctypes.c_ulong(flags), data):
        raise OSError(ctypes.get_errno(), f"{target} can't be mounted")
