"""Terms shared out over tokens: the smallest projection that is worth one."""

import functools

import torch

from itda_core.devices import to_host
from itda_core.pursuit.codes import tokens_together
from itda_core.pursuit.gram import affordable_gram, orthogonal_traffic
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit

_FLOOR = 0.8
"""Of the median projection at the wanted step: where the least one worth a term is looked for
first."""


def smallest_worth(x: torch.Tensor, atoms: torch.Tensor, l0: int, max_terms: int) -> float:
    """The projection from which on a term is worth it, so that tokens use `l0` terms on average and
    none more than `max_terms`, in units of the activations; 0 where there is no token.

    x: activations with the offset taken off, [n_tokens, d_model]; atoms: [n_atoms, d_model].
    """
    if not len(x) or not len(atoms):
        return 0.0
    # A token uses the steps before the first small one: those whose running minimum is not small.
    # Steps far below the answer are long and not needed, so they are left out at first.
    gram = affordable_gram(atoms, traffic=orthogonal_traffic(l0))
    lowest_with = functools.partial(_lowest, x, atoms, gram)
    floor = _FLOOR * float(lowest_with(l0, 0.0)[:, -1].median())
    lowest = lowest_with(max_terms, floor).flatten()
    wanted = min(len(lowest), l0 * len(x))
    if int((lowest > 0).sum()) < wanted:
        lowest = lowest_with(max_terms, 0.0).flatten()
    return float(lowest.sort(descending=True).values[wanted - 1])


def _lowest(
    x: torch.Tensor, atoms: torch.Tensor, gram: torch.Tensor | None, l0: int, min_projection: float
) -> torch.Tensor:
    """The smallest projection up to each step, [n_tokens, l0] float64 on the host; 0 after the
    end."""
    parts = x.split(tokens_together(l0))
    pursued = [
        orthogonal_matching_pursuit(part, atoms, l0, gram, min_projection=min_projection)
        for part in parts
    ]
    [projections] = to_host(torch.cat([codes.projections for codes in pursued]))
    return projections.double().abs().cummin(1).values
