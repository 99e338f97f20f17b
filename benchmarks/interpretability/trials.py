"""What could bring a dictionary ahead of autoencoders on all of its uses: the trials that
docs/experiments.md tells of. No part of the explorer.

.venv/bin/python -m benchmarks.interpretability.trials [--explored N]
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import torch

from benchmarks.common.activations import smollm2, use_cache
from benchmarks.common.captured import one_quiet_thread
from benchmarks.common.harness import Report
from benchmarks.interpretability.measure import FOLDER
from benchmarks.interpretability.runs import ITDA, LAYER, METHODS, Sizes, make_run
from itda_core.analysis.judged_tokens import ReadRun, draw
from itda_core.analysis.nearness import Judge
from itda_core.dictionary.dictionary import Dictionary
from itda_core.evaluation.batch import held_out_prompts
from itda_core.evaluation.detection import EMBEDDER, Nearness, auroc
from itda_core.evaluation.strong_uses import MIN_USES, strong_thresholds
from itda_core.model.loading import load_model
from itda_core.pursuit.codes import weighted_sums
from itda_core.runs.latent_uses import Uses
from itda_core.runs.run import Run

HELD_OUT, L0, CAP = 4_096, 32, 64
_TOGETHER = 2_048


class Terms(NamedTuple):
    """Decompositions of tokens into terms of atoms."""

    latents: np.ndarray
    """[n_tokens, l0] int64"""
    coefficients: np.ndarray
    """[n_tokens, l0] float32, 0 where there is no term"""
    projections: np.ndarray
    """[n_tokens, l0] float32, what each step took along what its atom added"""


@dataclass(frozen=True)
class Rule:
    """How atoms may be taken."""

    l0: int = L0
    named: np.ndarray | None = None
    """[n_atoms] bool: taken with a positive coefficient only, from `admits` up; None for none"""
    admits: np.ndarray | None = None
    """[n_atoms] float32, the smallest correlation with what is left; None for 0"""
    min_projection: float = 0.0
    min_share: float = 0.0
    """The same as a share of the token's norm"""


@dataclass(frozen=True)
class Bench:
    """Activations without the offset, atoms, and what judges the uses of the explored tokens."""

    held: np.ndarray
    explored: np.ndarray
    """[n_tokens, d_model] float32"""
    numbers: np.ndarray
    """[n_tokens] int64 of the explored tokens, as `read` has them"""
    atoms: np.ndarray
    read: ReadRun
    nearness: Nearness


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--explored", type=int, default=40_960, help="tokens that are judged")
    sizes = replace(Sizes(), explored=options.parse_args().explored)
    one_quiet_thread()
    use_cache()
    run = make_run(ITDA, sizes, FOLDER)
    bench = open_bench(run)
    about = f"Layer {LAYER}, {len(bench.atoms):,} atoms, {sizes.explored:,} explored tokens."
    report, usual = Report("all-uses", "Ahead on all uses", about), None
    rows = []
    for name, found in trials(bench):
        usual = usual or found["FVU"]
        rows.append({"trial": name, "of the default": found["FVU"] / usual, **found})
        print(rows[-1], flush=True)
    for name in METHODS:
        if name != ITDA:
            rows.append({"trial": name, **autoencoder(bench, make_run(name, Sizes(), FOLDER), run)})
            rows[-1]["of the default"] = rows[-1]["FVU"] / usual
            rows[-1] = {column: rows[-1][column] for column in rows[0]}
    report.table("All uses", rows)


# The trials


def trials(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """Each by its name, the default first."""
    usual = take(bench.explored, bench.atoms, Rule())
    yield "default", measured(bench, Rule())
    everything = np.ones(len(bench.atoms), bool)
    yield "positive coefficients only", measured(bench, Rule(named=everything))
    yield "L0 on average", measured(bench, on_average(bench, Rule()))
    for share in (0.07, 0.1, 0.15):
        yield f"until {share} of the norm", measured(bench, Rule(CAP, min_share=share))
    for n, l0 in ((16, L0), (16, L0 - 16)):
        part = without_components(bench, n)
        yield f"{n} components off first, then L0 {l0}", measured(part, Rule(l0), bench.held)
    threshold, squares = filler_of(bench, usual)
    for n_filler, strictness in ((768, 0.7), (768, 1.0), (896, 1.0), (1_024, 0.7), (1_024, 1.0)):
        is_filler = np.zeros(len(bench.atoms), bool)
        is_filler[np.argsort(-squares)[:n_filler]] = True
        rule = on_average(bench, Rule(CAP, ~is_filler, strictness * threshold))
        name = f"{n_filler} for filler, others from {strictness} of their threshold up"
        yield name, measured(bench, rule)


def on_average(bench: Bench, rule: Rule) -> Rule:
    """The rule with the smallest projection by which held-out tokens take L0 terms on average."""
    taken = take(bench.held, bench.atoms, replace(rule, l0=CAP))
    smallest = np.minimum.accumulate(taken.projections, axis=1)
    ordered = np.sort(smallest.ravel())[::-1]
    return replace(rule, l0=CAP, min_projection=float(ordered[L0 * len(smallest)]))


def filler_of(bench: Bench, taken: Terms) -> tuple[np.ndarray, np.ndarray]:
    """The threshold of each latent's strong uses, as `strong_thresholds` tells it (the largest
    there is where there is none), and the squared coefficients below it, [n_atoms]."""
    uses, elsewhere = _uses(bench, taken)
    n_atoms = len(bench.atoms)
    told = strong_thresholds(uses.latents[elsewhere], uses.coefficients[elsewhere], n_atoms)
    threshold = np.where(np.isnan(told.threshold), np.inf, told.threshold)
    is_filler = np.abs(uses.coefficients) < threshold[uses.latents]
    squares = uses.coefficients[is_filler].astype(np.float64) ** 2
    largest = threshold[np.isfinite(threshold)].max()
    return np.minimum(threshold, largest), np.bincount(uses.latents[is_filler], squares, n_atoms)


def without_components(bench: Bench, n: int) -> Bench:
    """The bench without the first principal components of the explored activations."""
    centred = torch.from_numpy(bench.explored - bench.explored.mean(0))
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    basis = vectors[:, values.argsort(descending=True)[:n]].numpy()
    left = {
        name: x - (x @ basis) @ basis.T
        for name, x in (("held", bench.held), ("explored", bench.explored), ("atoms", bench.atoms))
    }
    left["atoms"] /= np.linalg.norm(left["atoms"], axis=1, keepdims=True)
    return replace(bench, **left)


# Measuring


def measured(bench: Bench, rule: Rule, whole: np.ndarray | None = None) -> dict[str, float]:
    """FVU and terms on held-out tokens, and AUROC on explored ones. whole: the held-out activations
    that the FVU is of, where the bench has a part of them."""
    taken = take(bench.held, bench.atoms, rule)
    left = bench.held - reconstruct(taken, bench.atoms)
    x = bench.held if whole is None else whole
    fvu = float((left**2).sum() / ((x - x.mean(0)) ** 2).sum())
    terms = float((taken.coefficients != 0).sum(1).mean())
    return {"FVU": fvu, "terms": terms, **judged(bench, take(bench.explored, bench.atoms, rule))}


def judged(bench: Bench, taken: Terms, read: ReadRun | None = None) -> dict[str, float]:
    """AUROC of all and of strong uses against any token, mean over the latents that at least
    MIN_USES explored tokens use. read: with other titles than the bench's."""
    read = read or bench.read
    uses, elsewhere = _uses(replace(bench, read=read), taken)
    read = replace(read, uses=uses, is_elsewhere=elsewhere)
    n_latents = len(read.titles)
    counted = elsewhere & (read.tokens.words[uses.tokens] >= 0)
    enough = np.bincount(uses.latents[counted], minlength=n_latents) >= MIN_USES
    enough &= read.titles >= 0
    told = strong_thresholds(uses.latents[elsewhere], uses.coefficients[elsewhere], n_latents)
    with np.errstate(invalid="ignore"):
        is_strong = elsewhere & (uses.coefficients >= told.threshold[uses.latents])
    return {
        "latents": int(enough.sum()),
        "all uses": _auroc(bench, read, elsewhere, enough),
        "strong uses": _auroc(bench, read, is_strong, enough) if is_strong.any() else float("nan"),
        "strong": float(is_strong.sum() / elsewhere.sum()),
    }


def _auroc(bench: Bench, read: ReadRun, which: np.ndarray, enough: np.ndarray) -> float:
    drawn = draw(read, which)
    near = (bench.nearness.of(read.titles, tokens) for tokens in (drawn.uses, drawn.others))
    return float(np.nanmean(auroc(*near)[enough]))


def _uses(bench: Bench, taken: Terms) -> tuple[Uses, np.ndarray]:
    """The uses of the explored tokens, by latent and token, and which are outside the prompt of
    the latent's title."""
    rows, steps = np.nonzero(taken.coefficients)
    latents, tokens = taken.latents[rows, steps], bench.numbers[rows]
    order = np.lexsort((tokens, latents))
    latents, tokens = latents[order].astype(np.int32), tokens[order].astype(np.int32)
    coefficients = taken.coefficients[rows, steps][order]
    own = bench.read.tokens.prompts[bench.read.titles][latents]
    uses = Uses(latents, tokens, coefficients, steps[order].astype(np.int16))
    return uses, bench.read.tokens.prompts[tokens] != own


def autoencoder(bench: Bench, run: Run, ours: Run) -> dict[str, float]:
    """An autoencoder on the same tokens, each latent titled by the token where it is strongest."""
    dictionary, offset = run.dictionary(), ours.dictionary().offset.numpy()
    found = [_encoded(dictionary, x + offset) for x in (bench.held, bench.explored)]
    (held, left), (taken, _) = found
    order = np.argsort(taken.coefficients.ravel(), kind="stable")
    titles = np.full(len(dictionary), -1)
    of = np.repeat(bench.numbers, taken.latents.shape[1])
    titles[taken.latents.ravel()[order]] = of[order]
    titles[bench.read.tokens.words[titles] < 0] = -1
    x = bench.held
    return {
        "FVU": float((left**2).sum() / ((x - x.mean(0)) ** 2).sum()),
        "terms": float((held.coefficients != 0).sum(1).mean()),
        **judged(bench, taken, replace(bench.read, titles=titles)),
    }


def _encoded(dictionary: Dictionary, x: np.ndarray) -> tuple[Terms, np.ndarray]:
    """The terms of raw activations, and what these leave."""
    codes = dictionary.encode(torch.from_numpy(x))
    terms = codes.latents.numpy(), codes.coefficients.numpy(), codes.coefficients.numpy()
    return Terms(*terms), x - dictionary.decode(codes).numpy()


def open_bench(run: Run) -> Bench:
    """Capture what a run has explored and as many held-out tokens as are measured."""
    model, dictionary, read = smollm2("float32"), run.dictionary(), ReadRun.of(run)
    texts = pd.read_parquet(run.directory / "prompts.parquet")["text"].tolist()
    held, *_ = _captured(model, [one.text for one in held_out_prompts(run)], run, HELD_OUT)
    explored, prompts, positions = _captured(model, texts, run, run.metrics["explored_tokens"])
    tokens = np.arange(len(read.tokens.words))
    *_, (_, nearness) = Judge(load_model(EMBEDDER)).read(read.prompts, read.tokens, tokens)
    offset = dictionary.offset.numpy()
    numbers = read.tokens.offsets[prompts] + positions
    atoms = dictionary.atoms.numpy()
    return Bench(held - offset, explored - offset, numbers, atoms, read, nearness)


def _captured(model, texts: list[str], run: Run, count: int) -> tuple[np.ndarray, ...]:
    """[count, d_model] float32 of the first tokens, their prompts and positions."""
    parts, n = [], 0
    for first in range(0, len(texts), 16):
        tokens = model.tokenize(texts[first : first + 16], run.config.context_length)
        found = model.capture(tokens, [run.layer])
        place = np.asarray(found.prompts) + first, np.asarray(found.positions)
        parts.append((found[run.layer].float().numpy(), *place))
        n += len(parts[-1][0])
        if n >= count:
            break
    return tuple(np.concatenate(one)[:count] for one in zip(*parts, strict=True))


# The pursuit


def reconstruct(taken: Terms, atoms: np.ndarray) -> np.ndarray:
    """[n_tokens, d_model] float32."""
    numbers, weights = (torch.from_numpy(part) for part in taken[:2])
    return weighted_sums(numbers, weights, torch.from_numpy(atoms)).numpy()


def take(x: np.ndarray, atoms: np.ndarray, rule: Rule) -> Terms:
    """Orthogonal matching pursuit by a rule; x: [n_tokens, d_model] without the offset."""
    shape, n_atoms = (len(x), rule.l0), len(atoms)
    named = np.zeros(n_atoms, bool) if rule.named is None else rule.named
    admits = np.zeros(n_atoms) if rule.admits is None else rule.admits
    taken = Terms(np.zeros(shape, np.int64), *(np.zeros(shape, np.float32) for _ in range(2)))
    least = np.maximum(rule.min_projection, rule.min_share * np.linalg.norm(x, axis=1))
    gram = atoms @ atoms.T
    for first in range(0, len(x), _TOGETHER):
        rows = slice(first, first + _TOGETHER)
        own = [part[rows] for part in taken]
        _pursue(x[rows] @ atoms.T, gram, named, admits.astype(np.float32), least[rows], *own)
    return taken


@numba.njit(fastmath=True, cache=True)
def _pursue(products, gram, named, admits, least, latents, coefficients, projections):
    """products: [n_tokens, n_atoms] float32; least: [n_tokens], a smaller projection ends."""
    n_tokens, l0 = latents.shape
    inverse, weights, along = np.zeros((l0, l0)), np.zeros(l0), np.zeros(l0)
    for token in range(n_tokens):
        left, n_taken = products[token].copy(), 0
        weights[:] = 0
        for step in range(l0):
            atom = _best(left, named, admits, latents[token, :step])
            if atom < 0:
                break
            square, correlation = 1.0, np.float64(products[token, atom])
            for k in range(step):
                along[k] = 0.0
                for i in range(k + 1):
                    along[k] += inverse[k, i] * gram[atom, latents[token, i]]
                square -= along[k] * along[k]
                correlation -= weights[k] * gram[atom, latents[token, k]]
            if square < 1e-6 or abs(correlation) < least[token] * np.sqrt(square):
                break
            size = np.sqrt(square)
            latents[token, step], projections[token, step] = atom, abs(correlation) / size
            for i in range(step):
                total = 0.0
                for k in range(i, step):
                    total += along[k] * inverse[k, i]
                inverse[step, i] = -total / size
            inverse[step, step] = 1 / size
            for i in range(step + 1):
                change = correlation / size * inverse[step, i]
                weights[i] += change
                left -= np.float32(change) * gram[latents[token, i]]
            n_taken = step + 1
        for i in range(n_taken):
            coefficients[token, i] = weights[i]


@numba.njit(fastmath=True, cache=True)
def _best(left, named, admits, taken):
    """The atom with the largest correlation that may be taken, −1 where there is none."""
    best, largest = -1, np.float32(0)
    for atom in range(len(left)):
        value = left[atom] if named[atom] else abs(left[atom])
        if value > largest and not (named[atom] and value < admits[atom]):
            is_new = True
            for other in taken:
                is_new = is_new and other != atom
            if is_new:
                best, largest = atom, value
    return best


if __name__ == "__main__":
    main()
