"""Matching pursuit, plain and orthogonal, against the peers and the one product that no method
avoids.

.venv/bin/python -m benchmarks.speed.pursuit [--quick]
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.common.activations import activations
from benchmarks.common.harness import ROUNDS, Report, Spread, in_turn
from benchmarks.speed.orthogonal import SIZES, add_orthogonal
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.gram import affordable_gram, gram_bytes, gram_matrix
from itda_core.pursuit.matching import matching_pursuit

LAYER, L0, N_ATOMS, N_TOKENS = 15, 32, 7_209, 4_096
GROWTH = (1_024, 2_048, 4_096, 7_209, 16_384, 32_768, 65_536)
CAPTURED = 70_000
PLAIN_TOKENS, SKLEARN_TOKENS, SAE_LENS_TOKENS, CHECKED_TOKENS = 256, 32, 128, 1_024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    quick = options.parse_args().quick
    x = activations(LAYER, 8_000 if quick else CAPTURED)
    n_atoms, growth = (1_024, GROWTH[:2]) if quick else (N_ATOMS, GROWTH)
    report = Report(
        "pursuit",
        "Pursuit",
        f"Activations of SmolLM2-135M, layer {LAYER} (d_model {x.shape[1]}), on the built-in "
        f"corpus; atoms are activations of other tokens; L0 {L0}. *One product* is X·Dᵀ for the "
        "same tokens, written into memory that is there already.",
    )
    _against_others(report, x, n_atoms)
    _agreement(report, x, n_atoms)
    _growth_with_atoms(report, x, growth)
    _growth_with_l0(report, x, n_atoms)
    add_orthogonal(report, x, growth[:1] if quick else SIZES)
    if not quick:
        report.save()


def _split(x: torch.Tensor, n_atoms: int, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms, and tokens that are none of them."""
    atoms = torch.nn.functional.normalize(x[:n_atoms], dim=1)
    return atoms, x[n_atoms : n_atoms + n_tokens].contiguous()


def plain_pursuit(x: torch.Tensor, atoms: torch.Tensor, l0: int) -> Codes:
    """Matching pursuit as it is written down: a product with all atoms at every step."""
    residuals, latents, coefficients = x.clone(), [], []
    for _ in range(l0):
        correlations = residuals @ atoms.T
        latents.append(correlations.abs().argmax(1))
        coefficients.append(correlations.gather(1, latents[-1][:, None])[:, 0])
        residuals -= coefficients[-1][:, None] * atoms[latents[-1]]
    return Codes(torch.stack(latents, 1), torch.stack(coefficients, 1))


def _against_others(report: Report, x: torch.Tensor, n_atoms: int) -> None:
    atoms, tokens = _split(x, n_atoms, N_TOKENS)
    gram, room = gram_matrix(atoms), torch.empty(len(tokens), len(atoms))
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "one product": (len(tokens), lambda: torch.mm(tokens, atoms.T, out=room)),
        "ours": (len(tokens), lambda: matching_pursuit(tokens, atoms, L0, gram=gram)),
        "ours, its Gram matrix made anew": (
            len(tokens),
            lambda: matching_pursuit(tokens, atoms, L0),
        ),
        "plain pursuit": (PLAIN_TOKENS, lambda: plain_pursuit(tokens[:PLAIN_TOKENS], atoms, L0)),
        **_peers(tokens, atoms),
    }
    seconds = in_turn({name: run for name, (_, run) in contenders.items()})
    each = {name: seconds[name].times(1 / count) for name, (count, _) in contenders.items()}
    product, ours = each["one product"], each["ours"]
    report.table(
        f"{n_atoms:,} atoms, {len(tokens):,} tokens",
        [
            {
                "method": name,
                "tokens/s": spread.per(1),
                "time of one product": spread / product,
                "ours is faster by": "" if name.startswith(("ours", "one")) else spread / ours,
            }
            for name, spread in each.items()
        ],
        f"min – **median** – max of {ROUNDS} rounds, all methods in turn in each round. Plain "
        f"pursuit was given {PLAIN_TOKENS} tokens, scikit-learn {SKLEARN_TOKENS}, sae-lens "
        f"{SAE_LENS_TOKENS}: they would take too long on all.",
    )
    ratio, gain = ours / product, each["plain pursuit"] / ours
    report.target("Pursuit against the one product", "≤ 2.0×", ratio, ratio.median <= 2.0)
    report.target("Pursuit against plain pursuit", "≥ 15× faster", gain, gain.median >= 15)


def _peers(tokens: torch.Tensor, atoms: torch.Tensor) -> dict:
    """Other libraries' pursuit, where they are installed: tokens taken, and the call."""
    found = {}
    try:
        from sklearn.linear_model import orthogonal_mp_gram

        some, wide = tokens[:SKLEARN_TOKENS].numpy(), atoms.double().numpy()
        full = wide @ wide.T
        products = wide @ some.astype(np.float64).T
        found["scikit-learn orthogonal_mp_gram"] = (
            SKLEARN_TOKENS,
            lambda: orthogonal_mp_gram(full, products, n_nonzero_coefs=L0, copy_Gram=False),
        )
    except ImportError:
        print("scikit-learn is not installed: left out")
    try:
        found["sae-lens MatchingPursuitSAE"] = (SAE_LENS_TOKENS, _sae_lens(tokens, atoms))
    except ImportError:
        print("sae-lens is not installed (requirements-dev.txt): left out")
    return found


def _sae_lens(tokens: torch.Tensor, atoms: torch.Tensor) -> Callable[[], object]:
    from sae_lens import MatchingPursuitSAE, MatchingPursuitSAEConfig

    config = MatchingPursuitSAEConfig(
        d_in=atoms.shape[1],
        d_sae=len(atoms),
        residual_threshold=0.0,
        max_iterations=L0,
        stop_on_duplicate_support=False,
    )
    sae = MatchingPursuitSAE(config)
    sae.W_dec.data, sae.b_dec.data = atoms.clone(), torch.zeros(atoms.shape[1])
    some = tokens[:SAE_LENS_TOKENS]
    return functools.partial(_without_gradients, sae.encode, some)


def _without_gradients(run: Callable, *arguments) -> object:
    with torch.inference_mode():
        return run(*arguments)


def _agreement(report: Report, x: torch.Tensor, n_atoms: int) -> None:
    """Against plain pursuit in float64, on each of the ways that matching_pursuit may take."""
    atoms, tokens = _split(x, n_atoms, CHECKED_TOKENS)
    exact = plain_pursuit(tokens.double(), atoms.double(), L0)
    ways = {
        "compiled, 16-bit Gram matrix": matching_pursuit(tokens, atoms, L0),
        "no memory for a Gram matrix": matching_pursuit(tokens, atoms, L0, memory=1),
        "plain pursuit in float32": plain_pursuit(tokens, atoms, L0),
    }
    rows = []
    for name, codes in ways.items():
        same = (codes.latents == exact.latents).all(1)
        off = (codes.coefficients - exact.coefficients).abs() / exact.coefficients.abs()
        rows.append(
            {
                "method": name,
                "tokens with the same latents": f"{float(same.float().mean()):.2%}",
                "largest relative error of a coefficient there": f"{float(off[same].max()):.1e}",
            }
        )
        if name.startswith("compiled"):
            good = float(same.float().mean()) >= 0.995 and float(off[same].max()) <= 1e-4
            report.target(
                "Same latents as float64, coefficients within 1e-4",
                "≥ 99.5 % of tokens",
                rows[-1]["tokens with the same latents"],
                good,
            )
    report.table(f"Against plain pursuit in float64, {len(tokens):,} tokens", rows)


def _growth_with_atoms(report: Report, x: torch.Tensor, sizes: tuple[int, ...]) -> None:
    rows, speed = [], {"ours": {}, "one product": {}, "plain pursuit": {}}
    for n_atoms in sizes:
        few = 16 if n_atoms > 60_000 else 4 if n_atoms > 30_000 else 1
        atoms, tokens = _split(x, n_atoms, N_TOKENS // few)
        plain = tokens[: PLAIN_TOKENS // few // 2]
        has_gram, gram_seconds = _gram_or_none(atoms)
        room = torch.empty(len(tokens), n_atoms)
        times = in_turn(
            {
                "one product": lambda t=tokens, a=atoms, r=room: torch.mm(t, a.T, out=r),
                "ours": lambda t=tokens, a=atoms, g=has_gram: matching_pursuit(t, a, L0, gram=g),
                "plain pursuit": lambda p=plain, a=atoms: plain_pursuit(p, a, L0),
            },
            rounds=3 if n_atoms > 30_000 else ROUNDS,
        )
        counts = {"one product": len(tokens), "ours": len(tokens), "plain pursuit": len(plain)}
        each = {name: spread.times(1 / counts[name]) for name, spread in times.items()}
        rows.append(
            {
                "atoms": f"{n_atoms:,}",
                "ours, tokens/s": each["ours"].per(1),
                "time of one product": each["ours"] / each["one product"],
                "faster than plain pursuit by": each["plain pursuit"] / each["ours"],
                "Gram matrix": f"{gram_bytes(n_atoms, atoms.device) / 2**20:,.0f} MiB in "
                f"{gram_seconds:.1f} s"
                if has_gram is not None
                else "none: over a quarter of the free memory",
            }
        )
        for name, spread in each.items():
            speed[name][n_atoms] = spread.per(1).median
    report.table("Growth with the number of atoms", rows)
    report.plot("Pursuit: growth with the number of atoms", "atoms", "tokens a second", speed)


def _gram_or_none(atoms: torch.Tensor) -> tuple[torch.Tensor | None, float]:
    """A Gram matrix where the default budget has room for it, and the seconds it took."""
    started = time.perf_counter()
    return affordable_gram(atoms), time.perf_counter() - started


def _growth_with_l0(report: Report, x: torch.Tensor, n_atoms: int) -> None:
    atoms, tokens = _split(x, n_atoms, N_TOKENS)
    gram = gram_matrix(atoms)
    sizes = (1, 4, 16, 32, 64)
    seconds = in_turn(
        {str(l0): lambda l0=l0: matching_pursuit(tokens, atoms, l0, gram=gram) for l0 in sizes}
    )
    all_at_once = Spread(
        tuple(sum(v) for v in zip(*(s.values for s in seconds.values()), strict=True))
    )
    report.table(
        f"Growth with L0, {n_atoms:,} atoms",
        [{"L0": name, "tokens/s": s.per(len(tokens))} for name, s in seconds.items()],
        f"The prefix of a pursuit is the pursuit of smaller L0: metrics at all of these from the "
        f"pursuit to L0 64 cost {(seconds['64'] / all_at_once).median:.2f} of pursuing each.",
    )


if __name__ == "__main__":
    main()
