"""Rows of the activations that a selection keeps on disk until the pass is over."""

import numpy as np
import torch

from itda_core.devices import free_cached_memory, is_out_of_memory, to_device
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.atoms import Atoms


class SampledRows:
    """Keeps some rows of a plan, and makes atoms of them at the end."""

    mean_error: float | None = None
    n_atoms = 0
    is_full = False

    def __init__(self, context: TrainingContext, layer: int, rows: np.ndarray):
        """rows: their numbers in the plan, ascending."""
        self._context, self._layer, self.rows = context, layer, rows
        self._sample = context.rows(f"sample-{layer}", len(rows))
        self.notes: list[str] = []

    def offer(self, first: int, activations: torch.Tensor, sources) -> None:  # noqa: ARG002
        start, end = np.searchsorted(self.rows, [first, first + len(activations)])
        if end > start:
            rows = torch.from_numpy(self.rows[start:end] - first)
            self.take(int(start), activations[to_device(rows, activations.device)])

    def take(self, first: int, sample: torch.Tensor) -> None:
        """Keep these of the wanted activations, [n, d_model]: `rows` from `first` on."""
        self._sample.write(first, sample)

    def flush(self) -> None:
        self._sample.flush()

    def atoms(self) -> Atoms:
        """The atoms that are made of the rows; on the CPU where the device has no room for that."""
        device = self._context.device
        try:
            return self._made_on(device)
        except Exception as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
        free_cached_memory()  # here, where the error no longer holds what was made
        self.notes.append(
            f"The atoms of layer {self._layer} were chosen on the CPU, which takes longer: the "
            f"device {device} has no room for it."
        )
        return self._made_on(torch.device("cpu"))

    def _made_on(self, device: torch.device) -> Atoms:
        raise NotImplementedError

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        """What was kept is on disk."""

    def close(self) -> None:
        self._sample.close()
