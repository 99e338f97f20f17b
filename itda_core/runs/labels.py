"""Labels, notes, bookmarks and lists of latents: what people wrote, which nothing can bring back.

labels.jsonl, beside the folder of runs: one line a change, the newest line of a latent counts.
Lines are only ever added, so that a crash costs at most the line that was being written.
"""

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from itda_core.errors import InputError
from itda_core.files import disk_errors_as_sentences

LABELS_FILE = "labels.jsonl"
LONGEST_LABEL = 200
LONGEST_NOTE = 10_000


@dataclass(frozen=True)
class Label:
    """What is kept of one latent. The source tells whether the latent is still the one that it was
    written for."""

    run_id: str
    latent: int
    prompt_id: str
    position: int
    label: str = ""
    note: str = ""
    bookmarked: bool = False
    lists: tuple[str, ...] = ()
    """names of the lists that it was put into"""
    changed: str = ""
    """when, in UTC, ISO 8601"""

    def __post_init__(self) -> None:
        for name, kind in (("run_id", str), ("prompt_id", str), ("label", str), ("note", str)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"{name} of a label must be text.")
        for name in ("latent", "position"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise InputError(f"{name} of a label must be a number from 0 on.")
        object.__setattr__(self, "lists", _list_names(self.lists))
        if len(self.label) > LONGEST_LABEL or len(self.note) > LONGEST_NOTE:
            raise InputError(
                f"A label has at most {LONGEST_LABEL} characters, a note {LONGEST_NOTE:,}."
            )

    @property
    def is_empty(self) -> bool:
        return not (self.label or self.note or self.bookmarked or self.lists)


def labels_file(runs: Path) -> Path:
    """Where the labels of the runs in a folder are kept."""
    return runs.absolute().parent / LABELS_FILE


def add_labels(file: Path, labels: Iterable[Label]) -> None:
    """Keep labels; each takes the place of what was kept of its latent before."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    dated = [dataclasses.asdict(label) | {"changed": label.changed or now} for label in labels]
    lines = [json.dumps(line, ensure_ascii=False) for line in dated]
    with disk_errors_as_sentences(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", errors="replace") as opened:
            # A line that a crash cut short must not swallow this one.
            opened.write(
                ("\n" if _ends_badly(file) else "") + "".join(f"{line}\n" for line in lines)
            )
            opened.flush()
            os.fsync(opened.fileno())


def read_labels(content: bytes) -> tuple[list[Label], int]:
    """The newest of each latent and source, in the order of their changes, and how many lines can't
    be read. Those that say nothing are left out. content: of a labels file."""
    newest: dict[tuple, Label] = {}
    bad = 0
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            label = Label(**json.loads(line))
        except (ValueError, TypeError, RecursionError, InputError):
            bad += 1
            continue
        # With another source the number stands for another latent.
        key = (label.run_id, label.latent, label.prompt_id, label.position)
        older = newest.pop(key, None)
        newest[key] = older if older and older.changed > label.changed else label
    return [label for label in newest.values() if not label.is_empty], bad


def _list_names(names: object) -> tuple[str, ...]:
    """Names without repeats, as a tuple; a file gives them as a list."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError("lists of a label must be names.")
    distinct = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if any(len(name) > LONGEST_LABEL for name in distinct):
        raise InputError(f"The name of a list has at most {LONGEST_LABEL} characters.")
    return distinct


def _ends_badly(file: Path) -> bool:
    """Whether the last line has no end."""
    size = file.stat().st_size
    if not size:
        return False
    with file.open("rb") as opened:
        opened.seek(size - 1)
        return opened.read(1) != b"\n"
