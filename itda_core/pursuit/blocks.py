"""A pursuit in blocks of tokens: which way it takes, how large a block is, who computes it."""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from itda_core.devices import free_memory
from itda_core.errors import InputError
from itda_core.pursuit.gram import affordable_gram, gram_type

_CORRELATION_BYTES = 32 * 2**20
"""Correlations computed together on a CPU: enough rows for the product to run at full speed."""
_COPIES = 4
"""Arrays as large as a block's correlations and residuals that a step has at the same time."""


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
        of_block = [result[block] for result in results]
        pursue(room[: len(residuals)], residuals, atoms, gram, scale, *of_block)
        of_block[0].mul_(scale)


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
    if gram.dtype != gram_type(atoms.device) or min(gram.shape) < len(atoms):
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
