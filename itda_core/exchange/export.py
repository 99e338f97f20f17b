"""A run as files that other programs read: a SAELens folder, the published layout, the run itself.

Reading them back: saelens.py, published.py and, into runs, import_saelens.py and
import_published.py.
"""

import io
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ExchangeError, InputError
from itda_core.exchange.published import published_files, published_note
from itda_core.exchange.saelens import saelens_files, saelens_note
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import read_foreign
from itda_core.files.writing import rename_whole
from itda_core.leftovers import temporary_name
from itda_core.runs.checks import by_digests
from itda_core.runs.run import ALL_FILES, Run
from itda_core.sealed import DIGESTS_FILE, digests_of
from itda_core.tables import read_frame

FORMATS = {
    "saelens": "cfg.json and sae_weights.safetensors, for SAE.load_from_disk of sae-lens",
    "published": "atoms.pt, atom_indices.pt and metadata.yaml, as the published ITDA code has them",
    "run": "the run's own files, for another explorer",
}

_PREFIX_SPACES = ("▁", "Ġ")


@dataclass(frozen=True)
class Exported:
    """What was written, and what another program makes of it."""

    folder: Path
    files: list[str]
    note: str


def export(run: Run, folder: Path, format: str) -> Exported:
    """Write a run into a new folder in one of FORMATS; the folder appears whole or not at all.

    A run in its own format lies in a folder of its name inside. Raises InputError for a folder
    that is there and not empty, ExchangeError for a run that the format can't hold.
    """
    if format not in FORMATS:
        raise InputError(f"The format must be one of {', '.join(FORMATS)}, got {format!r}.")
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (resolve() would follow links)
    with disk_errors_as_sentences(folder.parent):
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"{folder} is there already. Choose a new folder.")
        files = export_files(run, format)
        temporary = folder.with_name(temporary_name(f"writing-{folder.name}"))
        try:
            for name, content in files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if folder.is_dir():
                folder.rmdir()
            rename_whole(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, list(files), export_note(run, format))


def export_files(run: Run, format: str) -> dict[str, bytes]:
    """The content of an exported folder by file name."""
    if format == "published":
        return published_files(run)
    if format == "saelens":
        return saelens_files(
            run.dictionary(), run.config.context_length, prepend_bos=_begins_with_mark(run)
        )
    return {f"{run.run_id}/{name}": content for name, content in run_files(run).items()}


def run_files(run: Run) -> dict[str, bytes]:
    """The files of a run that go where it goes, with their digests. Raises RunError where one of
    them is not what was written."""
    for damaged in by_digests(run.directory):
        if damaged.path.name in ALL_FILES:
            raise damaged
    names = [name for name in ALL_FILES if (run.directory / name).exists()]
    names = [name for name in names if name != DIGESTS_FILE]
    files = {}
    for name in names:
        try:
            files[name] = read_foreign(run.directory / name, most_bytes=None)
        except ValueError as error:  # it is no file
            raise ExchangeError(
                f"{run.run_id} can't be exported: {error}. Move that away."
            ) from None
    return {**files, DIGESTS_FILE: digests_of(run.directory, names)}


def atom_file(dictionary: Dictionary, latent: int, about: dict[str, Any]) -> bytes:
    """One latent's atom [d_model] as safetensors, with `about` as its metadata."""
    metadata = {name: str(value) for name, value in about.items()}
    return save({"atom": dictionary.atoms[latent].cpu().contiguous()}, metadata=metadata)


def export_note(run: Run, format: str) -> str:
    """What another program makes of the export, as a sentence or two."""
    if format == "run":
        return "Copy the folder inside into the runs of another explorer. It holds the texts."
    note = saelens_note if format == "saelens" else published_note
    return note(run.dictionary())


def export_zip(run: Run, format: str) -> bytes:
    """An exported folder as one file, its content in a folder named after the run."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed:  # tensors don't shrink
        for name, data in export_files(run, format).items():
            path = name if format == "run" else f"{run.run_id}-{format}/{name}"
            packed.writestr(zipfile.ZipInfo(path), data)
    return content.getvalue()


def _begins_with_mark(run: Run) -> bool:
    """Whether the tokenizer puts a mark before each text, and not only a space. Runs of earlier
    versions don't say, but their prompts begin with a token of no characters then."""
    if before := run.about.get("put_in", {}).get("before"):
        return any(name not in _PREFIX_SPACES for name in before)
    try:
        prompts = read_frame(run.directory / "prompts.parquet", columns=["ends"])
    except (OSError, ValueError) as error:
        path = run.directory / "prompts.parquet"
        raise ExchangeError(str(why_unreadable(path, error, "Train it again."))) from error
    return bool(len(prompts)) and all(len(ends) and ends[0] == 0 for ends in prompts["ends"][:8])
