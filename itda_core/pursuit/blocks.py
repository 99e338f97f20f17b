"""A pursuit in blocks of tokens: which way it takes, how large a block is, who computes it."""

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from itda_core.devices import check_same_device, free_memory, halving
from itda_core.errors import InputError
from itda_core.pursuit.gram import affordable_gram, gram_pays, gram_type
from itda_core.pursuit.products import halves_propose

_CORRELATION_BYTES = 16 * 2**20
"""Correlations computed together on a CPU: enough rows for the product to run at full speed, few
enough that what is left of them is still in a large cache when they are used."""
_COPIES = 4
"""Arrays as large as a block's correlations and residuals that a step has at the same time."""
_MOST_NUMBERS = 2**29
"""Numbers in one array of a block on a device: 2 GiB keep any of them busy."""


@dataclass(frozen=True)
class Ways:
    """What may pursue a block: pursue(room, residuals, atoms, gram, scale, *results).

    room: [n_tokens, n_atoms] float32 on a CPU, None on other devices; residuals: activations
    divided by `scale`, [n_tokens, 1], used up; the results are filled in, zeros with a row for each
    token, and the first of them is multiplied by `scale` afterwards.
    """

    compiled: Callable
    """by the Gram matrix on a CPU"""
    by_gram: Callable
    """by the Gram matrix on other devices"""
    by_products: Callable
    """with one product of residuals and atoms a step"""
    by_proposals: Callable
    """the same, where 16 bits propose what float32 decides"""
    gram_traffic: float
    """bytes that `by_gram` reads and writes for each atom in a step"""


def in_blocks(
    ways: Ways,
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    results: Sequence[torch.Tensor],
    gram: torch.Tensor | None = None,
    memory: int | None = None,
) -> None:
    """Find out which way a pursuit takes and run it block by block; where memory is full, in
    smaller blocks.

    results: filled in, with a row for each token. The rest is as for `matching_pursuit`, whose
    checks are made.
    """
    x, atoms = activations.detach(), atoms.detach().float().contiguous()
    memory = free_memory(x.device) // 4 if memory is None else memory
    plan = _plan_on_cpu if x.device.type == "cpu" else _plan_on_device
    pursue, gram, rows = plan(ways, x, atoms, l0, gram, memory)
    rows = max(1, min(len(x), rows))
    room = None
    if x.device.type == "cpu":
        room = atoms.new_empty(rows, len(atoms))  # of all blocks, touched only once

    def pursue_block(first: int, last: int) -> None:
        residuals, scale = _scaled(x[first:last])
        of_block = [result[first:last].zero_() for result in results]
        own_room = None if room is None else room[: last - first]
        pursue(own_room, residuals, atoms, gram, scale, *of_block)
        of_block[0].mul_(scale)

    for _ in halving(pursue_block, len(x), rows, _FULL.format(len(atoms), l0, x.device)):
        pass


_FULL = (
    "Not even one token fits into the memory for a pursuit on {} atoms with L0 {} on the device "
    "{}: free some there, or take fewer atoms, a smaller L0 or another device."
)


def _plan_on_cpu(ways, x, atoms, l0, gram, memory) -> tuple:
    """What pursues, the Gram matrix that it takes, and the tokens of a block."""
    for_blocks = memory // 4
    # A Gram matrix costs n_atoms products of a token, the direct way l0 of them for each token.
    if gram is None and len(x) * l0 > len(atoms):
        gram = affordable_gram(atoms, memory - for_blocks)
    if gram is not None:
        gram = gram.contiguous()  # the compiled loops read rows without gaps
    rows = for_blocks // (4 * _COPIES * sum(atoms.shape))
    rows = min(rows, _CORRELATION_BYTES // (4 * len(atoms)))
    return ways.by_products if gram is None else ways.compiled, gram, rows


def _plan_on_device(ways, x, atoms, l0, gram, memory) -> tuple:
    """The same for other devices. A block is as large as what a step of it holds lets it be."""
    n_atoms, d_model = atoms.shape
    if gram_pays(d_model, x.device, ways.gram_traffic):
        if gram is None and l0 > 1 and len(x) * l0 > n_atoms:  # one step reads no row of it
            gram = affordable_gram(atoms, memory * 3 // 4)
            memory -= 0 if gram is None else gram.nbytes
        if gram is not None:
            largest, token = max(n_atoms, l0**2), 3 * n_atoms + 4 * d_model + 2 * l0**2
            return ways.by_gram, gram, min(memory // (4 * token), _MOST_NUMBERS // largest)
    pursue = ways.by_proposals if halves_propose(x.device) else ways.by_products
    largest, token = max(n_atoms, l0 * d_model), 2 * n_atoms + (l0 + 12) * d_model
    return pursue, None, min(memory // (4 * token), _MOST_NUMBERS // largest)


def pursue_anew(
    unclear: torch.Tensor,
    pursue: Callable,
    x: torch.Tensor,
    atoms: torch.Tensor,
    scale: torch.Tensor,
    results: Sequence[torch.Tensor],
) -> None:
    """Pursue those tokens of a block that are `unclear`, [n_tokens] bool, by products. x: what the
    block began with. Waits for the device once."""
    rows = unclear.nonzero()[:, 0]
    for part in rows.split(max(1, len(x) // 4)) if len(rows) else ():
        own = [torch.zeros_like(result[part]) for result in results]
        pursue(None, x[part], atoms, None, scale[part], *own)
        for result, found in zip(results, own, strict=True):
            result[part] = found


def check_input(
    activations: torch.Tensor, atoms: torch.Tensor, l0: int, gram: torch.Tensor | None
) -> None:
    """Raises InputError for shapes that don't fit together, for a foreign Gram matrix, and where
    they are on several devices."""
    if activations.ndim != 2 or atoms.ndim != 2 or activations.shape[1] != atoms.shape[1]:
        raise InputError(
            "A pursuit takes activations [n_tokens, d_model] and atoms [n_atoms, d_model], "
            f"got {list(activations.shape)} and {list(atoms.shape)}."
        )
    check_same_device(activations=activations, atoms=atoms)
    if l0 < 1:
        raise InputError(f"l0 must be at least 1, got {l0}.")
    if not len(atoms):
        raise InputError("The dictionary has no atoms: train it on at least one token first.")
    if gram is None:
        return
    check_same_device(activations=activations, gram=gram)
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
