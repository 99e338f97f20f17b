"""What the parts of the benchmark of devices share: sizes, the clock, results that grow."""

import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.common.harness import Report, Spread, machine, number
from benchmarks.common.made_models import LLAMA3_8B, SMOLLM2, TINY, Shape
from benchmarks.common.on_device import TimeIsUp, synchronize, time_limit

L0 = 32
LEAST_SECONDS = 3.0
"""A part that has less time left is not begun."""


@dataclass(frozen=True)
class Sizes:
    """How much is given to a device; by kind, so that every part ends in its time."""

    small: Shape = SMOLLM2
    large: Shape | None = LLAMA3_8B
    forward_tokens: int = 131_072
    large_forward_tokens: int = 32_768
    pursuit_atoms: tuple[int, ...] = (16_384, 2_048, 4_096, 32_768, 65_536)
    """in the order of their importance"""
    pursuit_tokens: int = 32_768
    checked_tokens: int = 512
    choice_atoms: tuple[int, ...] = (4_096, 16_384)
    trainings: tuple[tuple[int, int], ...] = ((524_288, 4_096), (65_536, 4_096))
    """(tokens, atoms) of the small shape"""
    large_training: tuple[int, int] = (131_072, 4_096)
    copied_bytes: int = 2**31
    agreement_tokens: int = 4_096
    agreement_models: tuple[str, ...] = ("tiny-6x128-0", "tiny-12x96-0")

    @property
    def l0(self) -> int:
        """Terms of a token, few enough that there is something left to explain."""
        return min(L0, self.small.d_model // 4)

    @property
    def as_rows(self) -> dict[str, str]:
        """The sizes that make figures of two devices differ, in words."""
        large = f"{self.large_forward_tokens:,}" if self.large else "not tried"
        trainings = ", ".join(f"{tokens:,}" for tokens, _ in self.trainings)
        fewer = "fewer where time is short"
        return {
            "tokens of a forward pass": f"{self.forward_tokens:,}; 8B shape: {large}",
            "tokens of a pursuit": f"{self.pursuit_tokens:,}, fewer where memory is short",
            "tokens of a training": f"{trainings}, {fewer}"
            + (f"; 8B shape: {self.large_training[0]:,}, {fewer}" if self.large else ""),
        }


SIZES = {
    "cuda": Sizes(),
    "mps": Sizes(
        forward_tokens=16_384,
        large_forward_tokens=2_048,
        pursuit_atoms=(16_384, 2_048, 4_096, 32_768),
        pursuit_tokens=8_192,
        checked_tokens=128,
        choice_atoms=(4_096,),
        trainings=((65_536, 4_096),),
        large_training=(8_192, 1_024),
        copied_bytes=2**29,
    ),
    "cpu": Sizes(
        large=None,
        forward_tokens=1_024,
        pursuit_atoms=(16_384, 2_048, 4_096),
        pursuit_tokens=1_024,
        checked_tokens=64,
        choice_atoms=(4_096,),
        trainings=((8_192, 1_024),),
        copied_bytes=2**28,
    ),
}
"""By the kind of the device."""
QUICK = Sizes(
    small=TINY,
    large=TINY,
    forward_tokens=256,
    large_forward_tokens=128,
    pursuit_atoms=(256,),
    pursuit_tokens=64,
    checked_tokens=16,
    choice_atoms=(64,),
    trainings=((512, 64),),
    large_training=(256, 32),
    copied_bytes=2**20,
    agreement_tokens=256,
    agreement_models=("tiny-6x128-0",),
)
"""To see that everything runs."""


@dataclass
class DeviceReport(Report):
    """Results of one device, written whenever there is a new one."""

    device: dict[str, str] = field(default_factory=dict)
    """name, title and memory of the device, and the sizes that it was given"""
    parts: list[dict] = field(default_factory=list)
    """part, seconds, outcome of each: "measured", or why not"""
    path: Path = Path()

    def row(self, title: str, row: Mapping[str, object], note: str = "") -> None:
        """Add a row to the table of this title, which the first row begins."""
        cells = [number(cell) if isinstance(cell, float) else str(cell) for cell in row.values()]
        table = next((block for block in self.blocks if block.get("table") == title), None)
        if table is None:
            table = {"table": title, "columns": list(row), "rows": [], "note": note}
            self.blocks.append(table)
            print(f"\n{title}\n{' | '.join(table['columns'])}", flush=True)
        table["rows"].append(cells)
        print(" | ".join(cells), flush=True)
        self.save()

    def figure(self, what: str, measured: Spread | float | str) -> None:
        """One line of the table that puts the devices side by side; of several of one name the
        first counts."""
        if any(block.get("figure") == what for block in self.blocks):
            return
        text = number(measured) if isinstance(measured, float) else str(measured)
        self.blocks.append({"figure": what, "measured": text})
        self.save()

    def save(self) -> Path:
        content = {**asdict(self), "machine": machine()}
        del content["path"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partly = self.path.with_suffix(".partly")
        partly.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partly.replace(self.path)
        return self.path

    def go_on(self) -> None:
        """Take over what an earlier process has written."""
        before = json.loads(self.path.read_text(encoding="utf-8"))
        self.blocks, self.parts = before["blocks"], before["parts"]


@dataclass(frozen=True)
class Part:
    """Something to be measured by itself."""

    name: str
    run: Callable[["Bench"], None]
    seconds: float
    """that it may take of eight minutes"""


@dataclass
class Bench:
    """What each part is given."""

    device: torch.device
    sizes: Sizes
    report: DeviceReport
    minutes: float
    started: float = field(default_factory=time.monotonic)
    until: float = 0.0
    """When the part that runs has to end, as time.monotonic() tells it"""
    bandwidth: float | None = None
    """Bytes a second that a copy reads and writes, once that was measured"""

    @property
    def left(self) -> float:
        """Seconds until all has to end."""
        return self.started + 60 * self.minutes - time.monotonic()

    @property
    def left_of_part(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def synchronize(self) -> None:
        synchronize(self.device)

    def measure(self, part: Part) -> bool:
        """Run a part within its time and write down how it went; whether the device still works."""
        seconds = min(part.seconds * self.minutes / 8, self.left)
        started, works = time.monotonic(), True
        self.until = started + seconds
        print(f"\n## {part.name} (at most {seconds:.0f} s)", flush=True)
        if seconds < LEAST_SECONDS:
            outcome = "not measured: no time was left"
        else:
            try:
                with time_limit(seconds):
                    part.run(self)
                outcome = "measured"
            except TimeIsUp as error:
                outcome = str(error)
            except Exception as error:  # whatever is wrong with one part: the others go on
                outcome = f"not measured: {reason(error)}"
                works = self._still_works()
        took = round(time.monotonic() - started, 1)
        self.report.parts.append({"part": part.name, "seconds": took, "outcome": outcome})
        self.report.save()
        print(f"{part.name}: {outcome}, {took} s", flush=True)
        free_cached(self.device)
        return works

    def _still_works(self) -> bool:
        """An error in one of its kernels can leave a GPU unusable for the rest of a process."""
        try:
            torch.zeros(8, device=self.device, dtype=torch.float32).add_(1).sum().item()
            self.synchronize()
        except Exception:
            return False
        return True


def reason(error: BaseException) -> str:
    """An error in one line: its kind where the message alone does not say it."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return first if isinstance(error, ImportError) else f"{type(error).__name__}: {first}"


def free_cached(device: torch.device) -> None:
    """Give back what torch has set aside, so that parts do not see each other's memory."""
    gc.collect()  # a model's hooks and blocks refer to each other
    if device.type in ("cuda", "mps"):
        try:
            getattr(torch, device.type).empty_cache()
        except RuntimeError:  # the device has failed: that was written down already
            return
