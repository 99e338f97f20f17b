"""Gram matrices of atoms: products of all pairs, and whether memory has room for them."""

import torch

from itda_core.devices import free_cached_memory, free_memory, is_out_of_memory
from itda_core.pursuit.kernel_matching import GRAM_SCALE
from itda_core.pursuit.products import product_traffic, products

_GRAM_ROWS = 1_024
"""Rows of a Gram matrix computed together."""
MATCHING_TRAFFIC = 32.0
"""Bytes for each atom and step of matching pursuit by the Gram matrix in torch operations: a row is
copied out and subtracted from the correlations, whose sizes are written and searched."""


def gram_matrix(atoms: torch.Tensor) -> torch.Tensor:
    """Products of all pairs of atoms, [n_atoms, n_atoms], as the pursuit on their device takes
    them: int16 in units of 1 / GRAM_SCALE on a CPU, else float32. atoms: [n_atoms, d_model],
    float32 unit rows."""
    gram = empty_gram(len(atoms), atoms.device)
    extend_gram(gram, atoms, 0, len(atoms))
    return gram


def affordable_gram(
    atoms: torch.Tensor, memory: int | None = None, traffic: float | None = None
) -> torch.Tensor | None:
    """`gram_matrix(atoms)`, None where it is larger than `memory` bytes, by default a quarter of
    what is free, where it does not fit after all, and where a pursuit of that `traffic`, if it is
    given, would not take it, see `gram_pays`."""
    if traffic is not None and not gram_pays(atoms.shape[1], atoms.device, traffic):
        return None
    memory = free_memory(atoms.device) // 4 if memory is None else memory
    if gram_bytes(len(atoms), atoms.device) > memory:
        return None
    try:
        return gram_matrix(atoms)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_cached_memory()
    return None


def gram_pays(d_model: int, device: torch.device, traffic: float) -> bool:
    """Whether a step that moves `traffic` bytes for each atom is faster than a product of residuals
    and atoms. Always on a CPU; on a device a large product is what it does best."""
    return device.type == "cpu" or traffic < product_traffic(d_model, device)


def orthogonal_traffic(l0: int) -> float:
    """As MATCHING_TRAFFIC, of an orthogonal pursuit: on average l0 / 2 rows are summed, their sum
    is written and taken from the correlations, whose sizes are written and searched."""
    return 4 * (l0 / 2 + 7)


def empty_gram(n_atoms: int, device: torch.device) -> torch.Tensor:
    """Room for the Gram matrix of `n_atoms` atoms."""
    return torch.zeros(n_atoms, n_atoms, dtype=gram_type(device), device=device)


def extend_gram(gram: torch.Tensor, atoms: torch.Tensor, first: int, last: int) -> None:
    """Fill in the products of atoms `first` to `last` (not included) with all before them."""
    for start in range(first, last, _GRAM_ROWS):
        end = min(last, start + _GRAM_ROWS)
        new = products(atoms[start:end], atoms[:end].T)
        if gram.dtype == torch.int16:
            new = new.mul_(GRAM_SCALE).round_().clamp_(-GRAM_SCALE, GRAM_SCALE)
        gram[start:end, :end] = new
        gram[:start, start:end] = gram[start:end, :start].T


def gram_bytes(n_atoms: int, device: torch.device) -> int:
    """Size of a Gram matrix."""
    return n_atoms**2 * gram_type(device).itemsize


def gram_type(device: torch.device) -> torch.dtype:
    return torch.int16 if device.type == "cpu" else torch.float32
