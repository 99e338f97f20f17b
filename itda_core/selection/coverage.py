"""Which activations become atoms so that few of them cover the data: "coverage".

Real activations near the centres of a spherical k-means (Dhillon & Modha 2001) are the candidates,
half as many again as atoms are wanted. They then decompose other activations, and those without
which the least would be lost are dropped. docs/method.md has what was compared.
"""

from dataclasses import dataclass

import numpy as np
import torch

from itda_core.activations.centre import Centre, centre_of
from itda_core.activations.massive import massive
from itda_core.devices import has_float64, to_device, to_host
from itda_core.pursuit.budget import smallest_worth
from itda_core.pursuit.codes import tokens_together
from itda_core.pursuit.gram import affordable_gram, orthogonal_traffic
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit
from itda_core.pursuit.products import products

_FOR_MASSIVE = 8
"""Atoms, at most, for massive activations."""
CANDIDATES_PER_ATOM = 1.5
"""With more, the judges tell near-equal candidates apart and drop both; with fewer they have
nothing to choose from."""
ROUNDS = 2
"""Rounds of k-means; more cost time and change the choice hardly."""
COMPONENTS = 128
"""Principal components in which k-means looks for the nearest centre."""
JUDGES = 4_096
"""Activations, at most, on which the candidates are judged."""
_APART = 2_048
"""Activations, at most, on which a budget is measured."""
_TOGETHER = 512
"""Activations compared with all centres at once on a CPU: their products stay in its cache."""
_PRODUCTS = 2**26
"""Products, at most, of activations and centres that another device holds at once."""


def _taken(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of `x`, whose numbers the host knows, on the device of `x`."""
    return x[to_device(rows, x.device)]


@dataclass(frozen=True)
class Choice:
    """Activations that become atoms."""

    rows: torch.Tensor
    """[n_atoms] int64, ascending, on the host; the other tensors are where the activations are"""
    atoms: torch.Tensor
    """[n_atoms, d_model] float32, unit rows"""
    centre: Centre
    offset: torch.Tensor
    """[d_model] float32, what was subtracted before the atoms were normalised"""


def choose(
    activations: torch.Tensor, n_atoms: int, l0: int, seed: int, offset: str = "mean"
) -> Choice:
    """The activations that cover all of them.

    activations: [n_tokens, d_model] float32, finite and not zero; l0: terms that the dictionary
    will use; offset: "mean" or "zero". A few atoms go to massive activations, where there are
    any: they share a direction, and without an atom near it they would not be explained at all.
    """
    centre = centre_of(activations)
    taken_off = centre.mean if offset == "mean" else torch.zeros_like(centre.mean)
    centred = activations - taken_off
    raw, norms = to_host(activations.norm(dim=1), centred.norm(dim=1))
    is_massive = massive(raw, centre.median_norm)
    few = is_massive.nonzero()[:, 0]
    usual = (~is_massive & (norms > 0)).nonzero()[:, 0]
    directions = torch.nn.functional.normalize(centred, dim=1)
    del centred  # as large as the sample
    n_massive_atoms, taken = min(_FOR_MASSIVE, n_atoms // 2), few[:0]
    if n_massive_atoms:
        taken = few[cover(_taken(directions, few), n_massive_atoms, l0, seed)]
    others = _taken(directions, usual) if len(usual) < len(directions) else directions
    chosen = cover(others, n_atoms - len(taken), l0, seed)
    rows = torch.cat([taken, usual[chosen]]).sort().values
    return Choice(rows, _taken(directions, rows), centre, taken_off)


def choose_on_average(
    activations: torch.Tensor, n_atoms: int, l0: int, max_terms: int, seed: int
) -> tuple[Choice, float]:
    """The activations that cover all, and the smallest projection worth a term, so that tokens use
    `l0` terms on average and none more than `max_terms`.

    activations: as for `choose`, in the order of the prompts. The last tenth of them, at most
    2,048 and none that atoms are needed from, are not chosen from: what is measured on the prompts
    that atoms come from is too good. With none of them tokens use `max_terms` terms.
    """
    apart = min(_APART, len(activations) // 10, max(0, len(activations) - n_atoms))
    choice = choose(activations[: len(activations) - apart], n_atoms, l0, seed)
    return choice, least_projection(activations[len(activations) - apart :], choice, l0, max_terms)


def least_projection(activations: torch.Tensor, choice: Choice, l0: int, max_terms: int) -> float:
    """The smallest projection worth a term, in units of the activations.

    With it each token's next term is bought at the same price: no other way to share the terms out
    over these tokens explains more, as long as steps take less and less. Massive activations are
    left out. activations: [n_tokens, d_model], of prompts that no atom comes from.
    """
    [norms] = to_host(activations.norm(dim=1))
    usual = (~massive(norms, choice.centre.median_norm)).nonzero()[:, 0]
    x = _taken(activations, usual) - choice.offset
    return smallest_worth(x, choice.atoms, l0, max_terms)


def cover(directions: torch.Tensor, n_atoms: int, l0: int, seed: int) -> torch.Tensor:
    """Rows of the activations that become atoms, [≤ n_atoms] int64 on the host in ascending order.

    directions: [n_tokens, d_model] float32, centred and of unit norm; l0: terms that the
    dictionary will use. The same input gives the same rows. Fewer than `n_atoms` come back only
    where there are not as many distinct directions, or hardly more of them than atoms.
    """
    if len(directions) <= n_atoms:
        return _distinct(directions)
    draw = np.random.default_rng(seed)
    more = int((CANDIDATES_PER_ATOM - 1) * n_atoms)
    n_candidates = n_atoms + min(more, (len(directions) - n_atoms) // 2)
    candidates = _central(directions, n_candidates, draw)
    if len(candidates) <= n_atoms:
        return candidates
    losses = _losses_without(directions, candidates, l0, draw)
    return candidates[losses.argsort(descending=True, stable=True)[:n_atoms]].sort().values


def _distinct(directions: torch.Tensor) -> torch.Tensor:
    [rows] = to_host(directions)
    _, first = np.unique(rows.numpy(), axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


def _central(directions: torch.Tensor, n_centres: int, draw: np.random.Generator) -> torch.Tensor:
    """The member nearest to each centre of a spherical k-means, [≤ n_centres] in ascending order.

    The nearest centre is looked for among the first principal components; centres and members
    are compared whole.
    """
    first = torch.from_numpy(draw.choice(len(directions), n_centres, replace=False))
    reduced = _principal(directions)
    centres = _taken(reduced, first)
    for _ in range(ROUNDS):
        nearest = _nearest(reduced, centres)
        centres = _sums(reduced, nearest, n_centres)
        centres = torch.nn.functional.normalize(centres, dim=1)
    whole = torch.nn.functional.normalize(_sums(directions, nearest, n_centres), dim=1)
    together = _together(directions.device, n_centres)
    pairs = zip(directions.split(together), nearest.split(together), strict=True)
    closeness = torch.cat([(part * whole[numbers]).sum(1) for part, numbers in pairs])
    closeness, nearest = to_host(closeness, nearest)
    # The last of each group, sorted by closeness: of equals the first row.
    order = np.lexsort((-np.arange(len(closeness)), closeness.numpy(), nearest.numpy()))
    groups = nearest.numpy()[order]
    return torch.from_numpy(np.sort(order[np.append(np.diff(groups) > 0, True)]))


def _principal(directions: torch.Tensor) -> torch.Tensor:
    """Coordinates in the directions' first principal components, [n_tokens, ≤ 128], unit rows."""
    if directions.shape[1] <= COMPONENTS:
        return directions
    squares = products(directions.T, directions)
    if not has_float64(directions.device):  # nor eigenvectors
        squares = squares.cpu()
    _, vectors = torch.linalg.eigh(squares)
    vectors = vectors[:, -COMPONENTS:].to(directions.device)
    return torch.nn.functional.normalize(products(directions, vectors), dim=1)


def _nearest(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The centre with the largest product for each point, [n_points] int64."""
    together = _together(points.device, len(centres))
    return torch.cat([products(part, centres.T).argmax(1) for part in points.split(together)])


def _sums(points: torch.Tensor, nearest: torch.Tensor, n_centres: int) -> torch.Tensor:
    """The sum of the points of each centre, [n_centres, d].

    `index_add_` adds up in whatever order a GPU's threads come, so that the same input would not
    give the same sums; there a product with zeros and ones does.
    """
    sums = torch.zeros(n_centres, points.shape[1], dtype=torch.float32, device=points.device)
    if points.device.type == "cpu":
        return sums.index_add_(0, nearest, points)
    numbers = torch.arange(n_centres, device=points.device)[:, None]
    together = _together(points.device, n_centres)
    for part, of_part in zip(points.split(together), nearest.split(together), strict=True):
        sums += products((numbers == of_part).float(), part)
    return sums


def _together(device: torch.device, n_centres: int) -> int:
    """How many activations to compare with all centres at once."""
    return _TOGETHER if device.type == "cpu" else max(_TOGETHER, _PRODUCTS // n_centres)


def _losses_without(
    directions: torch.Tensor, candidates: torch.Tensor, l0: int, draw: np.random.Generator
) -> torch.Tensor:
    """How much worse other activations would be explained without each candidate, [n_candidates].

    The sum over activations of what the squared error of the least-squares fit grows by when one
    atom is taken out of the support: c² / (G⁻¹)_jj, with G the support's products. No candidate
    judges itself.
    """
    is_judge = np.ones(len(directions), bool)
    is_judge[candidates.numpy()] = False
    judges = np.flatnonzero(is_judge)
    judges = np.sort(draw.choice(judges, min(JUDGES, len(judges)), replace=False))
    losses = torch.zeros(len(candidates), dtype=torch.float64)
    atoms = _taken(directions, candidates)
    gram = affordable_gram(atoms, traffic=orthogonal_traffic(l0))
    for part in torch.from_numpy(judges).split(tokens_together(l0)):
        codes = orthogonal_matching_pursuit(_taken(directions, part), atoms, l0, gram)
        identity = torch.eye(l0, dtype=torch.float32, device=atoms.device)
        identity = identity.expand_as(codes.factor)
        inverse = torch.linalg.solve_triangular(codes.factor, identity, upper=False)
        loss = codes.coefficients.square() / inverse.square().sum(1)  # (G⁻¹)_jj = Σ_i (L⁻¹)_ij²
        loss, latents = to_host(loss, codes.latents)
        losses.index_add_(0, latents.flatten(), loss.double().flatten())
    return losses
