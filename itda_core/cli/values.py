"""What options hold, read from their text; what is wrong with it is an InputError."""

import os
from collections.abc import Callable
from pathlib import Path

from itda_core.errors import InputError


def number_list(option: str) -> Callable[[str], tuple[int, ...]]:
    """Reads whole numbers with commas between them, none where there is no text; option: whose."""

    def read(text: str) -> tuple[int, ...]:
        parts = text.split(",") if text.strip() else []
        try:
            return tuple(int(part) for part in parts)
        except ValueError:
            raise InputError(f"{option} takes numbers such as 7,15,22, got {text!r}.") from None

    return read


def measure_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",")]


def device_name(text: str) -> str:
    """A device of this machine. Raises InputError with those that there are."""
    from itda_core.devices import checked_device

    return checked_device(text)


def cluster_address(text: str) -> str:
    """auto or host:port. Raises InputError for what is neither."""
    from itda_core.cluster.address import checked_address

    return checked_address(text)


def path(text: str) -> Path:
    """A file or folder. `~` is the user's own folder also where no shell has put it in, as behind
    `--runs=`; of a user that there is none it stays."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


def progress_file(text: str) -> Path:
    """A file that lines can be added to."""
    file = path(text)
    if not file.parent.is_dir():
        raise InputError(
            f"--progress can't write {text!r}: there is no folder {file.parent}. Make it first, or "
            "name a file in another folder."
        )
    if file.is_dir():
        raise InputError(f"--progress takes a file, and {text!r} is a folder. Name a file in it.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"--progress can't write {text!r}: change its rights, or name another.")
    return file
