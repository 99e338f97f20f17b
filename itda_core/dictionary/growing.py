"""A dictionary while it is built: atoms, their sources and their Gram matrix grow together."""

from collections.abc import Sequence

import pandas as pd
import torch

from itda_core.activations.sources import source_table
from itda_core.devices import free_memory
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.gram import MATCHING_TRAFFIC, empty_gram, extend_gram, gram_bytes, gram_pays
from itda_core.pursuit.matching import matching_pursuit


class GrowingDictionary:
    """Atoms with their sources and their Gram matrix while a dictionary is being built.

    Everything grows by one call, in place; room is doubled when it runs out. Above a quarter of
    the free memory there is no Gram matrix, nor on a device whose pursuits would not take it.
    """

    def __init__(self, d_model: int, max_atoms: int, device: torch.device | str = "cpu"):
        """device: where it grows and encodes."""
        self.max_atoms = max_atoms
        self._atoms = torch.zeros(0, d_model, dtype=torch.float32, device=device)
        self._gram: torch.Tensor | None = None
        if gram_pays(d_model, self._atoms.device, MATCHING_TRAFFIC):
            self._gram = empty_gram(0, self._atoms.device)
        self._sources: list[tuple] = []

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def is_full(self) -> bool:
        return len(self) == self.max_atoms

    @property
    def atoms(self) -> torch.Tensor:
        """[n_atoms, d_model] float32, a view that stays valid until the next `append`."""
        return self._atoms[: len(self)]

    @property
    def sources(self) -> list[tuple]:
        """(prompt_id, position, start, end, token, word) of each atom."""
        return self._sources

    def append(self, activations: torch.Tensor, sources: Sequence[tuple]) -> None:
        """Add unit-normalised `activations`, [n, d_model], as atoms; one source for each."""
        if len(sources):
            self.restore(torch.nn.functional.normalize(activations, dim=1), sources)

    def restore(self, atoms: torch.Tensor, sources: Sequence[tuple]) -> None:
        """Add the atoms of a checkpoint as they are: normalising again would change them."""
        first, last = len(self), len(self) + len(sources)
        self._make_room(last)
        self._atoms[first:last] = atoms
        if self._gram is not None:
            extend_gram(self._gram, self._atoms, first, last)
        self._sources.extend(sources)

    def _make_room(self, n_atoms: int) -> None:
        if n_atoms <= len(self._atoms):
            return
        room, n_present = min(self.max_atoms, max(n_atoms, 2 * len(self._atoms))), len(self)
        device, budget = self._atoms.device, free_memory(self._atoms.device) // 4
        if gram_bytes(room, device) > budget:  # then as little as will do
            room = n_atoms
        atoms, gram = self._atoms.new_zeros(room, self._atoms.shape[1]), None
        atoms[:n_present] = self._atoms[:n_present]
        if self._gram is not None and gram_bytes(room, device) <= budget:
            gram = empty_gram(room, device)
            gram[:n_present, :n_present] = self._gram[:n_present, :n_present]
        self._atoms, self._gram = atoms, gram

    def encode(self, activations: torch.Tensor, l0: int) -> Codes:
        """Matching pursuit with the atoms there are so far."""
        return matching_pursuit(activations, self.atoms, l0, gram=self._gram)

    def source_table(self) -> pd.DataFrame:
        """Sources as a table: latent, prompt_id, position, start, end, token, word."""
        return source_table(self._sources)
