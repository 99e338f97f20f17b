"""What the command line's commands do; see parser.py for their options."""

import argparse
import dataclasses
import json
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itda_core.cli.console import corpus_spec, follow, refuse, show, trained
from itda_core.cli.scoring import score_trained
from itda_core.config import ModelSpec, TrainConfig, data_directory
from itda_core.errors import InputError, first_line
from itda_core.files import read_foreign
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
    from itda_core.runs.workspace import interrupted_trainings
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
    from itda_core.store.store import rebuild as rebuilding

    path = data_directory() / FILE_NAME
    count = rebuilding(path, options.runs)
    show(options, {"database": str(path), "runs": count}, [{"database": path, "runs": count}])
    return 0


def models(options: argparse.Namespace) -> int:
    """Built-in models and those of the hub's cache on this machine; with --check what one of them
    does right, exit 1 where its activations can't be read."""
    from itda_core.model.loading import known_models, try_model

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


def doctor(options: argparse.Namespace) -> int:
    """Versions, device, disk and what is installed; exit 1 where something is missing."""
    from itda_core.model.built_in import BUILT_IN, how_to_install, is_installed

    names = ["torch", "transformers", "streamlit", "duckdb", "plotly", "pandas", "numba"]
    checks = [("Python", platform.python_version(), sys.version_info >= (3, 11))]
    for name in names:
        try:
            checks.append((name, metadata.version(name), True))
        except metadata.PackageNotFoundError:
            checks.append((name, f"not installed: pip install {name}", False))
    for name in BUILT_IN:
        there = is_installed(name)
        checks.append((f"model {name}", "installed" if there else how_to_install(name), there))
    data = data_directory()
    nearest = next(path for path in [data, *data.parents] if path.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    devices = _devices()
    checks += [*_device_checks(devices), _memory_check()]
    checks.append(("data folder", str(data), True))
    checks.append(("free disk", f"{free:.1f} GB", free > 2))
    rows = [{"check": name, "found": value, "ok": ok} for name, value, ok in checks]
    show(options, {"checks": rows, "devices": devices}, "checks")
    return 0 if all(ok for *_, ok in checks) else 1


def _devices() -> list[dict[str, Any]]:
    """Each device with its memory, the data type that is fastest there, and its fast pursuit."""
    from itda_core.devices import Device, devices
    from itda_core.model.loading import resolved_dtype

    def dtype(device: Device) -> str | None:
        chosen = None if device.trouble else resolved_dtype("auto", device.name)
        return chosen and str(chosen).removeprefix("torch.")

    return [
        {
            **dataclasses.asdict(device),
            "dtype": dtype(device),
            "kernels": _with_version("numba") if device.kind == "cpu" else None,
        }
        for device in devices()
    ]


def _with_version(package: str) -> str | None:
    """An installed package, such as "numba 0.61"; None where it is not."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return None


def _device_checks(devices: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """The device that computes where nothing is said, and a line on each."""
    from itda_core.devices import best_device

    try:
        checks = [("device", best_device(), True)]
    except InputError as error:  # ITDA_DEVICE names one that is not there
        checks = [("device", str(error), False)]
    for one in devices:
        if one["trouble"]:
            checks.append((f"device {one['name']}", f"can't be opened: {one['trouble']}", False))
            continue
        memory = f"{one['free'] / 1e9:.1f} of {one['total'] / 1e9:.1f} GB free"
        kernels = one["kernels"] or "no compiled kernels"
        about = ", ".join((one["title"], memory, one["dtype"], kernels))
        checks.append((f"device {one['name']}", about, True))
    return checks


def _memory_check() -> tuple[str, str, bool]:
    """How large a model is loaded as a whole."""
    import torch

    from itda_core.devices import best_device, numbered
    from itda_core.memory import memory_setting, usable_memory

    try:
        usable = usable_memory(torch.device(numbered(best_device())))
        whose = "what is free" if memory_setting() is None else "as ITDA_MEMORY says"
    except InputError as error:  # one of the two settings can't be followed
        return "memory", str(error), False
    except (RuntimeError, AssertionError) as error:  # the device can't be opened
        return "memory", f"not known: {first_line(error)}", False
    loaded = f"weights of up to {usable / 1e9:.1f} GB ({whose})"
    return "memory", f"{loaded}; larger models are read block by block", True


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
        fields = json.loads(read_foreign(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} can't be read: {error}.") from error
    try:
        return TrainConfig.from_dict(fields)
    except InputError as error:
        raise InputError(f"{file} can't be used. {error}") from error
