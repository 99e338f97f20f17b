"""How far a pass over many texts is, and what it has given."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Step(Generic[Value]):
    """One step of a pass over several batches of texts.

    A model in memory gives the values of one batch after another. One that is read block by block
    takes all batches through a block before it reads the next, and tells in between how far it is.
    """

    fraction: float
    """of the work of the whole call that is done, in [0, 1]"""
    number: int | None = None
    """of the batch or stream whose value this is; None where there is only progress"""
    value: Value | None = None
