"""Run directories: one finished dictionary each, written whole or not at all.

runs/<run_id>/           config.json  progress.jsonl  dictionary.safetensors  sources.parquet
                         codes.parquet  prompts.parquet  metrics.json  nearly.parquet
runs/.<training_id>/     a training under way: its lock, progress and newest checkpoint
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from itda_core.config import TrainConfig
from itda_core.dictionary import Dictionary, write_atomically
from itda_core.errors import InputError, ItdaError, RunError

RUN_FILES = (
    "config.json",
    "dictionary.safetensors",
    "sources.parquet",
    "codes.parquet",
    "prompts.parquet",
    "metrics.json",
)
NEARLY_FILE = "nearly.parquet"
ALL_FILES = (*RUN_FILES, NEARLY_FILE, "progress.jsonl")
"""With those that a run is whole without: what is copied where a run goes."""
_ARCHITECTURES = {"standard": "Standard", "topk": "TopK", "jumprelu": "JumpReLU"}
_ABOUT = {"run_id", "training_id", "layer", "created", "d_model", "n_layers", "dtype", "config"}
_METRICS = {"atoms", "tokens", "explored_tokens", "fvu", "explored_fvu", "seconds"}


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
        return TrainConfig.from_dict(self.about["config"]).with_dtype(self.about["dtype"])

    @property
    def layer(self) -> int:
        return self.about["layer"]

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
        """Names the activations that the run is of: model, layer, corpus and how it is read. Runs
        that differ in nothing but their dictionaries share it."""
        config = self.config
        corpus = self.about.get("corpus_digest") or config.corpus.name
        # A digest tells versions of one model apart; built-in ones share it.
        model = [*dataclasses.astuple(config.model), self.about.get("model_digest")]
        named = [*model, self.layer, corpus, config.context_length]
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=8).hexdigest()

    def dictionary(self) -> Dictionary:
        return Dictionary.load(self.directory)


def list_runs(folder: Path) -> list[Run]:
    """The finished runs in `folder`, oldest first; damaged ones are left out."""
    runs = []
    for path in sorted(folder.glob("*/config.json")):
        if path.parent.name.startswith("."):
            continue
        try:
            runs.append(read_run(path.parent))
        except RunError:
            continue
    return sorted(runs, key=lambda run: (run.about["created"], run.layer))


def read_run(directory: Path) -> Run:
    """Read one run directory. Raises RunError where something of it is missing or damaged."""
    missing = [name for name in RUN_FILES if not (directory / name).exists()]
    if missing:
        raise RunError(f"{directory} is not a whole run: it lacks {', '.join(missing)}.")
    try:
        about = json.loads((directory / "config.json").read_text())
        metrics = json.loads((directory / "metrics.json").read_text())
        lacking = (_ABOUT - set(about)) | (_METRICS - set(metrics))
        if lacking:
            raise ValueError(f"it does not say {', '.join(sorted(lacking))}")
        if about["run_id"] != directory.name:
            raise ValueError(f"it is the run {about['run_id']!r} under another name")
        run = Run(directory, about, metrics)
        _ = run.config  # raises what is wrong with it
        return run
    except (ValueError, TypeError) as error:  # not JSON, not text, or not what a run says
        raise RunError(f"{directory} is damaged ({error}). Delete it and train again.") from error
    except InputError as error:
        raise RunError(f"{directory} can't be used. {error}") from error


def find_run(name: str, folder: Path) -> Run:
    """A run by its id in `folder`, or by the path of its directory."""
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    candidates = [Path(os.path.expanduser(name))]  # noqa: PTH111
    if "/" not in name and "\\" not in name and not name.startswith("."):
        candidates.insert(0, folder / name)
    for directory in candidates:
        if os.path.isdir(directory):  # noqa: PTH112
            return read_run(directory)
    known = ", ".join(run.run_id for run in list_runs(folder)[:8]) or "none yet"
    raise InputError(f"There is no run {name!r} in {folder}. There are: {known}.")


def delete_run(directory: Path) -> None:
    """Remove a run for good; it is out of sight at once, even if clearing it is interrupted."""
    hidden = directory.with_name(f".deleted-{directory.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def new_run(folder: Path, run_id: str) -> Iterator[Path]:
    """A directory to write a run into; it gets its name when the block ends without an error."""
    temporary = folder / f".writing-{run_id}"
    shutil.rmtree(temporary, ignore_errors=True)
    with told_when_disk_is_full(folder):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(folder / run_id)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def told_when_disk_is_full(folder: Path) -> Iterator[None]:
    """Turns the operating system's errors about disk space and rights into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ItdaError(
                f"There is no space left on the disk of {folder}. What was stored before is "
                "unharmed. Free some space and resume."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ItdaError(
                f"{folder} can't be written to. Change its rights, or set ITDA_DATA to another "
                "folder."
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR) and not folder.is_dir():
            raise ItdaError(f"{folder} is not a folder. Choose another place.") from error
        raise


class Workspace:
    """What a training keeps on disk until it is finished."""

    def __init__(self, runs: Path, training_id: str):
        self.runs = runs
        self.training_id = training_id
        self.directory = runs / f".{training_id}"

    @contextmanager
    def locked(self, config: TrainConfig) -> Iterator[None]:
        """Make the directory and hold it for this process. Raises RunError where it is held."""
        with told_when_disk_is_full(self.runs):
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = self.directory / "lock"
            _take_lock(lock, self.training_id)
            try:
                write_json(self.directory / "config.json", config.to_dict())
                yield
            finally:
                lock.unlink(missing_ok=True)

    def save_checkpoint(self, number: int, dictionaries: dict[int, Dictionary], state: dict):
        """Keep the dictionaries and the state after window `number`, then drop older ones."""
        target = self.directory / f"checkpoint-{number:09d}"
        if target.exists():
            return
        temporary = self.directory / "checkpoint.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for layer, dictionary in dictionaries.items():
            dictionary.save(temporary / f"{layer}.safetensors")
        arrays = {path.name: path.stat().st_size for path in self.directory.glob("*.f32")}
        write_json(temporary / "state.json", {**state, "arrays": arrays})
        older = self._checkpoints()
        temporary.rename(target)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def load_checkpoint(self) -> tuple[dict[int, Dictionary], dict] | None:
        """The newest checkpoint's dictionaries by layer and its state, if there is one."""
        checkpoints = self._checkpoints()
        if not checkpoints:
            return None
        newest = checkpoints[-1]
        state = json.loads((newest / "state.json").read_text())
        sizes = {path.name: path.stat().st_size for path in self.directory.glob("*.f32")}
        if any(sizes.get(name, 0) < size for name, size in state["arrays"].items()):
            shutil.rmtree(newest)  # without the activations kept so far there is no going on
            return None
        dictionaries = {
            int(path.stem): Dictionary.load(path) for path in newest.glob("*.safetensors")
        }
        return dictionaries, state

    def rows(self, name: str, length: int, width: int) -> "RowFile":
        """Room for `length` rows in a file, found again after an interruption. Raises OSError
        where the disk has no space for them."""
        path = self.directory / f"{name}.f32"
        there = path.stat().st_size if path.exists() else 0
        if 4 * length * width - there > shutil.disk_usage(self.directory).free:
            raise OSError(errno.ENOSPC, "not enough space for the activations")
        return RowFile(path, length, width)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*"))


class RowFile:
    """Float32 rows in a file, written in order and read in blocks: memory holds one block.

    A memory map would do the same, but a disk that fills up under it ends the process.
    """

    def __init__(self, path: Path, length: int, width: int):
        self._length, self._width = length, width
        path.touch()
        self._file = path.open("r+b")

    def __len__(self) -> int:
        return self._length

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Put rows, [n, width] float32, at row `first` and after."""
        self._file.seek(4 * first * self._width)
        self._file.write(rows.contiguous().numpy())

    def read(self, first: int, count: int) -> torch.Tensor:
        """Up to `count` rows from row `first` on, [n, width] float32; zero where none was
        written."""
        rows = torch.zeros(max(0, min(count, self._length - first)), self._width)
        self._file.seek(4 * first * self._width)
        self._file.readinto(rows.numpy().reshape(-1).view(np.uint8))
        return rows

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def interrupted_trainings(runs: Path) -> dict[str, TrainConfig]:
    """Trainings that stopped before they were done, by training id; those can be resumed."""
    found = {}
    for path in sorted(runs.glob(".*/config.json")):
        if path.parent.name.startswith((".writing-", ".deleted-")):
            continue
        if _held_by(path.parent / "lock"):
            continue
        with contextlib.suppress(ValueError, InputError):  # damaged, or of another version
            found[path.parent.name[1:]] = TrainConfig.from_dict(json.loads(path.read_text()))
    return found


def delete_interrupted(runs: Path, training_id: str) -> None:
    """Give up an interrupted training; what it has on disk is removed."""
    if training_id in interrupted_trainings(runs):
        Workspace(runs, training_id).remove()


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, written atomically."""
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _take_lock(lock: Path, training_id: str) -> None:
    holder = _held_by(lock)
    if holder:
        raise RunError(
            f"The training {training_id} is already running (pid {holder}). Wait for it, or stop "
            "it first."
        )
    process = psutil.Process()
    lock.write_text(json.dumps({"pid": process.pid, "started": process.create_time()}))


def _held_by(lock: Path) -> int | None:
    """The id of the living process that holds a lock file, if any."""
    try:
        holder = json.loads(lock.read_text())
        process = psutil.Process(holder["pid"])
        # A number can be used again by another process after a restart; its start time can't.
        return process.pid if abs(process.create_time() - holder["started"]) < 2 else None
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
