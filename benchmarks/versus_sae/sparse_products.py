"""sae-lens' TopK training steps with the same results in a fraction of the time on a CPU.

Of a token's 2,048 latents 32 are on, but sae-lens multiplies with all of them. Here the decoder,
and the gradients of decoder and encoder, are computed only where latents are on. The losses and the
gradients are the same up to rounding (tests/benchmarks/test_sae_training.py trains with both).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

_SPARSE = 0.06
"""Share of non-zero entries up to which skipping the others is faster."""


@contextmanager
def sparse_products() -> Iterator[None]:
    """Within it, sae-lens' TopK and BatchTopK autoencoders compute only where latents are on."""
    from sae_lens.saes import topk_sae

    with (
        mock.patch.object(topk_sae, "act_times_W_dec", _decoded),
        mock.patch.object(topk_sae.TopKTrainingSAE, "encode_with_hidden_pre", _encoded),
    ):
        yield


def _decoded(feature_acts: torch.Tensor, W_dec: torch.Tensor, rescale: bool) -> torch.Tensor:
    """What sae-lens' `act_times_W_dec` returns."""
    if rescale:
        feature_acts = feature_acts * (1 / W_dec.norm(dim=-1))
    return _SparseTimesDense.apply(feature_acts, W_dec)


def _encoded(sae, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What sae-lens' `TopKTrainingSAE.encode_with_hidden_pre` returns.

    (x − b_dec) W + b_enc, with b_dec W apart: so no token needs a gradient.
    """
    hidden = _WithSparseGradient.apply(x, sae.W_enc) + (sae.b_enc - sae.b_dec @ sae.W_enc)
    if sae.cfg.rescale_acts_by_decoder_norm:
        hidden = hidden * sae.W_dec.norm(dim=-1)
    return sae.activation_fn(hidden), hidden


class _SparseTimesDense(torch.autograd.Function):
    """acts @ weights for acts, [n_tokens, n_latents], that are mostly zero. The gradient of acts
    is left at zero where acts are: those were cut off, so it would be thrown away."""

    @staticmethod
    def forward(context, acts, weights):
        places = _places(acts)
        context.save_for_backward(acts, weights)
        context.places = places
        return acts @ weights if places is None else _csr(acts, places) @ weights

    @staticmethod
    def backward(context, gradient):
        (acts, weights), places = context.saved_tensors, context.places
        if places is None:
            return gradient @ weights.T, acts.T @ gradient
        tokens, latents = places
        for_weights = _csr_transposed(acts, places) @ gradient
        pattern = _csr(torch.zeros_like(acts), places)
        dots = torch.sparse.sampled_addmm(pattern, gradient, weights.T, beta=0.0).values()
        for_acts = torch.zeros_like(acts)
        for_acts[tokens, latents] = dots
        return for_acts, for_weights


class _WithSparseGradient(torch.autograd.Function):
    """x @ weights whose gradient is mostly zero; x gets none."""

    @staticmethod
    def forward(context, x, weights):
        context.save_for_backward(x)
        return x @ weights

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        places = _places(gradient)
        if places is None:
            return None, x.T @ gradient
        return None, (_csr_transposed(gradient, places) @ x).T


def _places(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rows and columns of the non-zero entries, row by row; None where they are many."""
    if int(torch.count_nonzero(matrix)) > _SPARSE * matrix.numel():
        return None
    return matrix.nonzero(as_tuple=True)


def _csr(matrix: torch.Tensor, places) -> torch.Tensor:
    rows, columns = places
    return _compressed(rows, columns, matrix[rows, columns], matrix.shape)


def _csr_transposed(matrix: torch.Tensor, places) -> torch.Tensor:
    rows, columns = places
    order = columns.argsort(stable=True)
    values = matrix[rows, columns][order]
    return _compressed(columns[order], rows[order], values, matrix.shape[::-1])


def _compressed(rows, columns, values, shape) -> torch.Tensor:
    """A CSR matrix of entries that are sorted by row."""
    ends = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
