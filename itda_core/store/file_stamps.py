"""Whether files have changed, without opening them, and which files of a folder of runs count."""

import os
from pathlib import Path

from itda_core.runs.comparisons import comparisons_folder
from itda_core.runs.labels import labels_file
from itda_core.runs.latent_comparisons import latent_comparisons_folder
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import RUN_FILES

_LOOKED_AT = (*RUN_FILES, EVALUATION_FILE, SCORES_FILE)
"""Files of a run that tell whether it has changed"""


def stamp(folder: Path) -> list[tuple]:
    """Tells whether run directories came, went or changed, without opening a file.

    [(name, identity, size and times of the directory and of each file), …] in order of names. The
    time of the last change of rights is among them: a file can become readable by it.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:  # there is no folder yet
        return []
    return [(name, *map(_file_stamp, run_files(folder / name))) for name in names]


def run_files(directory: Path) -> list[Path]:
    """What is looked at to see whether a run has changed."""
    return [directory, *(directory / name for name in _LOOKED_AT)]


def comparison_files(folder: Path) -> list[Path]:
    """What is kept beside a folder of runs: the comparisons of layers,"""
    return sorted(comparisons_folder(folder).glob("*.parquet"))


def latent_comparison_files(folder: Path) -> list[Path]:
    """those of latents,"""
    return sorted(latent_comparisons_folder(folder).glob("*.parquet"))


def label_files(folder: Path) -> list[Path]:
    """and the labels."""
    return [labels_file(folder)]


def file_stamps(files: list[Path]) -> list[tuple]:
    """Tells as `stamp` does whether any of some files changed; missing ones may be among them."""
    return [(path.name, _file_stamp(path)) for path in files]


def _file_stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
