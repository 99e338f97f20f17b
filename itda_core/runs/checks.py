"""Whether the files of a run are what was written: by their digests, and by what they say."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors import safe_open

from itda_core.corpus.corpus import prompt_id
from itda_core.errors import RunError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import check_foreign
from itda_core.files.json_files import parse_json, read_json
from itda_core.runs.agreement import Said, disagreements
from itda_core.runs.run import (
    ALL_FILES,
    DAMAGED,
    NEAR_MISS_FILE,
    RUN_COLUMNS,
    RUN_FILES,
    Run,
    read_run,
)
from itda_core.sealed import (
    DIGESTS_FILE,
    faults,
    is_sealed,
    names_to_seal,
    seal,
    sealed_names,
)
from itda_core.tables import as_frame, open_table, read_frame, read_table

_REMEDIES = {
    "evaluation.json": "Evaluate it again: python -m itda_core evaluate {} --save",
    "probing.json": "Probe it again: python -m itda_core probe {} --save",
    "map.parquet": "Map it again: python -m itda_core map {}",
    "scores.parquet": "Score it again: python -m itda_core score {}",
    DIGESTS_FILE: "Move it away, and have the run checked and sealed: python -m itda_core doctor "
    "--seal",
}
"""What makes a file again without which the run is whole"""
_WHOLE_WITHOUT = (
    "Bring back a copy of it. The run is whole without it: else move it away, and have its digest "
    "forgotten: python -m itda_core doctor --seal"
)
_OWN_FILES = {*ALL_FILES, *_REMEDIES}
_NOT_UNIT = 1e-4
"""How far the length of an atom may be from 1: rounding is a thousandth of that"""
_LARGEST = float(np.finfo(np.float32).max)
"""What a coefficient stays below, which the database keeps in four bytes"""
_FEW = 0.01
"""The share of codes that need not be there"""
_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_MOST_PROBLEMS = 5
"""Of one run, that are named"""


class DamagedFile(RunError):
    """A file of a run is not what was written."""

    def __init__(self, message: str, path: Path):
        super().__init__(message)
        self.path = path


def by_digests(directory: Path, only_sizes: bool = False) -> list[DamagedFile]:
    """Why files of a run are not what was written; none of a run without digests. only_sizes:
    without reading them."""
    found = faults(directory, only_sizes=only_sizes)
    return [_error(directory / name, error) for name, error in found.items()]


def is_vital(error: DamagedFile) -> bool:
    """Whether one of `by_digests` or `by_content` is of a file without which there is no run."""
    return error.path.name in RUN_FILES


def foreign_files(directory: Path) -> list[str]:
    """Files that somebody put into a run's directory: nothing is known of them, so that they can't
    be damaged, and they are left as they are. What has a digest, as what a newer version adds, is
    none."""
    known = set(_OWN_FILES)
    with contextlib.suppress(RunError):  # which is told of the digests themselves
        known.update(sealed_names_of(directory))
    return [name for name in names_to_seal(directory) if name not in known]


def _error(path: Path, error: Exception) -> DamagedFile:
    remedy = DAMAGED if path.name in RUN_FILES else _REMEDIES.get(path.name, _WHOLE_WITHOUT)
    sentence = why_unreadable(path, error, remedy.format(path.parent.name))
    return DamagedFile(str(sentence), path)


def by_content(run: Run) -> list[DamagedFile]:
    """Why files of a run can't be what was written, by what they say themselves and of each other:
    all that tells of a run without digests."""
    found: list[DamagedFile] = []
    left_alone = {DIGESTS_FILE, "config.json", *foreign_files(run.directory)}
    for name, check in (
        ("dictionary.safetensors", _dictionary),
        ("sources.parquet", _sources),
        ("prompts.parquet", _prompts),
        ("codes.parquet", _codes),
        ("progress.jsonl", _progress),
        *((path.name, _any_file) for path in sorted(run.directory.glob("*.*"))),
    ):
        if name in left_alone or (run.directory / name).is_dir():
            continue
        try:
            check_foreign(run.directory / name)
            for problem in check(run, run.directory / name):
                raise ValueError(problem)
        except Exception as error:  # whatever reading it raises says that it can't be read
            if not isinstance(error, FileNotFoundError) or name in RUN_FILES:
                found.append(_error(run.directory / name, error))
    by_file = {error.path: error for error in reversed(found)}
    return [*reversed(by_file.values())][:_MOST_PROBLEMS]


def check_run(run: Run, deep: bool = False) -> list[DamagedFile]:
    """What is wrong with the files of a run: by their digests, and without digests, or where it
    should be looked at deeply, by their content."""
    found = by_digests(run.directory)
    if deep or not is_sealed(run.directory):
        named = {error.path for error in found}
        found += [error for error in by_content(run) if error.path not in named]
    return found


def check_vital(run: Run) -> list[DamagedFile]:
    """Raises the first of `check_run` without whose file there is no run; returns the others. A
    text has to be the one that its id names, whatever the digests say: all runs share it. And what
    is checked has to be what the database reads."""
    found = check_run(run)
    for error in found:
        if is_vital(error):
            raise error
    for name, columns in RUN_COLUMNS.items():
        path = run.directory / name
        try:
            for problem in _read_otherwise(path, columns):
                raise ValueError(problem)
            if name == "prompts.parquet":
                for problem in _other_texts(read_frame(path, columns=["prompt_id", "text"])):
                    raise ValueError(problem)
        except (OSError, ValueError) as error:
            raise _error(path, error) from error
    return found


def seal_run(directory: Path) -> bool:
    """Give a run digests that has none, and digests to files that came without one; forget those
    of files that are gone and needed by nothing. Whether anything changed. Raises RunError where
    something of the run is damaged: what is damaged is never sealed."""
    run = read_run(directory)
    problems = check_run(run, deep=True)
    gone = {name for name in sealed_names_of(directory) if not (directory / name).exists()}
    damaged = [error for error in problems if error.path.name not in gone - set(RUN_FILES)]
    if damaged:
        raise damaged[0]
    with disk_errors_as_sentences(directory):
        names = sorted({*names_to_seal(directory)} - {*foreign_files(directory)})
        if names == sorted(sealed_names_of(directory)):
            return False
        try:
            seal(directory, names)
        except ValueError as error:  # something that is no file
            raise RunError(f"{directory} can't be sealed: {error}. Move that away.") from error
    return True


def sealed_names_of(directory: Path) -> list[str]:
    """The files of a run that have digests. Raises RunError where these can't be read."""
    try:
        return sealed_names(directory)
    except (OSError, ValueError) as error:
        raise _error(directory / DIGESTS_FILE, error) from error


# What each file says. Each check yields what is wrong with it.


def _header(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, "np") as opened:
        header = parse_json((opened.metadata() or {}).get("itda", "null"))
        return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _dictionary(run: Run, path: Path) -> Iterator[str]:
    header, tensors = _header(path)
    atoms, offset = tensors["atoms"], tensors["offset"]
    if (
        atoms.shape != (run.metrics["atoms"], run.about["d_model"])
        or offset.shape != atoms.shape[1:]
    ):
        yield f"it has {len(atoms):,} atoms, and metrics.json says {run.metrics['atoms']:,}"
    yield from (one.rstrip(".") for one in disagreements(run, Said.of_header(header)))
    if not all(
        np.isfinite(values).all() for values in tensors.values() if values.dtype.kind == "f"
    ):
        yield "it has numbers that are none"
    norms = np.linalg.norm(atoms.astype(np.float64), axis=1)
    is_unit = np.abs(norms - 1) < _NOT_UNIT
    if run.kind == "sae":  # a row of zeros of its decoder stays one
        is_unit |= norms == 0
    if not is_unit.all():
        yield f"the atom of latent {int(np.argmin(is_unit))} is not of length 1"


def _sources(run: Run, path: Path) -> Iterator[str]:
    table = read_frame(path)
    _, tensors = _header(run.directory / "dictionary.safetensors")
    inside = read_frame(io.BytesIO(tensors["sources"].tobytes()))
    if list(table["latent"]) != list(range(run.metrics["atoms"])):
        yield "its latents do not count from 0 to the number of atoms"
    for name in inside.columns.intersection(table.columns):
        if not inside[name].reset_index(drop=True).equals(table[name].reset_index(drop=True)):
            yield f"its column {name} is not the one in dictionary.safetensors"


def _prompts(run: Run, path: Path) -> Iterator[str]:
    table = read_frame(path)
    yield from _other_texts(table)
    for name, text, starts, ends in zip(
        table["prompt_id"], table["text"], table["starts"], table["ends"], strict=True
    ):
        is_within = len(starts) == len(ends) and (starts >= 0).all() and (starts <= ends).all()
        if not is_within or (ends > len(text)).any():
            yield f"the tokens of the prompt {name} don't lie in its text"
    if table["prompt_id"].duplicated().any():
        yield "it has a prompt twice"
    if table["explored"].dtype != bool:
        yield "it does not say of every prompt whether it was explored"
    lengths = [(row.ends - row.starts).sum() for row in table.itertuples() if row.text.strip()]
    if lengths and not any(lengths):
        yield "no token of its prompts has a character"
    if run.kind == "itda":
        yield from _places_of_sources(run, table.set_index("prompt_id"))


def _other_texts(table: pd.DataFrame) -> Iterator[str]:
    """Texts that are not those which their ids name. table: prompt_id and text."""
    for name, text in zip(table["prompt_id"], table["text"], strict=True):
        if prompt_id(text) != name:
            yield f"the text of the prompt {name} is another one"


def _read_otherwise(path: Path, columns: Sequence[str]) -> Iterator[str]:
    """Columns that DuckDB, which takes a run in, reads otherwise than Arrow, which checks it: upper
    and lower case are one name to it, of which the first column counts, and bytes that are not
    marked as text become text in which `é` is `\\xC3\\xA9`."""
    with open_table(path) as file:
        schema = file.schema_arrow
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name not in columns and field.name.lower() in columns:
            yield f"{field.name!r:.60} can't be told from {field.name.lower()}"
        if field.name in columns and any(is_kind(kind) for is_kind in _BYTES):
            yield f"{field.name} is bytes and not text"


def _places_of_sources(run: Run, prompts: pd.DataFrame) -> Iterator[str]:
    """A source stands in its prompt where its prompt's tokens say. prompts: by prompt_id."""
    sources = read_frame(run.directory / "sources.parquet")
    if not set(sources["prompt_id"]) <= set(prompts.index):
        yield "it lacks prompts that sources are from"
    elif run.config.moved_from is None:  # a moved one's may end within the other tokenizer's token
        for row in sources.itertuples():
            starts, ends = prompts.at[row.prompt_id, "starts"], prompts.at[row.prompt_id, "ends"]
            is_there = 0 <= row.position < len(starts)
            if not is_there or (starts[row.position], ends[row.position]) != (row.start, row.end):
                yield f"the source of latent {row.latent} stands elsewhere than its token"


def _codes(run: Run, path: Path) -> Iterator[str]:
    columns = ["prompt_id", "ends", "explored"]
    prompts = read_frame(run.directory / "prompts.parquet", columns=columns)
    n_tokens = prompts["ends"].map(len).where(prompts["explored"], 0)
    explored = dict(zip(prompts["prompt_id"], n_tokens, strict=True))
    n_atoms, n_codes, n_first = run.metrics["atoms"], 0, 0
    uses = np.zeros(n_atoms, np.int64)
    file = open_table(path, read_dictionary=["prompt_id"])
    for number in range(file.num_row_groups):
        block = as_frame(file.read_row_group(number, use_threads=False))
        if any(block[name].dtype.kind not in "iu" for name in ("latent", "position", "step")):
            yield "it has latents, positions or steps that are no whole numbers"
        n_codes += len(block)
        latents = block["latent"].to_numpy()
        if len(latents) and not (latents.min() >= 0 and latents.max() < n_atoms):
            yield "it names latents that there are none"
        coefficients = block["coefficient"]
        if coefficients.dtype.kind != "f" or not (coefficients.abs() < _LARGEST).all():
            yield "it has coefficients that are no numbers"
        of_prompts = block["prompt_id"].cat
        ends = np.array([explored.get(name, 0) for name in of_prompts.categories])[of_prompts.codes]
        if not ((block["position"] >= 0) & (block["position"] < ends)).all():
            yield "it names tokens of prompts that are not in prompts.parquet, or not explored"
        if run.kind == "itda" and block.duplicated(["prompt_id", "position", "step"]).any():
            yield "it has a step of a token's pursuit twice"
        if (
            run.kind == "itda"
            and len(block)
            and not block["step"].between(0, run.config.max_terms - 1).all()
        ):
            yield "it has steps beyond the L0"
        uses += np.bincount(latents, minlength=n_atoms)
        n_first += int((block["step"] == 0).sum())
    is_used = uses > 0
    most = run.metrics["explored_tokens"] * run.config.max_terms
    if run.kind == "itda" and n_codes > most:
        yield f"it has {n_codes:,} codes, and {most:,} is what so many tokens can have"
    said = run.metrics.get("unused_share")
    if said is not None and abs(said - (1 - is_used.mean())) > 1e-9:
        yield f"it leaves {1 - is_used.mean():.4f} of the latents unused, metrics.json says {said}"
    if run.kind == "itda":
        yield from _lost_codes(run, n_first, uses)


def _lost_codes(run: Run, n_first: int, uses: np.ndarray) -> Iterator[str]:
    """Whether codes are missing, by how many tokens were explored and by how often the scores found
    each latent used. A few may: an activation of zeros has no codes. n_first: codes of first steps;
    uses: codes of each latent, [n_atoms]."""
    n_tokens = run.metrics["explored_tokens"]
    if run.config.budget == "token" and n_first < (1 - _FEW) * n_tokens:
        yield f"it has the first step of {n_first:,} tokens, and {n_tokens:,} were explored"
    scores = run.directory / "scores.parquet"
    if not scores.exists():
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # which is told of itself
        check_foreign(scores)
        counted = read_table(scores, columns=["uses"])["uses"].to_numpy().sum()
        if uses.sum() < (1 - _FEW) * counted:
            yield f"it has {uses.sum():,} uses of latents, and scores.parquet tells of {counted:,}"


def _progress(run: Run, path: Path) -> Iterator[str]:  # noqa: ARG001
    """A line may be half of one, after a kill: readers pass over it."""
    if "\0" in path.read_text("utf-8"):
        yield "it is no text"


def _any_file(run: Run, path: Path) -> Iterator[str]:
    """What can be told of files that are added to a run, and of its near misses."""
    if path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".parquet" and path.name not in RUN_FILES:
        table = read_frame(path)
        n_atoms = run.metrics["atoms"]
        is_whole = path.name == NEAR_MISS_FILE or len(table) == n_atoms
        if "latent" not in table or not is_whole or not _is_within(table["latent"], n_atoms):
            yield "it is of other latents"


def _is_within(latents: pd.Series, n_atoms: int) -> bool:
    return bool(latents.between(0, n_atoms - 1).all())
