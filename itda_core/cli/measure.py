"""The commands that measure, decompose and compare; see __main__ for their options."""

import argparse
import itertools

import numpy as np

from itda_core.cli.console import (
    keep_progress,
    numbers,
    require_positive,
    show,
    status,
    status_done,
)
from itda_core.config import CorpusSpec
from itda_core.errors import InputError
from itda_core.runs.run import find_run


def evaluate(options: argparse.Namespace) -> int:
    """Every measure by L0; with --save it is kept with the run."""
    from itda_core.evaluation.batch import EvaluationTask, evaluate_runs

    require_positive("max-tokens", options.max_tokens)
    task = EvaluationTask(
        runs=tuple(find_run(name, options.runs) for name in options.run),
        corpus=CorpusSpec(options.corpus, options.column) if options.corpus else None,
        max_tokens=options.max_tokens,
        l0s=numbers("--l0s", options.l0s) if options.l0s else None,
        save=options.save,
    )
    progress = None
    for progress in evaluate_runs(task):
        keep_progress(options.progress, progress.to_dict())
        of_tokens = f"{progress.tokens:,} of {progress.total_tokens:,} tokens"
        status(f"{progress.run_id}: {progress.stage}, {progress.fraction:.0%}, {of_tokens}")
    status_done()
    results = progress.results
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["by_l0"]]
    show(options, {"runs": results}, rows)
    return 0


def probe(options: argparse.Namespace) -> int:
    """How well k latents, and k dimensions of the activations, tell a prompt's labels; with --save
    it is kept with the run."""
    from itda_core.evaluation.probing_batch import ProbingTask, probe_runs

    require_positive("max-tokens", options.max_tokens)
    task = ProbingTask(
        runs=tuple(find_run(name, options.runs) for name in options.run),
        corpus=CorpusSpec(options.corpus, options.column) if options.corpus else None,
        max_tokens=options.max_tokens,
        save=options.save,
    )
    progress = None
    for progress in probe_runs(task):
        keep_progress(options.progress, progress.to_dict())
        of_tokens = f"{progress.tokens:,} of {progress.total_tokens:,} tokens"
        status(f"{progress.run_id}: {progress.stage}, {progress.fraction:.0%}, {of_tokens}")
    status_done()
    results = progress.results
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["results"]]
    for row in rows:
        row["chosen"] = "  ".join(
            str(one["feature"]) if one["token"] is None else f"{one['feature']} {one['token']!r}"
            for one in row["chosen"]
        )
    show(options, {"runs": results}, rows)
    return 0


def detect(options: argparse.Namespace) -> int:
    """How well the titles of latents tell the tokens that use them."""
    from itda_core.evaluation.detection import EMBEDDER
    from itda_core.evaluation.detection import detect as detecting
    from itda_core.model.loading import load_model

    require_positive("latents", options.latents)
    embedder = load_model(EMBEDDER)
    results = []
    for run in [find_run(name, options.runs) for name in options.run]:
        result = None
        for result in detecting(run, embedder, options.latents, options.seed):
            status(f"{run.run_id}: {result.prompts:,} of {result.total_prompts:,} prompts")
        found = {"scores": result.scores, "latents": result.latents}
        results.append({"run_id": run.run_id, "embedder": EMBEDDER, **found})
    status_done()
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["scores"]]
    show(options, {"runs": results}, rows)
    return 0


def map_atoms(options: argparse.Namespace) -> int:
    """A map of each dictionary, kept with its run."""
    from itda_core.analysis.latent_map import map_runs

    runs = [find_run(name, options.runs) for name in options.run]
    for progress in map_runs(runs, options.method):
        keep_progress(options.progress, progress.to_dict())
        status(f"{progress.run_id or 'Done'}: {progress.fraction:.0%}")
    status_done()
    rows = [
        {"run_id": run.run_id, "method": progress.method, "atoms": run.metrics["atoms"]}
        for run in runs
    ]
    show(options, {"runs": rows}, "runs")
    return 0


def decompose(options: argparse.Namespace) -> int:
    """Each token's terms in the order of pursuit."""
    from itda_core.analysis.decomposition import decompose as decomposing
    from itda_core.model.loading import load_model

    run = find_run(options.run, options.runs)
    result = decomposing(run.dictionary(), load_model(run.config.model), options.text, run.config)
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
    show(options, {"run_id": run.run_id, "text": options.text, "tokens": tokens}, rows)
    return 0


def similarity(options: argparse.Namespace) -> int:
    """The Jaccard matrix of the given runs, with what chance gives and 95 % intervals."""
    from itda_core.similarity.dictionaries import SourceSet, comparable, compare_all

    if len(options.run) < 2:
        raise InputError("Give at least two runs to compare.")
    runs = [find_run(name, options.runs) for name in options.run]
    sides = [{0: SourceSet.of(run.dictionary())} for run in runs]
    matrix = comparable(compare_all(sides, sides, options.key, options.with_seeds))
    names = [run.run_id for run in runs]
    told = {
        "jaccard": _known(matrix.jaccard),
        "chance": _known(matrix.chance),
        "low": _known(matrix.low),
        "high": _known(matrix.high),
        "shared": matrix.shared.tolist(),
        "union": matrix.union.tolist(),
        "sizes": matrix.size_a.tolist(),
        "universe": matrix.universe.tolist(),
    }
    pairs = [
        {
            "a": names[row],
            "b": names[column],
            **{name: told[name][row][column] for name in list(told)[:6]},
        }
        for row, column in itertools.combinations(range(len(names)), 2)
    ]
    rows = [
        {"run_id": name, **dict(zip(names, values, strict=True))}
        for name, values in zip(names, told["jaccard"], strict=True)
    ]
    about = {"key": options.key, "runs": names, "with_seeds": options.with_seeds}
    show(options, {**about, **told}, rows)
    if not options.json:
        print()
        show(options, {}, pairs)
    return 0


def measure(options: argparse.Namespace) -> int:
    """Measures of likeness between the layers of models; with --save they are kept."""
    from itda_core.runs.comparisons import comparisons_folder, save_comparisons
    from itda_core.similarity.layers import compare_runs
    from itda_core.similarity.measures import MEASURES

    require_positive("max-tokens", options.max_tokens)
    runs = [find_run(name, options.runs) for name in options.run]
    measures = options.measures.split(",") if options.measures else list(MEASURES)
    for progress in compare_runs(runs, measures, options.max_tokens):
        keep_progress(options.progress, progress.to_dict())
        what = " ".join(filter(None, (progress.stage.capitalize(), progress.run_id)))
        status(f"{what}: {progress.fraction:.0%}")
        if progress.stage == "done" and options.save:
            save_comparisons(comparisons_folder(options.runs), progress.results)
    status_done()
    told = ("measure", "run_a", "run_b", "value", "tokens", "unit", "reason")
    pairs = [{name: one[name] for name in told} for one in progress.results]
    show(options, {"runs": [run.run_id for run in runs], "pairs": pairs}, "pairs")
    return 0


def _known(values: np.ndarray) -> list[list[float | None]]:
    """As lists, None where there is no value."""
    return [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
