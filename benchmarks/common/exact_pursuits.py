"""Pursuits as they are written down, in float64: what the fast ones are compared with."""

import torch


def exact_latents(x: torch.Tensor, atoms: torch.Tensor, l0: int, pursuit: str) -> torch.Tensor:
    """[n_tokens, l0] int64 on the CPU: the latents of a pursuit, "orthogonal", "matching" or
    "refit", which chooses as "matching" does.

    x: [n_tokens, d_model]; atoms: [n_atoms, d_model] unit rows, on the same device. What has no
    float64 (MPS) leaves the work to the CPU.
    """
    if x.device.type == "mps":
        x, atoms = x.cpu(), atoms.cpu()
    way = _orthogonal if pursuit == "orthogonal" else _matching
    return way(x.double(), atoms.double(), l0).cpu()


def _matching(residuals: torch.Tensor, atoms: torch.Tensor, l0: int) -> torch.Tensor:
    latents = []
    for _ in range(l0):
        correlations = residuals @ atoms.T
        latents.append(correlations.abs().argmax(1))
        coefficients = correlations.gather(1, latents[-1][:, None])
        residuals = residuals - coefficients * atoms[latents[-1]]
    return torch.stack(latents, 1)


def _orthogonal(residuals: torch.Tensor, atoms: torch.Tensor, l0: int) -> torch.Tensor:
    """By an orthonormal basis of the atoms taken so far."""
    latents = residuals.new_zeros(len(residuals), 0, dtype=torch.int64)
    basis = residuals.new_zeros(len(residuals), 0, residuals.shape[1])
    for _ in range(l0):
        correlations = (residuals @ atoms.T).abs().scatter_(1, latents, 0.0)
        best = correlations.argmax(1)
        new = atoms[best]
        for _ in range(2):  # once more, since rounding leaves a little behind
            new = new - ((basis @ new[..., None]) * basis).sum(1)
        new = torch.nn.functional.normalize(new, dim=1)
        residuals = residuals - (residuals * new).sum(1, keepdim=True) * new
        latents = torch.cat([latents, best[:, None]], 1)
        basis = torch.cat([basis, new[:, None]], 1)
    return latents
