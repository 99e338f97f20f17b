"""The commands that measure, decompose and compare; see parser.py for their options."""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itda_core.cli.console import (
    corpus_spec,
    end_status,
    follow,
    refuse_without_corpus,
    show,
    status,
)
from itda_core.errors import InputError
from itda_core.progress import Progress
from itda_core.runs.run import Run, find_run
from itda_core.settings import RESID_POST


def evaluate(options: argparse.Namespace) -> int:
    """Every measure by L0; with --save it is kept with the run."""
    from itda_core.evaluation.batch import EvaluationTask, measure_runs

    asked = {name: getattr(options, name) for name in ("l0s", "quick", "replace")}
    task = EvaluationTask(**_task_options(options), **asked)
    results = _with_site(task.runs, follow(measure_runs(task), options).results)
    rows = _rows(results, "by_l0")
    show(options, {"runs": results}, rows)
    for result in results if options.quick else ():
        print(f"{result['run_id']}: a quick run, {result['tokens']:,} tokens.", file=sys.stderr)
    for reason in dict.fromkeys(result.get("why_no_losses") for result in results):
        if reason:
            print(f"No CE loss score and no KL. {reason}", file=sys.stderr)
    return 0


def probe(options: argparse.Namespace) -> int:
    """How well k latents, and k dimensions of the activations, tell a prompt's labels; with --save
    it is kept with the run."""
    from itda_core.evaluation.batch import ProbingTask, measure_runs

    task = ProbingTask(**_task_options(options))
    results = _with_site(task.runs, follow(measure_runs(task), options).results)
    rows = _rows(results, "results")
    for row in rows:
        row["chosen"] = "  ".join(
            str(feature["feature"])
            if feature["token"] is None
            else f"{feature['feature']} {feature['token']!r}"
            for feature in row["chosen"]
        )
    show(options, {"runs": results}, rows)
    return 0


def _rows(results: list[dict[str, Any]], entry: str) -> list[dict[str, Any]]:
    """A table of what is listed in an entry of each result, with what tells the runs apart."""
    names = [name for name in ("run_id", "site") if results and name in results[0]]
    return [
        {**{name: result[name] for name in names}, **row}
        for result in results
        for row in result[entry]
    ]


def _with_site(runs: Sequence[Run], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results with the sites of their runs, where one is of another than a block's output."""
    sites = {run.run_id: run.site for run in runs}
    if set(sites.values()) == {RESID_POST}:
        return results
    return [
        {"run_id": result["run_id"], "site": sites[result["run_id"]], **result}
        for result in results
    ]


def _task_options(options: argparse.Namespace) -> dict[str, Any]:
    """What evaluations and probings have in common."""
    refuse_without_corpus(options)
    return {
        "runs": tuple(find_run(name, options.runs) for name in options.run),
        "corpus": None if options.corpus is None else corpus_spec(options),
        "max_tokens": options.max_tokens,
        "save": options.save,
        "device": options.device,
        "memory": options.memory,
    }


def detect(options: argparse.Namespace) -> int:
    """How well the titles of latents tell the tokens that use them."""
    from itda_core.evaluation.detection import EMBEDDER
    from itda_core.evaluation.detection import detect as detecting
    from itda_core.model.loading import load_model

    embedder = load_model(EMBEDDER, device=options.device, memory=options.memory)
    results = []
    for run in [find_run(name, options.runs) for name in options.run]:
        result = None
        for result in detecting(run, embedder, options.latents, options.seed):
            status(f"{run.run_id}: {result.prompts:,} of {result.total_prompts:,} prompts")
        scores = {"scores": result.scores, "latents": result.latents}
        results.append({"run_id": run.run_id, "embedder": EMBEDDER, **scores})
    end_status()
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["scores"]]
    show(options, {"runs": results}, rows)
    return 0


def map_atoms(options: argparse.Namespace) -> int:
    """A map of each dictionary, kept with its run."""
    from itda_core.analysis.latent_map import map_runs

    runs = [find_run(name, options.runs) for name in options.run]
    show(options, {"runs": follow(map_runs(runs, options.method), options).results}, "runs")
    return 0


def score(options: argparse.Namespace) -> int:
    """The scores of each latent, kept with its run, and what they come to."""
    from itda_core.analysis.latent_scores import score_runs

    runs = [find_run(name, options.runs) for name in options.run]
    results = follow(score_runs(runs, options.device, options.memory), options).results
    columns = ("run_id", "latents", "with_threshold", "strong_share")
    columns += tuple(name for name in results[0] if name.startswith("median_"))
    columns += ("auroc_above_chance", "same_auroc_above_chance")
    rows = [{name: result[name] for name in columns} for result in results]
    show(options, {"runs": results}, rows)
    return 0


def decompose(options: argparse.Namespace) -> int:
    """Each token's terms in the order of pursuit."""
    from itda_core.analysis.decomposition import decompose_steps
    from itda_core.model.loading import load_model

    run = find_run(options.run, options.runs)
    model = load_model(run.config.model, device=options.device, memory=options.memory)
    for step in decompose_steps(run.dictionary(), model, options.text, run.config):
        if step.value is None:
            status(f"Reading the model: {step.fraction:.0%}")
    if model.is_swept:
        end_status()
    result = step.value
    tokens = result.to_records()
    rows = [
        {
            "position": token["position"],
            "token": token["token"],
            "share_left": token["share_left"],
            "terms": "  ".join(
                f"{term['coefficient']:+.2f} {term['latent']} {term['source_token']!r}"
                for term in token["terms"][: options.terms]
            ),
        }
        for token in tokens
    ]
    cut = {"cut": True} if result.is_cut else {}
    content = {"run_id": run.run_id, "text": options.text, **cut, "tokens": tokens}
    show(options, content, rows)
    if cut:
        count = len(result.spans())
        print(
            f"The text is longer than the {count:,} tokens that are read: what comes after "
            f"{result.token_text(count - 1)!r} is left out. Decompose it in parts.",
            file=sys.stderr,
        )
    return 0


def similarity(options: argparse.Namespace) -> int:
    """The Jaccard matrix of the given runs, with what chance gives and 95 % intervals."""
    from itda_core.similarity.dictionaries import SourceSet, comparable, compare_all
    from itda_core.similarity.source_sets import doubt_of_words

    if len(options.run) < 2:
        raise InputError("Give at least two runs to compare.")
    runs = [find_run(name, options.runs) for name in options.run]
    if len({run.site for run in runs}) > 1:
        print(f"These are of several places in a block: {_with_sites(runs)}.", file=sys.stderr)
    sides = [{0: SourceSet.of(run.dictionary())} for run in runs]
    matrix = comparable(compare_all(sides, sides, options.key, options.with_seeds))
    doubt = doubt_of_words(sides) if options.key == "word" else ""
    if doubt:
        print(doubt, file=sys.stderr)
    names = [run.run_id for run in runs]
    columns = {
        "jaccard": _known(matrix.jaccard),
        "chance": _known(matrix.chance),
        "low": _known(matrix.low),
        "high": _known(matrix.high),
        "shared": matrix.shared.tolist(),
        "union": matrix.union.tolist(),
        "sizes": matrix.size_a.tolist(),
        "universe": matrix.pool_size.tolist(),
    }
    pairs = [
        {
            "a": names[row],
            "b": names[column],
            **{name: columns[name][row][column] for name in list(columns)[:6]},
        }
        for row, column in itertools.combinations(range(len(names)), 2)
    ]
    rows = [
        {"run_id": name, **dict(zip(names, values, strict=True))}
        for name, values in zip(names, columns["jaccard"], strict=True)
    ]
    about = {"key": options.key, "runs": names, "with_seeds": options.with_seeds}
    show(options, {**about, **columns}, rows)
    if not options.json:
        print()
        show(options, {}, pairs)
    return 0


def _with_sites(runs: Sequence[Run]) -> str:
    return ", ".join(f"{run.run_id} of {run.site}" for run in runs)


def measure(options: argparse.Namespace) -> int:
    """Measures of likeness between the layers of models; with --save they are kept."""
    from itda_core.runs.comparisons import comparisons_folder
    from itda_core.similarity.layers import compare_runs
    from itda_core.similarity.measures import MEASURES

    runs = [find_run(name, options.runs) for name in options.run]
    measures = options.measures or list(MEASURES)
    steps = compare_runs(runs, measures, options.max_tokens, options.device, options.memory)
    if options.save:
        steps = _saved(steps, comparisons_folder(options.runs))
    results = follow(steps, options).results
    columns = ("measure", "run_a", "run_b", "value", "tokens", "unit", "reason")
    pairs = [{name: pair[name] for name in columns} for pair in results]
    show(options, {"runs": [run.run_id for run in runs], "pairs": pairs}, "pairs")
    return 0


def _saved(steps: Iterator[Progress], folder: Path) -> Iterator[Progress]:
    """Keeps the results as soon as they are there: what kept a model out is raised after them."""
    from itda_core.runs.comparisons import save_comparisons

    for progress in steps:
        if progress.stage == "done" and progress.results:
            save_comparisons(folder, progress.results)
        yield progress


def _known(values: np.ndarray) -> list[list[float | None]]:
    """As lists, None where there is no value."""
    return [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
