"""The devices that compute: which there are, what is free on them, and what to say where two differ
or one is full."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

from itda_core.errors import FullMemory, InputError, ItdaError, first_line, is_of_memory

Result = TypeVar("Result")
FULL_MEMORY = (RuntimeError, MemoryError, FullMemory)
"""The kinds of errors that say so, among others"""


@dataclass(frozen=True)
class Device:
    """A device of this machine."""

    name: str
    """as `--device` takes it: "cpu", "mps", "cuda:0" """
    title: str
    """what it is, such as "NVIDIA H200" """
    total: int
    """bytes of its memory"""
    free: int
    """bytes that can be had now"""
    trouble: str = ""
    """why it can't be opened; then nothing is known of its memory, and both are 0"""

    @property
    def kind(self) -> str:
        """cpu, cuda, mps …"""
        return kind_of(self.name)


def devices() -> list[Device]:
    """Every device of this machine, in the order of `device_names`. What is free on a GPU is known
    from inside alone: asking takes some hundred MB of its memory. One that can't be opened, as
    where another process has it for itself, says why."""
    return [_described_or_why_not(name) for name in device_names()]


def device_names() -> list[str]:
    """The devices of this machine, the fastest kind first; the CPU last."""
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return [*names, "cpu"]


def kind_of(name: str) -> str:
    """What kind of device this is: of "cuda:1" it is "cuda"."""
    return name.partition(":")[0]


def numbered(name: str) -> str:
    """A device as `device_names` calls it: "cuda" alone is the first one, and of the other kinds
    there is one."""
    if kind_of(name) in ("cpu", "mps"):
        return kind_of(name)
    return "cuda:0" if name == "cuda" else name


def best_device() -> str:
    """What computes where nothing is said: the setting ITDA_DEVICE, else CUDA, else MPS, else the
    CPU. Raises InputError where the setting names a device that is not there."""
    if chosen := os.environ.get("ITDA_DEVICE"):
        try:
            return checked_device(chosen)
        except InputError as error:
            raise InputError(f"{error} ITDA_DEVICE names it: change that, or unset it.") from error
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_or_best(name: str | None) -> str:
    """`name` as `checked_device` gives it, or what computes where nothing is said."""
    return checked_device(name) if name else best_device()


def checked_device(name: str) -> str:
    """`name`, where this machine has such a device. Raises InputError with those that it has, or
    with the reason where it can't be opened."""
    names = device_names()
    try:
        kind = torch.empty(1, device=name, dtype=torch.uint8).device.type
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            return name
        if name in names or (name == "cuda" and "cuda:0" in names):
            told = f"The device {name!r} can't be opened: {first_line(error)}"
            raise InputError(told) from error
        kind = None
    own = torch._C._get_privateuse1_backend_name()  # one that registered itself is in no list
    if kind in (*map(kind_of, names), own):
        return name
    told = f"There is no device {name!r} here. There is: {', '.join(names)}."
    if kind_of(name) == "cuda" and torch.version.cuda is None:
        told += f" This torch, {torch.__version__}, is built without CUDA."
    raise InputError(told)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now; for MPS, which shares it, main memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has set aside and does not use can be had as well.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def check_same_device(**tensors: torch.Tensor) -> None:
    """Raises InputError where tensors that work together are on several devices. tensors: by what
    the caller calls them, such as activations and atoms."""
    places = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(places.values())) <= 1:
        return
    (first, here), *others = places.items()
    other, there = next((name, place) for name, place in others if place != here)
    remedy = f'Move one to the other, such as {other}.to("{here}").'
    if other == "gram":  # whose numbers depend on the device
        remedy = f"Make it on {here}: gram_matrix(atoms)."
    raise InputError(f"The {first} are on the device {here}, the {other} on {there}. {remedy}")


def working_on(device: torch.device) -> AbstractContextManager:
    """Within this context, and in this thread, what is made on "cuda" without a number is made on
    this device; nothing where it is no such one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, in which sums are kept; MPS does not, nor has it all of
    linear algebra."""
    return device.type != "mps"


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64, on the host where its device has none."""
    return (tensor if has_float64(tensor.device) else tensor.cpu()).double()


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A host's tensor on a device, without waiting for what the device still computes."""
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu" or not tensor.numel():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Tensors of one device in main memory, in one transfer: the host waits once for all of them.
    On a CPU they are given back as they are."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    # The widest types first: each then begins at a multiple of its own size.
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].itemsize)
    flat = [tensors[place].contiguous().flatten().view(torch.uint8) for place in order]
    parts = torch.cat(flat).cpu().split([len(part) for part in flat])
    found = {
        place: part.view(tensors[place].dtype).view(tensors[place].shape)
        for place, part in zip(order, parts, strict=True)
    }
    return [found[place] for place in range(len(tensors))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether something failed because a device's memory, or main memory, was full."""
    return isinstance(error, torch.OutOfMemoryError | FullMemory) or is_of_memory(error)


def halving(
    work: Callable[[int, int], Result], total: int, together: int, say: str
) -> Iterator[Result]:
    """work(first, last) for consecutive ranges of 0 to `total` (not included), `together` at once.

    Where memory is full, the range is halved and tried again, down to one, and later ranges stay
    as small; `work` must then be able to begin a range anew. Results given so far stand. Raises
    FullMemory with `say`, which names what one is and what to change, where one does not fit;
    within other such work that is halved in turn.
    """
    first = 0
    while first < total:
        last = min(total, first + together)
        full, result = _tried(work, first, last)
        if full is None:
            yield result
            first = last
        elif last - first == 1:
            raise FullMemory(f"{say} ({full})")
        else:
            together = (last - first) // 2
            free_cached_memory()


def free_cached_memory() -> None:
    """Give back what torch has set aside on GPUs and does not use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _tried(work: Callable[[int, int], Result], first: int, last: int):
    """None and the result, or what was said where memory was full. The error itself goes no
    further: it would keep alive all that the work had made until then."""
    try:
        return None, work(first, last)
    except FULL_MEMORY as error:
        return what_was_full(error), None


def what_was_full(error: Exception) -> str:
    """What was said where memory was full; any other error is raised again."""
    if not is_out_of_memory(error):
        raise error
    return _said(error)


def _described_or_why_not(name: str) -> Device:
    try:
        return described(name)
    except (RuntimeError, AssertionError) as error:
        return Device(name, kind_of(name), 0, 0, first_line(error))


def _said(error: BaseException) -> str:
    return first_line(error) if str(error) else "memory is full"


@contextmanager
def full_memory_as_sentence(device: torch.device, remedy: str) -> Iterator[None]:
    """Turns a memory that is full, where no smaller part can be tried, into FullMemory with what to
    do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ItdaError) or not is_out_of_memory(error):
            raise
        sentence = f"Memory is full on the device {device} ({_said(error)})."
        raise FullMemory(f"{sentence} {remedy}") from error


def described(name: str) -> Device:
    """A device with its title and memory."""
    device = torch.device(name)
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return Device(name, facts.name, facts.total_memory, free_memory(device))
    title = "Apple GPU" if device.type == "mps" else f"CPU, {os.cpu_count()} cores"
    return Device(name, title, psutil.virtual_memory().total, free_memory(device))
