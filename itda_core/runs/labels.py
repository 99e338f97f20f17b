"""Labels, notes, bookmarks and lists of latents: what people wrote, which nothing can bring back.

labels.jsonl, beside the folder of runs: one line a change, with the fields that it sets and no
others, so that two people who change different fields of a latent don't undo each other; of each
field the newest change counts. Lines of earlier versions have all fields. Lines are only ever
added, so that a crash costs at most the line that was being written.

What was written in one dictionary is read wherever the same source is an atom; `store.labels` finds
it there. For the time when the dictionary is gone, a line says where its source stands in the text,
and of which latent it is one moved.
"""

import dataclasses
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itda_core import clock
from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import read_foreign
from itda_core.files.json_files import parse_json
from itda_core.files.writing import append_lines
from itda_core.runs.grown_files import GrownFiles
from itda_core.runs.label_checks import (
    LONGEST_ID,
    LONGEST_LABEL,
    LONGEST_NOTE,
    check_number,
    check_text,
    checked_closes,
    checked_origin,
    checked_span,
    checked_time,
    list_names,
)

LABELS_FILE = "labels.jsonl"
_MOST_BYTES = 2**30
"""Of the file: millions of changes"""
FIELDS = ("label", "note", "bookmarked", "lists", "alone")
"""What people write of a latent"""
_SOURCE = ("run_id", "latent", "prompt_id", "position")
_PLACE = ("span", "closes", "origin")
"""What is known of a source, beside what people write"""
Span = tuple[int, int] | tuple[()] | None
"""Where a source begins and ends in its prompt's text, in characters; () of a latent that was not
made of a token, as those of an autoencoder; None where it is not said, as in lines of before"""
RootLatent = tuple[str, int] | tuple[str, int, str] | None
"""Of a latent of a dictionary that was moved, or that others were moved from: the run that was
moved at first, the latent's number there, and, where it is known, the digest of its dictionary,
since a run may be trained anew under its id; None of others, and where it is not said"""
Newest = dict[tuple, dict[str, tuple[str, Any]]]
"""By source and field: when it was set last, and to what"""
_writing = threading.Lock()


@dataclass(frozen=True)
class Label:
    """What is kept of one latent. The source tells whether the latent is still the one that it was
    written for. Raises InputError for what the file or the database can't hold."""

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
    """when, in UTC, ISO 8601; of several fields the newest"""
    alone: bool = False
    """what other dictionaries say of the same source is not shown here"""

    def __post_init__(self) -> None:
        for name in ("run_id", "prompt_id"):
            check_text(name, getattr(self, name), LONGEST_ID)
        for name in ("latent", "position"):
            check_number(name, getattr(self, name))
        for name, value in self.fields.items():
            object.__setattr__(self, name, _checked_field(name, value))
        object.__setattr__(self, "changed", checked_time(self.changed))

    @property
    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def source(self) -> tuple[str, int, str, int]:
        """What a label is about. With another source the number stands for another latent."""
        return self.run_id, self.latent, self.prompt_id, self.position

    @property
    def is_empty(self) -> bool:
        return not any(self.fields.values())


@dataclass(frozen=True)
class Change:
    """Some fields of a latent's label, as they were set at one time; the others stay."""

    label: Label
    names: tuple[str, ...] = FIELDS
    """the fields that are set"""
    span: Span = None
    """of the source; of this and the next two the newest that is known counts"""
    closes: bool | None = None
    """whether the source is the last token of its last character; None where that is not said"""
    origin: RootLatent = None

    @property
    def values(self) -> dict[str, Any]:
        return {name: getattr(self.label, name) for name in self.names}

    @property
    def place(self) -> dict[str, Any]:
        """What is known of where the source stands, and where it is from."""
        known = {name: getattr(self, name) for name in _PLACE}
        return {name: value for name, value in known.items() if value is not None}

    def at(self, time: str) -> "Change":
        return dataclasses.replace(self, label=dataclasses.replace(self.label, changed=time))


@dataclass(frozen=True)
class KeptLabel:
    """What counts of a latent and its source, with when each field was written."""

    label: Label
    times: dict[str, str]
    """by field, of those that were ever set"""
    span: Span
    closes: bool | None
    origin: RootLatent


@dataclass(frozen=True)
class BadLine:
    """A line that can't be used, and why."""

    number: int
    """in the file, from 1"""
    reason: str

    def __str__(self) -> str:
        return f"line {self.number:,} ({self.reason.rstrip('.')})"


@dataclass(frozen=True)
class Said:
    """What a file of labels says; nothing of it is to be changed."""

    newest: Newest
    """`newest_fields` of its lines"""
    bad: tuple[BadLine, ...]
    last: str
    """the latest time in it, "" where there is none"""
    begun: object = None
    """the same for as long as the file has only grown"""

    def changed_since(self, before: "Said | None") -> Newest | None:
        """What is said anew of which sources; None where the file has not only grown."""
        if before is None or self.begun is not before.begun:
            return None
        known = before.newest
        # What was not spoken of is the same object.
        return {one: said for one, said in self.newest.items() if known.get(one) is not said}

    def has(self, changes: Iterable[Change]) -> bool:
        """Whether each of these is in it, or something newer of the same field."""
        return all(
            self.newest.get(one.label.source, {}).get(name, ("", None))[0] >= one.label.changed
            for one in changes
            for name in one.names
        )


def labels_file(runs: Path) -> Path:
    """Where the labels of the runs in a folder are kept."""
    return runs.absolute().parent / LABELS_FILE


def add_changes(file: Path, changes: Iterable[Change]) -> list[Change]:
    """Keep changes; returns them with their dates. What has no date is the newest of all; a date
    that is still to come is taken for today, so that it can't outlast what is written tomorrow."""
    with _writing, disk_errors_as_sentences(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        # Newer than all that is there, should the clock have been put back: of two changes of one
        # time the later line counts, which the database could not write back once it is lost. No
        # time is later than the last one that there is.
        last = read_said(file).last
        newest = max(clock.now(later_than=[last]), last)
        dated = [change.at(min(change.label.changed or newest, newest)) for change in changes]
        append_lines(file, "".join(f"{_line(one)}\n" for one in dated).encode())
        return dated


def read_said(file: Path) -> Said:
    """What a file of labels says, nothing where there is none. What was read of it before is not
    read again where it has only grown. Raises as `read_labels_file`."""
    newest_and_bad, begun = _files.read(file, _content(file))
    return Said(*newest_and_bad, begun)


def read_changes(content: bytes) -> tuple[list[Change], list[BadLine]]:
    """The changes of a labels file in the order of its lines, and the lines that can't be used:
    none of them costs another."""
    changes, bad = [], []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            changes.append(_change(parse_json(line)))
        except InputError as error:
            bad.append(BadLine(number, str(error)))
        except ValueError:
            bad.append(BadLine(number, "it is not JSON"))
    return changes, bad


def read_labels_file(file: Path) -> tuple[list[Change], list[BadLine]]:
    """`read_changes` of a file; nothing where there is none. Raises OSError where it can't be
    read, RunError where it is no file, or mostly holes: a pipe would be waited for."""
    return read_changes(_content(file))


def _content(file: Path) -> bytes:
    if not file.exists():
        return b""
    try:
        return read_foreign(file, _MOST_BYTES)
    except ValueError as error:
        remedy = "Move it away: labels that the database has are written back."
        raise why_unreadable(file, error, remedy) from error


def newest_fields(changes: Iterable[Change], before: Newest | None = None) -> Newest:
    """By source, in the order of their last changes, and by field or part of `Change.place`: when
    it was set last, and to what; of two of one time by the later line. before: of the changes
    before these, which stays as it is."""
    newest = dict(before or {})
    for change in changes:
        source, time = change.label.source, change.label.changed
        fields = dict(newest.pop(source, {}))
        for name, value in (change.values | change.place).items():
            if time >= fields.get(name, ("", None))[0]:
                fields[name] = time, value
        newest[source] = fields
    return newest


def _add(
    said: tuple[Newest, tuple[BadLine, ...], str], content: bytes, n_lines: int
) -> tuple[Newest, tuple[BadLine, ...], str]:
    """What `Said` has of lines and of those before them."""
    newest, bad, last = said
    changes, more = read_changes(content)
    bad += tuple(dataclasses.replace(line, number=line.number + n_lines) for line in more)
    last = max([last, *(change.label.changed for change in changes)])
    return newest_fields(changes, newest), bad, last


_files = GrownFiles(({}, (), ""), _add)


def kept_labels(changes: Iterable[Change]) -> list[KeptLabel]:
    """What counts of each latent and source: its `newest_fields`. Those that say nothing are left
    out."""
    return labels_said(newest_fields(changes))


def labels_said(newest: Newest) -> list[KeptLabel]:
    """`kept_labels` of what `newest_fields` gave."""
    kept = (_kept(source, fields) for source, fields in newest.items())
    return [one for one in kept if not one.label.is_empty]


def _kept(source: tuple, fields: dict[str, tuple[str, Any]]) -> KeptLabel:
    places = [fields.get(name, ("", None))[1] for name in _PLACE]
    written = {name: said for name, said in fields.items() if name not in _PLACE}
    times = {name: time for name, (time, _) in written.items()}
    values = {name: value for name, (_, value) in written.items()}
    return KeptLabel(Label(*source, **values, changed=max(times.values())), times, *places)


def merged(changes: Iterable[Change]) -> list[Label]:
    """The labels of `kept_labels`."""
    return [kept.label for kept in kept_labels(changes)]


def kept_label(file: Path, label: Label) -> Label:
    """What a file has of the latent and source that a label is about."""
    fields = read_said(file).newest.get(label.source)
    return _kept(label.source, fields).label if fields else Label(*label.source)


def _line(change: Change) -> str:
    source = dict(zip(_SOURCE, change.label.source, strict=True))
    what = source | change.place | change.values | {"changed": change.label.changed}
    return json.dumps(what, ensure_ascii=False)


def _change(line: Any) -> Change:
    """A line of a file. Raises InputError where it is not one that can be used."""
    if not isinstance(line, dict):
        raise InputError("it is not an object with names")
    unknown = set(line) - {*_SOURCE, *FIELDS, *_PLACE, "changed"}
    if unknown:
        raise InputError(f"it has {', '.join(map(repr, sorted(unknown)))}, which no label has")
    lacking = [name for name in _SOURCE if name not in line]
    if lacking:
        raise InputError(f"it does not say {', '.join(lacking)}")
    names = tuple(name for name in FIELDS if name in line)
    if not names:
        raise InputError(f"it sets none of {', '.join(FIELDS)}")
    checks = checked_span, checked_closes, checked_origin
    place = [check(line.pop(name, None)) for name, check in zip(_PLACE, checks, strict=True)]
    return Change(Label(**line), names, *place)


def _checked_field(name: str, value: Any) -> Any:
    if name == "lists":
        return list_names(value)
    if name in ("bookmarked", "alone"):
        if not isinstance(value, bool):
            raise InputError(f"{name} of a label must be true or false.")
    else:
        check_text(name, value, LONGEST_LABEL if name == "label" else LONGEST_NOTE)
    return value
