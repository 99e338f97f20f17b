"""How much memory a model may use: what is said, the setting ITDA_MEMORY, or what is free."""

import os
import sys
from dataclasses import replace

import torch

from itda_core import devices
from itda_core.errors import InputError, SettingError
from itda_core.settings import MEMORY

_FREE_SHARE = 0.9
"""Of what is free: what a model may use where nothing is said"""


_BYTES = replace(MEMORY, kind="whole", min=1, below="")
"""What code may say: less than a person, of whom so little is a slip"""


def memory_setting() -> int | None:
    """Bytes that ITDA_MEMORY says; None where it is not set. Raises InputError where it is no
    size."""
    text = os.environ.get("ITDA_MEMORY")
    if not text:
        return None
    try:
        return MEMORY.read(text)
    except SettingError as error:
        told = str(error).replace(MEMORY.key, "ITDA_MEMORY", 1)
        raise InputError(f"{told} Change that, or unset it.") from error


def size_in_words(count: int) -> str:
    """Bytes for people: "60 MB", "1.50 GB"."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def usable_memory(device: torch.device | str, memory: int | None = None) -> int:
    """Bytes that a model's weights may take on a device: `memory`, else the setting ITDA_MEMORY,
    else most of what is free there. Where a device does not say what is free, a model is loaded, or
    says that there is no room for it. Raises SettingError for what is no number of bytes."""
    _BYTES.check(memory)
    chosen = memory_setting() if memory is None else memory
    if chosen is not None:
        return chosen
    try:
        return int(_FREE_SHARE * devices.described(str(device)).free)
    except (RuntimeError, AssertionError):
        return sys.maxsize


def memory_of_each(together: int, memory: int | None = None) -> int | None:
    """What `load_model` is to be told in one of several processes that compute on one device: their
    equal share of it, however many are there already. memory: where it is said it holds for each,
    as ITDA_MEMORY does."""
    if together < 2 or memory is not None or memory_setting() is not None:
        return memory
    try:
        found = devices.described(devices.best_device())
    except (RuntimeError, AssertionError):  # it does not say what is free
        return None
    return int(_FREE_SHARE * min(found.free, found.total // together)) or None
