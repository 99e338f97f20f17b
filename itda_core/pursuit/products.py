"""Products of activations and atoms on a device: exact to float32, or proposed in 16 bits.

A GPU multiplies matrices in 16 bits some ten times as fast as in float32, and reads half the bytes.
So 16 bits propose a few atoms for each token, and float32 decides between them. Where the proposal
leaves it open whether another atom is larger, that is said, and the token is pursued in float32.

torch may be told to use TF32, of ten bits, for float32 products on CUDA, and bfloat16, of seven, on
CPUs that have it. Nobody's setting is touched, for other threads multiply too: where one is on, the
products that decide are made on CUDA in three parts, which TF32 keeps whole, and on a CPU by numpy.
"""

import numpy as np
import torch

_GROUP = 64
"""Atoms whose largest proposal is looked for first."""
CANDIDATES = 8
"""Proposed atoms, between which float32 decides."""
_PROPOSAL_ERROR = 2**-8
"""Largest error of a product of unit vectors in 16 bits: each is rounded by 2⁻¹¹ of itself, and so
is their product. As much again and more is left for a few parts of it that the device sums apart
and adds up in 16 bits, as cuBLAS may."""
_FLOP_PER_BYTE_HALF, _FLOP_PER_BYTE = 150, 30
"""Operations of a matrix product in the time that a GPU reads a byte from its memory: in 16 bits on
CUDA cards since Turing, in float32 on Apple's. Rough figures of such cards, measured on none."""
_FOR_TF32 = -(2**13)
"""The bits of a float32 that TF32 keeps."""
_FEWER_BITS = ("bf16", "tf32")
"""Settings of torch for products of float32."""


def products(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b of float32 to its full precision, whatever torch may use. out: filled, if given."""
    if a.device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32":
        return products_in_parts(a, b)
    if a.device.type == "cpu" and torch.backends.mkldnn.matmul.fp32_precision in _FEWER_BITS:
        room = None if out is None else out.numpy()
        return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=room))
    return torch.matmul(a, b, out=out)


def products_in_parts(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b of float32 from factors that TF32 keeps: 21 bits or more of each entry."""
    (a_high, a_low), (b_high, b_low) = _parts(a), _parts(b)
    return a_high @ b_low + a_low @ b_high + a_high @ b_high


def _parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    high = (x.view(torch.int32) & _FOR_TF32).view(torch.float32)
    return high, x - high


def halves_propose(device: torch.device) -> bool:
    """Whether products in 16 bits, added up in float32, are much faster there than in float32."""
    if device.type != "cuda" or torch.backends.cuda.matmul.allow_fp16_accumulation:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)


def product_traffic(d_model: int, device: torch.device) -> float:
    """What the product of residuals and atoms, and finding its largest value, cost for each atom:
    bytes that the device could have read or written in that time."""
    is_half = halves_propose(device)
    passes = 3 * 2 if is_half else 4 * 4  # the result is written, read, and by float32 sized
    return 2 * d_model / (_FLOP_PER_BYTE_HALF if is_half else _FLOP_PER_BYTE) + passes


class Strongest:
    """The atom with the largest |product| with each residual, by a product in float32."""

    def __init__(self, atoms: torch.Tensor, room: torch.Tensor | None = None):
        """atoms: [n_atoms, d_model] float32; room: [n_tokens, n_atoms] float32 for the products,
        where there is some."""
        self._atoms, self._room = atoms, room

    def __call__(self, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The atoms, [n_tokens] int64, of equal ones the first, and whether it is sure, bool."""
        correlations = products(residuals, self._atoms.T, out=self._room)
        best = correlations.abs_().argmax(1)
        return best, torch.ones_like(best, dtype=torch.bool)


class Proposed:
    """As `Strongest`, by a product in float16 and a few in float32."""

    def __init__(self, atoms: torch.Tensor):
        """atoms: [n_atoms, d_model] float32 unit rows."""
        self._atoms = atoms
        # Of each row an atom's; rows of zeros make the last group as large as the others.
        groups = -(-len(atoms) // _GROUP)
        self._halves = torch.zeros(
            groups * _GROUP, atoms.shape[1], dtype=torch.float16, device=atoms.device
        )
        self._halves[: len(atoms)] = atoms

    def __call__(self, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The atoms, [n_tokens] int64, of equal ones the first, and whether it is sure, bool."""
        norms = residuals.norm(dim=1, keepdim=True)
        units = residuals / norms.clamp(min=torch.finfo(torch.float32).tiny)
        candidates, weakest = self._candidates(units.half())
        exact = products(self._atoms[candidates], residuals[..., None])[..., 0].abs()
        largest, place = exact.max(1, keepdim=True)
        best = candidates.gather(1, place)[:, 0]
        is_sure = largest >= norms * (weakest + _PROPOSAL_ERROR)
        return best, is_sure[:, 0]

    def _candidates(self, units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Atoms of the largest proposals in ascending order, [n_tokens, CANDIDATES], and the
        smallest of these proposals, [n_tokens, 1]: no other atom's is larger."""
        proposed = (units @ self._halves.T).view(len(units), -1, _GROUP)
        peaks = torch.linalg.vector_norm(proposed, ord=torch.inf, dim=2)
        groups = peaks.topk(min(CANDIDATES, peaks.shape[1]), dim=1).indices
        of_groups = proposed.gather(1, groups[..., None].expand(-1, -1, _GROUP)).abs().flatten(1)
        values, places = of_groups.topk(CANDIDATES, dim=1)
        atoms = groups.gather(1, places // _GROUP) * _GROUP + places % _GROUP
        atoms = atoms.clamp(max=len(self._atoms) - 1).sort(1).values
        return atoms, values[:, -1:].float()
