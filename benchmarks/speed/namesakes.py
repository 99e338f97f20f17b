"""The latents of two dictionaries compared: against the one sparse product that no way avoids.

.venv/bin/python -m benchmarks.speed.namesakes [--quick]
"""

import argparse

import numpy as np
from scipy.sparse import coo_array, csc_array

from benchmarks.common.harness import ROUNDS, Report, in_turn
from itda_core.similarity.namesakes import compare_namesakes

N_TOKENS, N_LATENTS, L0, PROMPTS = 10_000, 2_048, 32, 100
GROWTH = (2_048, 4_096, 8_192, 16_384)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    quick = options.parse_args().quick
    report = Report(
        "namesakes",
        "Latents of two dictionaries",
        f"Coefficients drawn at random: {N_TOKENS:,} tokens of {PROMPTS} prompts, {L0} terms each; "
        "every latent has a namesake. *One product* is the sparse product of both.",
    )
    rows = []
    for n_latents in (512,) if quick else GROWTH:
        seconds = _seconds(n_latents, 1 if quick else ROUNDS)
        if n_latents == N_LATENTS:
            met = seconds["all"].median < 1
            what = f"{N_TOKENS:,} tokens, {n_latents:,} latents on either side compared"
            report.target(what, "≤ 1 s", seconds["all"], met)
        rows.append({"latents": f"{n_latents:,}", **seconds})
    columns = {"all": "with intervals, s", "plain": "without, s", "product": "one product, s"}
    report.table(
        "Correlations, ranks, chance", [{columns.get(k, k): v for k, v in r.items()} for r in rows]
    )
    if not quick:
        report.save()


def _seconds(n_latents: int, rounds: int) -> dict:
    a, b = (_drawn(seed, n_latents) for seed in range(2))
    pairs = np.stack([np.arange(n_latents)] * 2, 1)
    prompts = np.repeat(np.arange(PROMPTS), N_TOKENS // PROMPTS)
    return in_turn(
        {
            "all": lambda: compare_namesakes(a, b, pairs, prompts),
            "plain": lambda: compare_namesakes(a, b, pairs, np.zeros_like(prompts)),
            "product": lambda: a.T @ b,
        },
        rounds,
    )


def _drawn(seed: int, n_latents: int) -> csc_array:
    """L0 latents of each token with normal coefficients."""
    draw = np.random.default_rng(seed)
    latents = draw.random((N_TOKENS, n_latents), np.float32).argpartition(L0, axis=1)[:, :L0]
    tokens = np.repeat(np.arange(N_TOKENS), L0)
    terms = draw.standard_normal(tokens.size), (tokens, latents.ravel())
    return coo_array(terms, shape=(N_TOKENS, n_latents)).tocsc()


if __name__ == "__main__":
    main()
