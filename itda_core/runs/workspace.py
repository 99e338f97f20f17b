"""What a training keeps on disk until it is finished: its lock, its rows, its newest checkpoint.

runs/.<training_id>/     a training under way
"""

import errno
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from itda_core.config import TrainConfig
from itda_core.errors import RunError, TrainingHeld, first_line
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.json_files import read_json, write_json
from itda_core.files.writing import rename_whole
from itda_core.leftovers import remove_leftovers
from itda_core.progress import Progress
from itda_core.runs.rows import Checksum, RowFile, checksum_of
from itda_core.runs.training_lock import (
    elsewhere,
    holder_of,
    if_gone,
    lock_of,
    remove_if_free,
    this_process,
)
from itda_core.sealed import faults, seal

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary

    Checkpoint = tuple[dict[int, Dictionary], dict]


class Workspace:
    """What a training keeps on disk until it is finished."""

    def __init__(self, runs: Path, training_id: str, can_resume: bool = True):
        """can_resume: what can't be goes under a name that nobody looks for."""
        self.runs = runs
        self.training_id = training_id
        self.directory = runs / (f".{training_id}" if can_resume else f".writing-{training_id}")
        self.notes: list[str] = []
        """What a person has to know of checkpoints that could not be used, a sentence each"""
        self._lock = lock_of(self.directory)
        self._is_mine = False
        self._rows: dict[str, RowFile] = {}
        """Files of rows that are open, by name"""

    @property
    def log(self) -> Path:
        """Its progress, a line a window; it goes into each run."""
        return self.directory / "progress.jsonl"

    def add_to_log(self, line: str) -> None:
        """Raises TrainingHeld as `check_mine` does."""
        self.check_mine()
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    @contextmanager
    def locked(self, config: TrainConfig) -> Iterator[None]:
        """Make the directory and hold it for this process. Raises TrainingHeld where another one
        does."""
        with disk_errors_as_sentences(self.runs):
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._held():
                remove_leftovers(self.runs, depth=2)
                write_json(self.directory / "config.json", config.to_dict())
                yield

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The operating system frees the lock when the process ends, however it ends."""
        holder = self.directory / "holder"  # not every system lets a locked file be read
        try:
            self._lock.acquire()
        except Timeout as error:
            pid, _, host = holder_of(self.directory).partition(" on ")
            raise TrainingHeld(
                f"The training {self.training_id} is already running "
                f"(pid {pid or 'unknown'}{elsewhere(host)}). Wait for it, or stop it first."
                f"{if_gone(host, self.directory)}",
                self.directory,
            ) from error
        try:
            holder.write_text(this_process(), "utf-8")
            self._is_mine = True
            yield
        finally:
            self._is_mine = False
            self._lock.release()

    def check_mine(self) -> None:
        """Raises TrainingHeld where this process held the training and another one has taken it
        since, as from a machine that was given up and lives on: it must write nothing more."""
        holder = holder_of(self.directory)
        if self._is_mine and holder != this_process():
            raise TrainingHeld(
                f"The training {self.training_id} was taken over by another process "
                f"({holder or 'which has finished it'}), since this one was thought to be gone.",
                self.directory,
            )

    def save_checkpoint(self, number: int, dictionaries: dict[int, "Dictionary"], state: dict):
        """Keep the dictionaries and the state after window `number`, with digests; then drop all
        older ones but the one before, for when this one is damaged. Raises TrainingHeld as
        `check_mine` does."""
        self.check_mine()
        target = self.directory / f"checkpoint-{number:09d}"
        if target.exists():
            return
        temporary = self.directory / "checkpoint.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for layer, dictionary in dictionaries.items():
            dictionary.save(temporary / f"{layer}.safetensors")
        files = self.directory.glob("*.f32")
        arrays = {path.name: self._checksum_of(path).to_dict() for path in files}
        write_json(temporary / "state.json", {**state, "arrays": arrays})
        seal(temporary)
        older = self._checkpoints()
        rename_whole(temporary, target)
        for path in older[:-1]:
            shutil.rmtree(path, ignore_errors=True)

    def loading_checkpoint(self) -> Generator[Progress, None, "Checkpoint | None"]:
        """The dictionaries by layer and the state of the newest checkpoint that is whole, if there
        is one; a progress after each file of rows, which may take seconds to read. Those that are
        not whole are dropped, and `notes` says so; rows that came after it are cut off. Raises
        RunError where one can't be read now, for want of rights, memory or a disk that answers: it
        stays, with all rows."""
        reasons = []
        for checkpoint in reversed(self._checkpoints()):
            try:
                found = yield from self._read_checkpoint(checkpoint)
            except Exception as error:  # whatever is wrong with it, the training must go on
                if _may_be_whole(error):
                    raise RunError(
                        f"{checkpoint} can't be read now ({first_line(error)}). It is left as it "
                        "is: mend that and resume, or delete it to go on without."
                    ) from error
                reasons.append(f"{checkpoint.name}: {first_line(error)}")
                shutil.rmtree(checkpoint, ignore_errors=True)
                continue
            self._say_dropped(reasons, "It goes on from the one before.")
            self._cut_rows(found[1]["arrays"])
            return found
        self._say_dropped(reasons, "It starts anew.")
        self._cut_rows({})
        return None

    def _read_checkpoint(self, checkpoint: Path) -> Generator[Progress, None, "Checkpoint"]:
        """Raises what is wrong with it; a progress after each file of rows."""
        # Here, since it brings torch in: trainings are listed before anybody needs that.
        from itda_core.dictionary.dictionary import Dictionary

        for name, error in faults(checkpoint).items():
            raise why_unreadable(checkpoint / name, error, "") from error
        state = read_json(checkpoint / "state.json")
        _check_state(state)
        for name, written in state["arrays"].items():  # without them there is no going on
            _check_rows(self.directory / name, written)
            yield Progress("checking", self.training_id)
        files = checkpoint.glob("*.safetensors")
        return {int(path.stem): Dictionary.load(path) for path in files}, state

    def _cut_rows(self, arrays: dict[str, dict[str, int] | int]) -> None:
        """Cut off what no checkpoint counts: it is made again, and a checksum must not cover rows
        that are yet to be written over. arrays: of the state that counts."""
        for path in self.directory.glob("*.f32"):
            n_bytes = _size_of(arrays.get(path.name, 0))
            if path.stat().st_size > n_bytes:
                os.truncate(path, n_bytes)

    def _say_dropped(self, reasons: list[str], how_on: str) -> None:
        if reasons:
            what = "A checkpoint" if len(reasons) == 1 else f"{len(reasons)} checkpoints"
            self.notes.append(
                f"{what} of this training could not be used ({'; '.join(reasons)}). {how_on}"
            )

    def rows(self, name: str, length: int, width: int) -> RowFile:
        """Room for `length` rows in a file, found again after an interruption. Raises OSError
        where the disk has no space for them."""
        path = self.directory / f"{name}.f32"
        n_bytes = path.stat().st_size if path.exists() else 0
        if 4 * length * width - n_bytes > shutil.disk_usage(self.directory).free:
            raise OSError(errno.ENOSPC, "not enough space for the activations")
        self._rows[path.name] = RowFile(path, length, width)
        return self._rows[path.name]

    def _checksum_of(self, path: Path) -> Checksum:
        """Of a file of rows as it is now."""
        rows = self._rows.get(path.name)
        if rows is None or rows.is_closed:
            return checksum_of(path, path.stat().st_size)
        return rows.checksum()

    def remove(self) -> None:
        """Remove the directory, unless another process has taken it up meanwhile."""
        remove_if_free(self.directory, self._lock)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*"))


def _check_state(state: Any) -> None:
    """Raises ValueError, KeyError or TypeError where it is none: a checkpoint of an earlier version
    has no digests."""
    by_layer = ["bad_rows", *(["windows", "rows"] if "windows" in state else [])]
    counts = [state["parts"]] if "windows" in state else [state["window"], state["row"]]
    for name in by_layer:
        counts += [int(layer) for layer in state[name]] + list(state[name].values())
    for written in state["arrays"].values():
        counts += [written["bytes"], written["crc32"]] if isinstance(written, dict) else [written]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count is none")
    if type(state["seconds"]) not in (int, float):
        raise ValueError("its seconds are no number")


def _check_rows(path: Path, written: dict[str, int] | int) -> None:
    """Raises ValueError where activations are not those that a checkpoint was made with. written:
    checksum of the file as it was then, which may have grown; of an earlier version its size."""
    size = _size_of(written)
    if not path.exists() or path.stat().st_size < size:
        raise ValueError(f"activations that it needs are gone from {path.name}")
    if isinstance(written, dict) and checksum_of(path, size).to_dict() != written:
        raise ValueError(f"the activations in {path.name} are not what was written")


def _size_of(written: dict[str, int] | int) -> int:
    """Bytes of a file of rows that a checkpoint counts."""
    return written["bytes"] if isinstance(written, dict) else written


def _may_be_whole(error: BaseException | None) -> bool:
    """Whether reading a checkpoint failed for a reason that says nothing against its files, but
    one that is gone."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        if isinstance(error, OSError) and error.errno is not None:
            return not isinstance(error, FileNotFoundError | NotADirectoryError)
        error = error.__cause__ or error.__context__
    return False
