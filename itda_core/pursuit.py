"""Matching pursuit: activations and atoms in, codes out. Pure functions.

At each of `l0` steps the atom with the largest |correlation| with the residual is taken, its
signed correlation becomes a coefficient, and the term is subtracted (Mallat & Zhang 1993).

With C = X Dᵀ computed once and the Gram matrix G = D Dᵀ, subtracting c·d_j from a residual changes
its correlations by c·G[j], so a step costs n_atoms instead of n_atoms × d_model. Which way is
taken, and in what blocks, follows from shapes, device and memory; the codes are the same.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import torch

from itda_core.codes import Codes
from itda_core.errors import InputError
from itda_core.kernels import GRAM_SCALE, ROUNDING, pursue_rows

_CORRELATION_BYTES = 32 * 2**20
"""Correlations computed together on a CPU: enough rows for the product to run at full speed."""
_GRAM_ROWS = 1_024
"""Rows of a Gram matrix computed together."""
_COPIES = 4
"""Arrays as large as a block's correlations and residuals that a step has at the same time."""


def matching_pursuit(
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    gram: torch.Tensor | None = None,
    memory: int | None = None,
) -> Codes:
    """Decompose each activation into `l0` signed atoms.

    activations: [n_tokens, d_model], any float type; atoms: [n_atoms, d_model], unit rows;
    gram: `gram_matrix(atoms)` where the caller has it already (more rows and columns, as a growing
    dictionary has them, are not looked at); memory: bytes that the call may use beyond its result,
    by default a quarter of what is free.

    Of equal correlations the atom with the lower number is taken. Where the residual is down to
    rounding (1e-6 of the activation), the remaining terms are latent 0 with coefficient 0, and so
    are all terms of a zero vector. Raises InputError for shapes that don't fit and for values that
    are not finite.
    """
    check_input(activations, atoms, l0, gram)
    x = activations
    latents = torch.zeros(len(x), l0, dtype=torch.int64, device=x.device)
    coefficients = torch.zeros(len(x), l0, device=x.device)
    in_blocks(_way, x, atoms, l0, (coefficients, latents), gram, memory)
    return Codes(latents, coefficients)


def in_blocks(
    way: Callable[[bool, bool], Callable],
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    results: Sequence[torch.Tensor],
    gram: torch.Tensor | None = None,
    memory: int | None = None,
) -> None:
    """Find out which way a pursuit takes and run it block by block.

    way: (has_gram, on_cpu) -> pursue(correlations, residuals, atoms, gram, scale, *results), which
    fills in `results`, arrays of zeros with a row for each token. The residuals are activations
    divided by `scale`, [n_tokens, 1], and the first of the results is multiplied by it. The rest
    is as for `matching_pursuit`, whose checks are made.
    """
    x, atoms = activations.detach(), atoms.detach().float().contiguous()
    memory = free_memory(x.device) // 4 if memory is None else memory
    for_blocks = memory // 4
    # A Gram matrix costs n_atoms products of a token, the direct way l0 of them for each token.
    if gram is None and len(x) * l0 > len(atoms):
        gram = affordable_gram(atoms, memory - for_blocks)
    on_cpu = x.device.type == "cpu"
    rows = for_blocks // (4 * _COPIES * sum(atoms.shape))
    rows = min(rows, _CORRELATION_BYTES // (4 * len(atoms))) if on_cpu else rows
    rows = max(1, min(len(x), rows))
    room = atoms.new_empty(rows, len(atoms))  # for the correlations of a block, touched only once
    pursue = way(gram is not None, on_cpu)
    for first in range(0, len(x), rows):
        block = slice(first, first + rows)
        residuals, scale = _scaled(x[block])
        found = [result[block] for result in results]
        pursue(room[: len(residuals)], residuals, atoms, gram, scale, *found)
        found[0].mul_(scale)


def gram_matrix(atoms: torch.Tensor) -> torch.Tensor:
    """Products of all pairs of atoms, [n_atoms, n_atoms], as the pursuit on their device takes
    them: int16 in units of 1 / GRAM_SCALE on a CPU, else float32. atoms: [n_atoms, d_model],
    float32 unit rows."""
    gram = empty_gram(len(atoms), atoms.device)
    extend_gram(gram, atoms, 0, len(atoms))
    return gram


def affordable_gram(atoms: torch.Tensor, memory: int | None = None) -> torch.Tensor | None:
    """`gram_matrix(atoms)`, None where it is larger than `memory` bytes, by default a quarter of
    what is free."""
    memory = free_memory(atoms.device) // 4 if memory is None else memory
    return gram_matrix(atoms) if gram_bytes(len(atoms), atoms.device) <= memory else None


def empty_gram(n_atoms: int, device: torch.device) -> torch.Tensor:
    """Room for the Gram matrix of `n_atoms` atoms."""
    return torch.zeros(n_atoms, n_atoms, dtype=_gram_type(device), device=device)


def extend_gram(gram: torch.Tensor, atoms: torch.Tensor, first: int, last: int) -> None:
    """Fill in the products of atoms `first` to `last` (not included) with all before them."""
    for start in range(first, last, _GRAM_ROWS):
        end = min(last, start + _GRAM_ROWS)
        new = atoms[start:end] @ atoms[:end].T
        if gram.dtype == torch.int16:
            new = new.mul_(GRAM_SCALE).round_().clamp_(-GRAM_SCALE, GRAM_SCALE)
        gram[start:end, :end] = new
        gram[:start, start:end] = gram[start:end, :start].T


def gram_bytes(n_atoms: int, device: torch.device) -> int:
    """Size of a Gram matrix."""
    return n_atoms**2 * _gram_type(device).itemsize


def _gram_type(device: torch.device) -> torch.dtype:
    return torch.int16 if device.type == "cpu" else torch.float32


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now; for MPS, which shares it, main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_input(
    activations: torch.Tensor, atoms: torch.Tensor, l0: int, gram: torch.Tensor | None
) -> None:
    """Raises InputError for shapes that don't fit together and for a foreign Gram matrix."""
    if activations.ndim != 2 or atoms.ndim != 2 or activations.shape[1] != atoms.shape[1]:
        raise InputError(
            "A pursuit takes activations [n_tokens, d_model] and atoms [n_atoms, d_model], "
            f"got {list(activations.shape)} and {list(atoms.shape)}."
        )
    if l0 < 1:
        raise InputError(f"l0 must be at least 1, got {l0}.")
    if not len(atoms):
        raise InputError("The dictionary has no atoms: train it on at least one token first.")
    if gram is None:
        return
    if gram.dtype != _gram_type(atoms.device) or min(gram.shape) < len(atoms):
        raise InputError(
            f"gram has to be gram_matrix(atoms) of all {len(atoms)} atoms, got {gram.dtype} of "
            f"shape {list(gram.shape)}."
        )


def _scaled(activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A copy in float32 with each row divided by a power of two, so that its largest entry lies in
    [1, 2) and no norm over- or underflows, and the divisors, [n_tokens, 1]. Rounds nothing."""
    x = torch.empty(activations.shape, dtype=torch.float32, device=activations.device)
    x.copy_(activations)  # in C order whatever the order of the activations
    largest = x.abs().amax(1, keepdim=True)
    if not torch.isfinite(largest).all():
        raise InputError("Some activations are not finite: leave those tokens out first.")
    exponent_only = largest.view(torch.int32) & 0x7F800000
    scale = exponent_only.view(torch.float32).clamp(min=torch.finfo(torch.float32).tiny)
    return x.div_(scale), scale


def _way(has_gram: bool, on_cpu: bool) -> Callable:
    if not has_gram:
        return _pursue_directly
    return _pursue_compiled if on_cpu else _pursue_torch


def _pursue_directly(room, residuals, atoms, _gram, _scale, coefficients, latents) -> None:
    """The pursuit as it is defined, one product a step; needs no Gram matrix."""
    floor = ROUNDING * residuals.norm(dim=1)
    for step in range(latents.shape[1]):
        best = torch.mm(residuals, atoms.T, out=room).abs_().argmax(1)
        _take(step, best, floor, residuals, atoms, latents, coefficients)


def _pursue_torch(correlations, residuals, atoms, gram, _scale, coefficients, latents) -> None:
    """The pursuit in torch operations, for devices that the compiled kernel is not for. Nothing
    in the loop waits for the device."""
    floor = ROUNDING * residuals.norm(dim=1)
    torch.mm(residuals, atoms.T, out=correlations)
    for step in range(latents.shape[1]):
        best = correlations.abs().argmax(1)
        _take(step, best, floor, residuals, atoms, latents, coefficients)
        correlations -= coefficients[:, step, None] * gram[best, : len(atoms)]


def _take(step, best, floor, residuals, atoms, latents, coefficients) -> None:
    """Write down one term of each token and subtract it; nothing where only rounding is left."""
    chosen = atoms[best]
    more = residuals.norm(dim=1) > floor
    latents[:, step] = best * more
    coefficients[:, step] = (residuals * chosen).sum(1) * more
    residuals -= coefficients[:, step, None] * chosen


def _pursue_compiled(correlations, residuals, atoms, gram, _scale, coefficients, latents) -> None:
    """The pursuit by the compiled kernel."""
    torch.mm(residuals, atoms.T, out=correlations)
    own = (correlations, residuals, latents, coefficients)
    in_threads(lambda c, r, *out: pursue_rows(c, r, gram.numpy(), atoms.numpy(), *out), own)


def in_threads(kernel: Callable, rows: Sequence[torch.Tensor]) -> None:
    """Run a compiled kernel on rows of tokens, shared out among torch's threads.

    rows: arrays with a row for each token; the kernel gets the same part of each."""
    arrays = [tensor.numpy() for tensor in rows]
    bounds = np.linspace(0, len(rows[0]), min(torch.get_num_threads(), len(rows[0])) + 1)
    parts = [[array[a:b] for array in arrays] for a, b in itertools.pairwise(bounds.astype(int))]
    if len(parts) == 1:
        kernel(*parts[0])
    else:
        list(_threads().map(lambda part: kernel(*part), parts))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Plain threads rather than numba's own: those abort the process when two callers meet."""
    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="pursuit")
