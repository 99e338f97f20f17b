"""Run directories: one finished dictionary each, written whole or not at all.

runs/<run_id>/           config.json  progress.jsonl  dictionary.safetensors  sources.parquet
                         codes.parquet  prompts.parquet  metrics.json  nearly.parquet
                         digests.json, of all of them
runs/.<training_id>/     a training under way: its lock, progress and newest checkpoint
"""

import contextlib
import dataclasses
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itda_core.config import TrainConfig
from itda_core.digests import digest
from itda_core.errors import InputError, ItdaError, RunError, first_line
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import check_foreign, check_within
from itda_core.files.json_files import read_json
from itda_core.files.writing import rename_whole
from itda_core.leftovers import temporary_name
from itda_core.sealed import DIGESTS_FILE, faults, seal
from itda_core.settings import RESID_POST

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary

RUN_COLUMNS = {
    "sources.parquet": ["latent", "prompt_id", "position", "start", "end", "token"],
    "codes.parquet": ["prompt_id", "position", "step", "latent", "coefficient"],
    "prompts.parquet": ["prompt_id", "text", "title", "explored", "starts", "ends"],
}
"""The tables of a run, and the columns that are read of each"""
RUN_FILES = ("config.json", "dictionary.safetensors", *RUN_COLUMNS, "metrics.json")
NEAR_MISS_FILE = "nearly.parquet"
ALL_FILES = (*RUN_FILES, NEAR_MISS_FILE, "progress.jsonl", DIGESTS_FILE)
"""With those that a run is whole without: what is copied where a run goes."""
_ARCHITECTURES = {"standard": "Standard", "topk": "TopK", "jumprelu": "JumpReLU"}
_ABOUT = {"run_id", "training_id", "layer", "created", "d_model", "n_layers", "dtype", "config"}
_METRICS = {"atoms", "tokens", "explored_tokens", "fvu", "explored_fvu", "seconds"}
_HELD_OUT_COUNTS = ("held_out_tokens", "massive_held_out_tokens")
"""What metrics.json may say besides, as it may `fvu_without_massive`"""
DAMAGED = "Bring back a copy of it, or delete it and train again."
_NAMED_RUNS = 8
"""Runs that a sentence names"""


class RenamedRun(RunError):
    """A run's directory has another name than the run."""

    def __init__(self, directory: Path, run_id: str):
        super().__init__(
            f"{directory} is the run {run_id!r:.200} under another name. Call it that again."
        )


@dataclass(frozen=True)
class Run:
    """A finished run as its directory describes it."""

    directory: Path
    about: dict[str, Any]
    """config.json: run_id, training_id, layer, created, config, and what the model is"""
    metrics: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.about["run_id"]

    @property
    def config(self) -> TrainConfig:
        """What the run was trained with, its data type as it came to."""
        return TrainConfig.of_finished(self.about["config"]).with_dtype(self.about["dtype"])

    @property
    def layer(self) -> int:
        return self.about["layer"]

    @property
    def site(self) -> str:
        """The place in the block that its activations are from."""
        return self.config.site

    @property
    def root(self) -> str:
        """The id of the run that was trained, whose latents it has: its own unless it was moved.
        Latents of two runs with one root and one number there are the same tokens."""
        origin = self.config.moved_from
        return self.run_id if origin is None else origin.first.run_id

    @property
    def kind(self) -> str:
        """ "itda", or "sae" for an imported autoencoder."""
        return self.about.get("kind", "itda")

    @property
    def method(self) -> str:
        """How the dictionary was made, in a few words: "coverage", or "TopK SAE"."""
        if self.kind == "sae":
            name = self.about.get("architecture", "")
            return f"{_ARCHITECTURES.get(name, name)} SAE".strip()
        return self.config.method

    @property
    def activations_id(self) -> str:
        """Names the activations that the run is of: model, layer, site, corpus and how it is read.
        Runs that differ in nothing but their dictionaries share it."""
        config = self.config
        corpus = self.about.get("corpus_digest") or config.corpus.name
        # A digest tells versions of one model apart; built-in ones share it.
        model = [*dataclasses.astuple(config.model), self.about.get("model_digest")]
        named = [*model, self.layer, corpus, config.context_length]
        if config.site != RESID_POST:
            named.append(config.site)
        return digest(json.dumps(named))

    @property
    def why_no_held_out(self) -> str:
        """A sentence on why the prompts that were held out of its training can't be read again;
        empty where they can."""
        if self.about.get("origin") == "published":
            return f"{self.run_id} was made elsewhere, of texts that would be held out here."
        if str(self.about.get("corpus_digest")).startswith("folder-"):
            return (
                f"{self.run_id} was made elsewhere: the folder of activations that it was trained "
                "from names no corpus, so what was held out can't be read again here."
            )
        return ""

    def dictionary(self) -> "Dictionary":
        # Here, since it brings torch in: runs are listed before anybody needs that.
        from itda_core.dictionary.dictionary import Dictionary

        return Dictionary.load(self.directory)


def list_runs(folder: Path) -> list[Run]:
    """The finished runs in `folder`, oldest first; `survey` says which are left out, and why."""
    return survey(folder)[0]


def survey(folder: Path) -> tuple[list[Run], list[RunError]]:
    """The finished runs in `folder`, oldest first, and why each of the others that is there can't
    be used."""
    runs, errors = [], []
    try:
        with os.scandir(folder) as entries:
            names = sorted(one.name for one in entries if not one.name.startswith("."))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [_why_not_read(folder, error)]
    for name in names:
        try:
            if _may_be_run(folder / name):
                runs.append(read_run(folder / name))
        except RunError as error:
            errors.append(error)
    return sorted(runs, key=lambda run: (run.about["created"], run.layer)), errors


def _may_be_run(directory: Path) -> bool:
    """Whether it holds a file of a run. Raises RunError where it can't be looked into."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.name in RUN_FILES for entry in entries)
    except (NotADirectoryError, FileNotFoundError):
        return False
    except OSError as error:
        raise _why_not_read(directory, error) from error


def read_run(directory: Path) -> Run:
    """Read one run directory. Raises RunError where something of it is missing or damaged."""
    try:
        missing = [name for name in RUN_FILES if not (directory / name).exists()]
    except OSError as error:
        raise _why_not_read(directory, error) from error
    if missing:
        raise RunError(f"{directory} is not a whole run: it lacks {', '.join(missing)}.")
    try:
        for name in RUN_FILES:
            check_within(directory / name, directory)
            check_foreign(directory / name)
        about = read_json(directory / "config.json")
        metrics = read_json(directory / "metrics.json")
        _check(about, metrics)
        run = Run(directory, about, metrics)
        _ = run.config  # raises what is wrong with it
        for name, error in faults(directory, ("config.json", "metrics.json")).items():
            raise why_unreadable(directory / name, error, DAMAGED)
        if about["run_id"] != directory.name:
            raise RenamedRun(directory, about["run_id"])
        return run
    except RunError:
        raise
    except ItdaError as error:
        raise RunError(f"{directory} can't be used. {error}") from error
    except OSError as error:
        raise _why_not_read(directory, error) from error
    except Exception as error:  # not JSON, not text, or not what a run says, in whatever way
        raise RunError(f"{directory} is damaged ({first_line(error)}). {DAMAGED}") from error


def is_run(directory: Path) -> bool:
    """Whether a run is there. Raises RunError where what is there is none that can be used, since
    one that is written under its name would be lost."""
    if not os.path.lexists(directory):
        return False
    try:
        read_run(directory)
    except RunError as error:
        raise RunError(
            f"{error} No run can be written under its name until that is mended or moved away."
        ) from error
    return True


def _why_not_read(directory: Path, error: OSError) -> RunError:
    return RunError(
        f"{directory} can't be read ({error.strerror or error}). What is in it is left as it is: "
        "make it readable."
    )


def _check(about: Any, metrics: Any) -> None:
    """Raises ValueError where a run does not say what is asked of every run."""
    if not (isinstance(about, dict) and isinstance(metrics, dict)):
        raise ValueError("config.json and metrics.json must be objects")
    lacking = (_ABOUT - set(about)) | (_METRICS - set(metrics))
    if lacking:
        raise ValueError(f"it does not say {', '.join(sorted(lacking))}")
    if not isinstance(about["created"], str):
        raise ValueError("created is no date")
    counted = {"layer": about["layer"], "d_model": about["d_model"], "n_layers": about["n_layers"]}
    counted |= {name: metrics[name] for name in ("atoms", "tokens", "explored_tokens")}
    for name, value in counted.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is no whole number from 0 on")
    for name in _HELD_OUT_COUNTS:
        value = metrics.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | None) or (value or 0) < 0:
            raise ValueError(f"{name} is no whole number from 0 on")
    for name in ("fvu", "explored_fvu", "seconds", "fvu_without_massive"):
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{name} is no number")
        if value is not None and value < 0:
            raise ValueError(f"{name} is below 0")
    tokens, massive = (metrics.get(name) for name in _HELD_OUT_COUNTS)
    if tokens is not None and massive is not None and massive > tokens:
        raise ValueError("of its held-out tokens more are massive activations than there are")


def check_same(run: Run) -> None:
    """Raises RunError where another run has its place by now, trained anew or copied under its id:
    what was measured meanwhile is not of that one. What is gone or can't be read is told by who
    writes there."""
    with contextlib.suppress(OSError, ValueError):
        if read_json(run.directory / "config.json") != run.about:
            raise RunError(
                f"{run.directory} is another run by now than the one that was measured, so nothing "
                "is kept. Measure it again."
            )


def find_run(name: str, folder: Path) -> Run:
    """A run by its id in `folder`, or by the path of its directory. Raises RunError where it can't
    be used, InputError where there is none."""
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    candidates = [Path(os.path.expanduser(name))]  # noqa: PTH111
    if "/" not in name and "\\" not in name and not name.startswith("."):
        candidates.insert(0, folder / name)
    for directory in candidates:
        if os.path.isdir(directory):  # noqa: PTH112
            return _read_at(directory)
    _may_be_run(folder)  # one that can't be looked into may well have it
    names = [run.run_id for run in list_runs(folder)]
    more = f" and {len(names) - _NAMED_RUNS:,} more" if len(names) > _NAMED_RUNS else ""
    listed = (", ".join(names[:_NAMED_RUNS]) or "none yet") + more
    raise InputError(f"There is no run {name!r} in {folder}. There are: {listed}.")


def _read_at(directory: Path) -> Run:
    """A run by the path of its directory, which may be "." or a link of another name."""
    try:
        return read_run(directory)
    except RenamedRun:
        if (place := directory.resolve()).name == directory.name:
            raise
        return read_run(place)


def delete_run(directory: Path) -> None:
    """Remove a run for good; it is out of sight at once, even if clearing it is interrupted."""
    hidden = directory.with_name(temporary_name(f"deleted-{directory.name}"))
    with disk_errors_as_sentences(directory.parent), contextlib.suppress(FileNotFoundError):
        directory.rename(hidden)
    # What an earlier attempt left goes too, whoever made it: nobody writes there.
    for left in directory.parent.glob(f".deleted-{glob.escape(directory.name)}.*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def new_run(folder: Path, run_id: str) -> Iterator[Path]:
    """A directory to write a run into; it gets digests and its name when the block ends without an
    error."""
    temporary = folder / temporary_name(f"writing-{run_id}")
    with disk_errors_as_sentences(folder):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            seal(temporary)
            rename_whole(temporary, folder / run_id)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
