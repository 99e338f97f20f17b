"""Whole labels, as tests write and read them; the pages write the fields that change."""

from collections.abc import Iterable
from pathlib import Path

from itda_core.runs.labels import Change, Label, add_changes, merged, read_changes


def add_labels(file: Path, labels: Iterable[Label]) -> None:
    """Keep whole labels; each takes the place of what was kept of its latent before."""
    add_changes(file, map(Change, labels))


def read_labels(content: bytes) -> tuple[list[Label], int]:
    """`merged` of a labels file, and how many of its lines can't be used."""
    changes, bad = read_changes(content)
    return merged(changes), len(bad)
