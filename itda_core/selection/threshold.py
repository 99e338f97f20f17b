"""Which activations become atoms: "threshold", the paper's greedy method.

It is offered the activations of one layer, step by step, and grows a dictionary (arXiv 2505.17769,
section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itda_core.devices import to_device, to_host
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.pursuit.codes import direction_errors


@dataclass(frozen=True)
class Offer:
    """What became of one step."""

    added: int
    """atoms added"""
    mean_error: float | None
    """mean of ‖x/‖x‖ − x̂/‖x̂‖‖² under the dictionary as it stood; None while it is seeded"""


class ThresholdSelection:
    """The first d_model distinct activations; after that, whatever is badly reconstructed.

    Seeding: within a step the most frequent activations first, ties by order of appearance,
    across steps until there are d_model atoms. From the next step on, every activation x
    with ‖x/‖x‖ − x̂/‖x̂‖‖² > threshold becomes an atom, in order of appearance, until the
    dictionary is full; x̂ is its reconstruction by the dictionary as it stood at the start of
    the step. The published code divides that error by d_model: its loss_threshold × d_model is
    `threshold` here.
    """

    def __init__(self, dictionary: GrowingDictionary, l0: int, threshold: float):
        self.dictionary = dictionary
        self.l0 = l0
        self.threshold = threshold

    @property
    def n_seed_atoms(self) -> int:
        """How many atoms, the first ones, were taken before any was chosen."""
        return min(len(self.dictionary), self.dictionary.atoms.shape[1])

    def offer(self, activations: torch.Tensor, sources: Sequence[tuple]) -> Offer:
        """Take what is needed of the activations of one step.

        activations: [n_tokens, d_model] float32, finite and not zero, on the dictionary's device;
        sources: one for each row.
        """
        dictionary = self.dictionary
        if dictionary.is_full or not len(activations):
            return Offer(0, None)
        if len(dictionary) < activations.shape[1]:
            rows, error = self._seeds(activations), None
        else:
            codes = dictionary.encode(activations, self.l0)
            errors = direction_errors(activations, codes.reconstruct(dictionary.atoms))
            [errors] = to_host(errors)  # all that a step waits for
            rows, error = (errors > self.threshold).nonzero()[:, 0].tolist(), float(errors.mean())
        rows = rows[: dictionary.max_atoms - len(dictionary)]
        numbers = to_device(torch.tensor(rows, dtype=torch.int64), activations.device)
        dictionary.append(activations[numbers], [sources[row] for row in rows])
        return Offer(len(rows), error)

    def _seeds(self, activations: torch.Tensor) -> list[int]:
        """Rows of the distinct activations that are not atoms yet, most frequent first."""
        unit = torch.nn.functional.normalize(activations, dim=1)
        n_atoms = len(self.dictionary)
        [both] = to_host(torch.cat([self.dictionary.atoms, unit]))
        _, first, counts = np.unique(both.numpy(), axis=0, return_index=True, return_counts=True)
        new = first >= n_atoms
        first, counts = first[new], counts[new]
        order = np.lexsort((first, -counts))[: activations.shape[1] - n_atoms]
        return (first[order] - n_atoms).tolist()
