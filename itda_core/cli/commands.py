"""What the command line's commands do; see parser.py for their options."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from itda_core.cli.console import corpus_spec, follow, refuse, show, trained
from itda_core.cli.scoring import score_trained
from itda_core.config import ModelSpec, TrainConfig
from itda_core.data_folder import data_directory
from itda_core.errors import InputError
from itda_core.files.json_files import read_json
from itda_core.progress import Progress
from itda_core.runs.run import find_run, read_run
from itda_core.training.as_said import SAID_BY_FOLDER, TRAIN_OPTIONS, config_as_said

if TYPE_CHECKING:
    from itda_core.model.model import Model

_OF_ANY_TRAINING = (
    "command", "runs", "json", "progress", "device", "memory", "ray", "workers", "no_scores",
)  # fmt: skip
"""Options of `train` that say nothing of what is trained"""


def train(options: argparse.Namespace) -> int:
    """Train, showing progress; an interrupt keeps a checkpoint."""
    if options.ray is None:
        refuse(options, ("workers",), "Without --ray this machine trains alone: leave out")
    else:
        refuse(options, ("device",), "With --ray each machine takes its own device: leave out")
    if options.list and not (options.config or options.resume):
        from itda_core.cli.train_list import train_list

        others = [name for name in options.given if name not in (*_OF_ANY_TRAINING, "list")]
        refuse(options, others, f"{options.list} says what is trained: leave out")
        return train_list(options)
    last = follow(_training_steps(options), options, can_resume=True, remedy=_go_on(options))
    runs = [read_run(options.runs / name) for name in last.finished]
    score_trained(runs, options)
    show(options, {"runs": [trained(run) for run in runs]}, "runs")
    return 0


def _go_on(options: argparse.Namespace) -> str:
    """What goes on with a training, where it left off: on the cluster, and in the folder."""
    where = [f"--runs {shlex.quote(str(options.runs))}"] if "runs" in options.given else []
    where += [f"--ray {options.ray}"] if options.ray else []
    return " ".join(["train --resume {training_id}", *where])


def _training_steps(options: argparse.Namespace) -> Iterator[Progress]:
    """One training, from its beginning or its checkpoint, here or on a cluster."""
    from itda_core.runs.interrupted import interrupted_trainings
    from itda_core.training import trainer as training

    runs = options.runs
    if options.resume:
        name = training.find_interrupted(options.resume, runs)
        others = [name for name in options.given if name not in (*_OF_ANY_TRAINING, "resume")]
        why = "--resume goes on with the settings that the training began with"
        refuse(options, others, f"{why}: leave out")
        if options.ray is None:
            return training.resume(options.resume, runs, options.device, options.memory)
        config = interrupted_trainings(runs)[name]
    else:
        config = _train_config(options)
    if options.ray is None:
        return training.train(config, runs, options.device, options.memory)
    return _on_cluster(config, options)


def _on_cluster(config: TrainConfig, options: argparse.Namespace) -> Iterator[Progress]:
    from itda_core.cluster.training import train_on_cluster

    if config.activations:
        raise InputError(
            "A folder of activations is read by one machine: leave out --ray, or put the training "
            "into a list (--list FILE), which --ray spreads over the machines."
        )
    return train_on_cluster(config, options.runs, options.ray, options.memory, options.workers)


def move(options: argparse.Namespace) -> int:
    """Move a dictionary, showing progress; an interrupt keeps a checkpoint."""
    from itda_core.training.moving import check_elsewhere, move, moved_model

    run = find_run(options.run, options.runs)
    if not {"model", "revision", "layer", "site"} & {*options.given}:
        raise InputError("Say where to: give --model, --revision, --layer or --site.")
    model = moved_model(run, options.model, options.revision, options.dtype)
    layers, site = options.layer or [run.layer], options.site or run.site
    check_elsewhere(run, model, layers, site)
    steps = move(run, model, layers, options.runs, site, options.device, options.memory)
    last = follow(steps, options, can_resume=True, remedy="the same command.")
    runs = [read_run(options.runs / name) for name in last.finished]
    score_trained(runs, options)
    rows = [
        {**trained(one), "moved_from": run.run_id, "left_out": len(one.about["moved"]["left_out"])}
        for one in runs
    ]
    show(options, {"runs": rows}, "runs")
    return 0


def capture(options: argparse.Namespace) -> int:
    """Write a folder of activations; what is written of it stays when it is interrupted."""
    from itda_core.activations.folder import ActivationFolder
    from itda_core.training.folder_capture import capture_config, capture_folder

    if not options.layers:
        raise InputError("Give the layers to capture, such as --layers 7,15,22.")
    names = ("max_tokens", "context_length", "seed", "site")
    settings = {name: getattr(options, name) for name in names}
    model = ModelSpec(options.model, options.revision, options.dtype)
    config = capture_config(
        model, corpus_spec(options), options.layers, skip_first=not options.keep_first, **settings
    )
    how = {"stored": options.keep_as, "memory": options.memory}
    steps = capture_folder(config, options.out, options.device, **how)
    follow(steps, options, can_resume=True, remedy="the same command.")
    folder = ActivationFolder(options.out)
    summary = {
        "folder": str(options.out),
        "model": folder.index.model.name,
        "layers": list(folder.index.layers),
        "tokens": folder.n_rows(held_out=False),
        "held_out_tokens": folder.n_rows(held_out=True),
        "bytes": folder.bytes,
    }
    show(options, summary, [summary])
    return 0


def import_runs(options: argparse.Namespace) -> int:
    """Take runs into the database, each in one transaction."""
    from itda_core.store.store import FILE_NAME, Store

    runs = [find_run(name, options.runs) for name in options.run]
    store = Store(data_directory() / FILE_NAME)
    try:
        rows = [{"run_id": run.run_id, "imported": store.import_run(run)} for run in runs]
    finally:
        store.close()
    show(options, {"runs": rows}, "runs")
    return 0


def rebuild(options: argparse.Namespace) -> int:
    """Make the database anew."""
    from itda_core.store.store import FILE_NAME
    from itda_core.store.store import rebuild_all as rebuilding

    path = data_directory() / FILE_NAME
    done = rebuilding(path, options.runs)
    left_out = str(done.left_out).splitlines() if done.left_out else []
    summary = {"database": str(path), "runs": done.runs, "kept_aside": done.kept_aside}
    show(options, {**summary, "left_out": left_out, "notes": done.notes}, [summary])
    for line in [*done.notes, *left_out]:
        print(line, file=sys.stderr)
    return 1 if left_out else 0


def models(options: argparse.Namespace) -> int:
    """Built-in models and those of the hub's cache on this machine; with --check what one of them
    does right, exit 1 where its activations can't be read."""
    from itda_core.model.loading import try_model
    from itda_core.model.model_info import known_models

    if options.check:
        spec = ModelSpec(options.check, options.revision, options.dtype)
        model = try_model(spec, options.device)
        about = {"model": options.check, "dtype": model.dtype, "device": str(model.device)}
        abilities = model.abilities
        print("{model}, {dtype} on {device}".format(**about), file=sys.stderr)
        tables = {"abilities": abilities.table(), "sites": _sites(model)}
        show(options, about | tables, [*tables["abilities"], *tables["sites"]])
        return 1 if abilities.capture else 0
    without = "Without --check no model is loaded: name one, or leave out"
    refuse(options, ("revision", "dtype", "device"), without)
    show(options, {"models": known_models()}, "models")
    return 0


def _sites(model: "Model") -> list[dict[str, str]]:
    """The places in a block, a row each; none of a model that can't be read at all."""
    return [] if model.abilities.capture else model.sites.table()


def _train_config(options: argparse.Namespace) -> TrainConfig:
    if options.config:
        config = _read_config(options.config)
        others = [name for name in options.given if name not in (*_OF_ANY_TRAINING, "config")]
        refuse(options, others, f"{options.config} says all settings: leave out")
        return config
    said = {name: getattr(options, name) for name in options.given if name in TRAIN_OPTIONS}
    if options.activations:
        refuse(options, SAID_BY_FOLDER, f"{options.activations} says whose activations: leave out")
    elif not options.layers:
        raise InputError("Give the layers to train, such as --layers 7,15,22.")
    return config_as_said({name: value for name, value in said.items() if value != ()})


def _read_config(file: Path) -> TrainConfig:
    """The training that a file describes; a message names its fields as they stand there."""
    try:
        fields = read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error}.") from error
    try:
        return TrainConfig.from_dict(fields)
    except InputError as error:
        raise InputError(f"{file} can't be used. {error}") from error
