"""Orthogonal matching pursuit against the one product X·Dᵀ, float64 and its peers: a section of
the pursuit's report. By itself: .venv/bin/python -m benchmarks.speed.orthogonal [--quick]
"""

import argparse
import functools
from collections.abc import Callable

import torch

from benchmarks.common.activations import activations
from benchmarks.common.harness import ROUNDS, Report, in_turn
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit

LAYER, L0, SIZES, N_TOKENS = 15, 32, (2_048, 7_209), 4_096
SKLEARN_TOKENS, BATCHED_TOKENS, CHECKED_TOKENS = 32, 64, 1_024
LIMIT, SHARE, ROUNDS_OF_TWO = 3.5, 0.995, 9


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    quick = options.parse_args().quick
    x = activations(LAYER, 8_000 if quick else 16_000)
    report = Report("orthogonal", "Orthogonal pursuit", "Not saved.")
    add_orthogonal(report, x, (1_024,) if quick else SIZES)


def add_orthogonal(report: Report, x: torch.Tensor, sizes: tuple[int, ...] = SIZES) -> None:
    """Times and agreement at each number of atoms; x: activations, more than atoms and tokens."""
    for n_atoms in sizes:
        atoms = torch.nn.functional.normalize(x[:n_atoms], dim=1)
        tokens = x[n_atoms : n_atoms + N_TOKENS].contiguous()
        _against_others(report, tokens, atoms)
        _agreement(report, tokens[:CHECKED_TOKENS], atoms)


def _against_others(report: Report, tokens: torch.Tensor, atoms: torch.Tensor) -> None:
    gram, room = gram_matrix(atoms), torch.empty(len(tokens), len(atoms), dtype=torch.float32)
    peers = _peers(tokens, atoms)
    contenders = {
        "one product": (len(tokens), lambda: torch.mm(tokens, atoms.T, out=room)),
        "ours": (len(tokens), lambda: orthogonal_matching_pursuit(tokens, atoms, L0, gram=gram)),
        **peers,
    }
    two = in_turn({name: contenders[name][1] for name in ("one product", "ours")}, ROUNDS_OF_TWO)
    ratio = two["ours"] / two["one product"]
    what = f"Orthogonal pursuit against the one product, {len(atoms):,} atoms"
    report.target(what, f"≤ {LIMIT}×", ratio, ratio.median <= LIMIT)
    seconds = in_turn({name: run for name, (_, run) in contenders.items()})
    each = {name: seconds[name].times(1 / count) for name, (count, _) in contenders.items()}
    report.table(
        f"Orthogonal pursuit, {len(atoms):,} atoms, {len(tokens):,} tokens",
        [
            {
                "method": name,
                "tokens/s": spread.per(1),
                "time of one product": spread / each["one product"],
                "ours is faster by": spread / each["ours"] if name in peers else "",
            }
            for name, spread in each.items()
        ],
        f"min – **median** – max of {ROUNDS} rounds, all methods in turn in each round; the target "
        f"is from {ROUNDS_OF_TWO} rounds of the first two alone, whose caches no other empties. "
        f"scikit-learn was given {SKLEARN_TOKENS} tokens and its products, "
        f"orthogonal-matching-pursuit-gpu {BATCHED_TOKENS}; where it is not listed, it was not "
        "installed.",
    )


def _peers(tokens: torch.Tensor, atoms: torch.Tensor) -> dict[str, tuple[int, Callable]]:
    """Other libraries' orthogonal pursuit, where they are installed: tokens taken, and the call."""
    found = {}
    try:
        call = _scikit_learn(tokens[:SKLEARN_TOKENS], atoms)
        found["scikit-learn orthogonal_mp_gram"] = (SKLEARN_TOKENS, call)
    except ImportError:
        print("scikit-learn is not installed: left out")
    try:
        call = _batched(tokens[:BATCHED_TOKENS], atoms)
        found["orthogonal-matching-pursuit-gpu, on the CPU"] = (BATCHED_TOKENS, call)
    except ImportError:
        print(
            "orthogonal-matching-pursuit-gpu is not installed: left out. It is built from source: "
            "pip install 'cython<3' setuptools, then "
            "pip install --no-build-isolation orthogonal-matching-pursuit-gpu==0.1.3"
        )
    return found


def _scikit_learn(tokens: torch.Tensor, atoms: torch.Tensor) -> Callable:
    from sklearn.linear_model import orthogonal_mp_gram

    wide = atoms.double().numpy()
    gram, products = wide @ wide.T, wide @ tokens.double().numpy().T
    return functools.partial(orthogonal_mp_gram, gram, products, n_nonzero_coefs=L0)


def _batched(tokens: torch.Tensor, atoms: torch.Tensor) -> Callable:
    from orthogonal_matching_pursuit_gpu import omp_v0

    return functools.partial(omp_v0, atoms.T, tokens, atoms @ atoms.T, L0)


def _agreement(report: Report, tokens: torch.Tensor, atoms: torch.Tensor) -> None:
    """Against the pursuit as it is written down, in float64."""
    latents, coefficients = _in_float64(tokens, atoms)
    codes = orthogonal_matching_pursuit(tokens, atoms, L0, gram=gram_matrix(atoms))
    same = (codes.latents == latents).all(1)
    off = (codes.coefficients - coefficients).abs() / tokens.double().norm(dim=1, keepdim=True)
    share = float(same.double().mean())
    what = f"Orthogonal pursuit, {len(atoms):,} atoms: same latents as float64"
    report.target(what, f"≥ {SHARE:.1%} of tokens", f"{share:.2%}", share >= SHARE)
    print(f"largest error of a coefficient there: {float(off[same].max()):.1e} of the norm")


def _in_float64(tokens: torch.Tensor, atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares on all atoms taken after each step: latents, coefficients, [n_tokens, L0]."""
    x, wide = tokens.double(), atoms.double()
    residuals, latents = x, torch.zeros(len(x), 0, dtype=torch.int64)
    for _ in range(L0):
        best = (residuals @ wide.T).abs().argmax(1)
        latents = torch.cat([latents, best[:, None]], 1)
        chosen = wide[latents]
        solved = torch.linalg.solve(chosen @ chosen.mT, chosen @ x[..., None])
        residuals = x - (chosen.mT @ solved)[..., 0]
    return latents, solved[..., 0]


if __name__ == "__main__":
    main()
