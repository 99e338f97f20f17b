"""The orthogonal pursuit, the default, against the one product and other libraries: a part of
pursuit.py."""

from collections.abc import Callable

import torch

from benchmarks.common.exact_pursuits import exact_latents
from benchmarks.common.harness import ROUNDS, Report, in_turn
from itda_core.pursuit.codes import tokens_together
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit

L0, N_TOKENS, CHECKED_TOKENS = 32, 4_096, 1_024
ATOMS = (2_048, 7_209)
SKLEARN_TOKENS, OMP_GPU_TOKENS = 32, 64
_PEERS = (
    f"min – **median** – max of {ROUNDS} rounds, all methods in turn in each round; activations "
    f"less their mean, as a dictionary takes them. scikit-learn was given {SKLEARN_TOKENS} tokens, "
    f"orthogonal-matching-pursuit-gpu {OMP_GPU_TOKENS}: they would take too long, or too much "
    "memory, on all."
)


def orthogonal_section(report: Report, x: torch.Tensor, sizes: tuple[int, ...] = ATOMS) -> None:
    """For each number of atoms: speed against the one product and the peers, and agreement with
    float64. x: activations, more than atoms and tokens together."""
    centred = x - x.mean(0)
    for n_atoms in sizes:
        atoms = torch.nn.functional.normalize(centred[:n_atoms], dim=1).contiguous()
        _measure(report, atoms, centred[n_atoms : n_atoms + N_TOKENS].contiguous())


def _measure(report: Report, atoms: torch.Tensor, tokens: torch.Tensor) -> None:
    gram, room = gram_matrix(atoms), torch.empty(len(tokens), len(atoms))
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "one product": (len(tokens), lambda: torch.mm(tokens, atoms.T, out=room)),
        "ours": (len(tokens), lambda: _pursued(tokens, atoms, gram)),
        **_peers(tokens, atoms),
    }
    seconds = in_turn({name: run for name, (_, run) in contenders.items()})
    each = {name: seconds[name].times(1 / count) for name, (count, _) in contenders.items()}
    product, ours = each["one product"], each["ours"]
    rows = [
        {
            "method": name,
            "tokens/s": spread.per(1),
            "time of one product": spread / product,
            "ours is faster by": "" if name in ("ours", "one product") else spread / ours,
        }
        for name, spread in each.items()
    ]
    title = f"Orthogonal pursuit, {len(atoms):,} atoms, {len(tokens):,} tokens"
    report.table(title, rows, _PEERS)
    what = f"Orthogonal pursuit against the one product, {len(atoms):,} atoms"
    report.target(what, "≤ 3.5×", ours / product, (ours / product).median <= 3.5)
    some = tokens[:CHECKED_TOKENS]
    exact = exact_latents(some, atoms, L0, "orthogonal")
    same = float((_pursued(some, atoms, gram) == exact).all(1).float().mean())
    what = f"The same latents as orthogonal pursuit in float64, {len(atoms):,} atoms"
    report.target(what, f"≥ 99.5 % of {len(some):,} tokens", f"{same:.2%}", same >= 0.995)


def _pursued(tokens: torch.Tensor, atoms: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Latents, in blocks of as many tokens as encoding takes."""
    parts = tokens.split(tokens_together(L0))
    codes = [orthogonal_matching_pursuit(part, atoms, L0, gram=gram) for part in parts]
    return torch.cat([part.latents for part in codes])


def _peers(tokens: torch.Tensor, atoms: torch.Tensor) -> dict:
    """Other libraries' pursuit, where they are installed: tokens taken, and the call."""
    found = {}
    try:
        from sklearn.linear_model import orthogonal_mp_gram

        some, wide = tokens[:SKLEARN_TOKENS].double().numpy(), atoms.double().numpy()
        full, products = wide @ wide.T, wide @ some.T
        found["scikit-learn orthogonal_mp_gram"] = (
            SKLEARN_TOKENS,
            lambda: orthogonal_mp_gram(full, products, n_nonzero_coefs=L0, copy_Gram=False),
        )
    except ImportError:
        print("scikit-learn is not installed: left out")
    try:
        from orthogonal_matching_pursuit_gpu.omp import omp_v0

        few, across, squares = tokens[:OMP_GPU_TOKENS], atoms.T.contiguous(), atoms @ atoms.T
        found["orthogonal-matching-pursuit-gpu"] = (
            OMP_GPU_TOKENS,
            lambda: omp_v0(across, few, squares, L0),
        )
    except ImportError:
        print("orthogonal-matching-pursuit-gpu is not installed (pip install it): left out")
    return found
