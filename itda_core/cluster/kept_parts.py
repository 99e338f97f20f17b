"""What a training over many machines keeps of its activations: rows of its plan, in parts.

A part is a file for each layer in the form of a folder of activations, so that several machines
write parts without asking each other; one that is there is whole, and is not made again. Who goes
on with a training looks whether a bit of it has flipped since.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from itda_core.activations.folder_writer import is_as_summed, part_file, tensor_name, write_rows
from itda_core.activations.plan import Plan
from itda_core.activations.pool import sample_rows, sample_size
from itda_core.config import TrainConfig
from itda_core.digests import digest

_PART_BYTES = 2**27
"""Of one layer of a part, at most where a window has not more by itself"""
_MOST_PARTS = 4_096
"""However long the plan is, where that leaves parts below `_PART_BYTES`"""
_UNUSABLE = "unusable"


class KeptRows:
    """Which rows of a plan are kept, and which part has them: the same for every number of
    machines, so that a training goes on with others."""

    def __init__(self, plan: Plan, config: TrainConfig, width: int):
        """width: components of an activation."""
        counts = np.concatenate([[0], np.cumsum(plan.rows)])
        self.edges = counts[[0, *(last for _, last in plan.windows)]]
        """[n_windows + 1] first row of each window, and how many rows there are"""
        self.rows = _kept(config, int(counts[-1]))
        """[n_kept] row numbers, ascending"""
        self.parts = self._grouped(4 * width)
        """First window of each part and the one after its last"""
        firsts = [first for first, _ in self.parts]
        at_edges = self.edges[[*firsts, len(plan.windows)]]
        self.starts = np.searchsorted(self.rows, at_edges)
        """[n_parts + 1] where the rows of each part begin among those that are kept"""
        ids = (text.ids.tobytes() for text in plan.texts)
        places = (numbers.tobytes() for numbers in (self.edges, self.rows, self.starts))
        self.digest = digest([*places, *ids])
        """Names which rows these are: parts of others, such as those that another version cut
        differently, are not theirs"""

    def of_window(self, window: int) -> np.ndarray:
        """[n] which rows of a window are kept, counted from its first."""
        start, end = self.edges[window : window + 2]
        return self.rows[slice(*np.searchsorted(self.rows, [start, end]))] - start

    def _grouped(self, row_bytes: int) -> list[tuple[int, int]]:
        """Windows in parts, by the rows that are kept of them."""
        n_windows = len(self.edges) - 1
        together = -(-n_windows // _MOST_PARTS)
        groups, first = [], 0
        for window in range(1, n_windows + 1):
            # With the window itself, which the part would hold as well.
            ends = self.edges[[first, min(window + 1, n_windows)]]
            kept = np.diff(np.searchsorted(self.rows, ends))[0]
            is_full = window - first >= together or kept * row_bytes > _PART_BYTES
            if is_full or window == n_windows:
                groups.append((first, window))
                first = window
        return groups


def _kept(config: TrainConfig, total: int) -> np.ndarray:
    """The explored rows and those that atoms are chosen from: with the threshold all."""
    if config.selection != "coverage":
        return np.arange(total)
    sample = sample_rows(total, sample_size(config.max_atoms), config.seed)
    return np.union1d(np.arange(min(config.explored_tokens, total)), sample)


@dataclass(frozen=True)
class PartRows:
    """The rows that are kept of one layer, read from the parts that hold them."""

    folder: Path
    layer: int
    site: str
    dtype: str
    """of the model, in which they are kept where it holds the same numbers"""
    starts: np.ndarray = field(repr=False)
    """[n_parts + 1] see `KeptRows`"""
    length: int
    """How many of them this is, the first ones"""

    def __len__(self) -> int:
        return self.length

    def path(self, part: int) -> Path:
        return self.folder / part_file(part, self.layer, self.site)

    def write(self, part: int, rows: torch.Tensor, unusable: list[int]) -> None:
        """Write a part, whole or not at all. rows: [n_rows, d_model] float32 of any device;
        unusable: how many rows of each of its windows, whether kept or not, are not finite or zero.
        Raises OSError where the disk refuses."""
        counts = torch.tensor(unusable, dtype=torch.float32, device="cpu")
        tensors = {tensor_name(self.layer, self.site): rows, _UNUSABLE: counts}
        write_rows(self.folder, self.path(part).name, tensors, model=self.dtype, summed=True)

    def take_up(self, part: int) -> bool:
        """Whether a part is there and what was written; one that is not is removed, so that it is
        made anew. Raises OSError where that can't be told."""
        path = self.path(part)
        if not path.exists():
            return False
        if is_as_summed(path):
            return True
        path.unlink(missing_ok=True)
        return False

    def read(self, first: int, count: int) -> torch.Tensor:
        """Up to `count` rows from row `first` on, [n, d_model] float32 on the host."""
        last = min(first + count, self.length)
        begin = int(np.searchsorted(self.starts, first, "right")) - 1
        found = []
        for part in range(begin, len(self.starts) - 1):
            start, end = self.starts[part : part + 2]
            if start >= last:
                break
            if end > first:
                found.append(self._slice(part, max(first, start) - start, min(last, end) - start))
        return torch.cat(found)

    def _slice(self, part: int, first: int, last: int) -> torch.Tensor:
        with safe_open(self.path(part), "pt") as file:
            rows = file.get_slice(tensor_name(self.layer, self.site))
            return rows[int(first) : int(last)].float()

    def unusable(self, part: int) -> list[int]:
        """As `write` was told."""
        with safe_open(self.path(part), "pt") as file:
            return [int(count) for count in file.get_tensor(_UNUSABLE)]
