"""What a training over many machines and its workers tell each other."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from itda_core.cluster.kept_parts import PartRows
from itda_core.config import ModelSpec
from itda_core.model.tokens import TokenizedText


@dataclass(frozen=True)
class Orders:
    """What each worker of a training is given."""

    spec: ModelSpec
    site: str
    layers: tuple[int, ...]
    memory: int | None
    """bytes that the model may use, as `load_model` takes it"""
    threads: int
    """of a computation on the CPU"""
    runs: Path
    """the folder that all machines reach"""
    token: str
    """a file in it that the command holds: who sees it shares the folder"""
    folder: str
    """in which the command was called: relative paths are meant from there"""
    together: int = 1
    """workers that may share a machine's memory"""


@dataclass(frozen=True)
class Arrival:
    """What a worker says first: the cluster has given it room, and its model is loaded now."""


@dataclass(frozen=True)
class Greeting:
    """What a worker says of itself once its model is there."""

    machine: str
    identity: str
    """of its model"""
    tokenizer: str
    """the digest of the model's"""
    device_type: str
    is_swept: bool
    """whether it reads the model block by block"""
    packages: dict[str, str]
    """version by name"""


@dataclass(frozen=True)
class Failure:
    """What kept a worker from doing a call, as a sentence."""

    machine: str
    sentence: str
    is_input: bool = False
    """Whether what was asked for can't be done as asked"""
    is_disk: bool = False
    """Whether it is the disk that refuses, which another machine may write to"""


@dataclass(frozen=True)
class Share:
    """A part of the plan to be captured."""

    part: int
    windows: list[list[TokenizedText]] = field(repr=False)
    """The tokens of each"""
    kept: list[np.ndarray] | None = field(repr=False)
    """Which rows of each window are kept; None for all"""
    to: list[PartRows] = field(repr=False)
    """Of each layer that is not written yet"""


@dataclass(frozen=True)
class Captured:
    """How far a worker is: a layer of a part that is written now, or only a share of its work."""

    fraction: float
    """of the call, in [0, 1]"""
    part: int | None = None
    layer: int | None = None
