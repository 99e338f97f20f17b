"""Bad inputs by the thousand, each made anew from its number: what is read of one file alone.

A reader runs in a child (`dying.live`) with little more memory than it has begun with; an input
that it does not come back from in time ends it.
"""

import contextlib
import copy
import io
import json
import math
import random
import resource
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from itda_core.activations.folder_index import read_index
from itda_core.analysis.latent_map import read_map
from itda_core.cli.parser import parse
from itda_core.config import TrainConfig
from itda_core.corpus.files import read_texts, text_columns
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ItdaError
from itda_core.exchange.published import published_files, read_published
from itda_core.exchange.saelens import read_saelens
from itda_core.jobs.claim import claimed_by
from itda_core.jobs.job import Job
from itda_core.jobs.kept import listed_jobs
from itda_core.model.plausible import check_folder
from itda_core.model.weight_files import check_file
from itda_core.progress import Progress
from itda_core.runs.checks import by_content
from itda_core.runs.comparisons import read_comparisons
from itda_core.runs.given_names import names_file, read_names
from itda_core.runs.labels import LABELS_FILE, read_changes
from itda_core.runs.near_misses import near_misses
from itda_core.runs.results import read_evaluation, read_probing
from itda_core.runs.run import Run, list_runs, read_run
from itda_core.runs.texts import kept_text
from itda_core.sealed import DIGESTS_FILE, faults, seal
from itda_core.store.database import Database
from itda_core.store.index import Index
from itda_core.training.training_list import listed_trainings
from pages.components.url import number_below
from tests.support.command_line import train_options
from tests.support.foreign import write_saelens
from tests.support.odd_values import ACTIVATIONS, JOB, LIST, ODD, PROGRESS, TEXTS

MORE_MEMORY = 2**31
"""Bytes of addresses that a reader may have beyond what it has begun with"""
PATIENCE = 60
"""Seconds after which an input is one that nobody comes back from"""

DEEP = (b"[" * 100_000, b'{"a": ' * 50_000)
"""Nested more deeply than any reader can follow"""
ODD_CELLS = (
    [None], [True], [-1], [2**62], [-(2**62)], [1e308], [math.nan], [math.inf], [""], ["x" * 5_000],
    ["\0"], [b"\xff\xfe"], [[1, 2]], [[]], [{"a": 1}], [Decimal("1.5")], [datetime(9999, 1, 1)],
    [timedelta(days=9)],
)  # fmt: skip
"""What a column may be full of"""
UPLOADS = (*TEXTS, ".parquet", ".gz", ".zip", ".exe", "")
"""Endings"""
KINDS = (
    "config.json", "metrics.json", "dictionary.safetensors", "sources.parquet", "codes.parquet",
    "prompts.parquet", "nearly.parquet", "map.parquet", "evaluation.json",
    "probing.json", "digests.json", "activations/activations.json", "model/config.json",
    "model.safetensors", "saelens/cfg.json", "saelens/sae_weights.safetensors",
    "published/atoms.pt", "published/metadata.yaml", "job.json", "claim.json", "jobs as JSON",
    "progress", "names.json", "comparisons", "labels", "settings", "list.toml", "options",
    "numbers of links", "texts of links", *(f"upload{ending}" for ending in UPLOADS),
)  # fmt: skip
SLOW = (
    "sources.parquet",
    "codes.parquet",
    "prompts.parquet",
    "config.json",
    "options",
    "comparisons",
)
"""Those that take 8 ms and more, of which there are a tenth as many"""


@dataclass
class Kind:
    """Of input: the whole ones of which the bad ones are made, and what reads them."""

    wholes: list[bytes]
    read: Callable[[bytes], object]
    finish: Callable[[], None] = lambda: None
    """what is asked once all were read"""


def read_many(folder: Path, sender: Connection, name: str, first: int, count: int) -> int:
    """Of a child: reads inputs first … first + count - 1 of a kind; 1 after the first that ends in
    anything but a refusal, which is printed."""
    kind = kinds(folder)[name]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    for number in range(first, first + count):
        if number % 100 == 0:
            sender.send(number)
        bad = damaged(random.Random(f"{name} {number}"), kind.wholes)
        signal.alarm(PATIENCE)
        try:
            refused_or_read(lambda bad=bad: kind.read(bad))
        except BaseException:
            print(f"{name} {number}: {bad!r:.3000}\n{traceback.format_exc()}")
            return 1
    signal.alarm(0)
    kind.finish()
    return 0


def refused_or_read(read: Callable[[], object]) -> None:
    """Anything but an ItdaError fails."""
    try:
        read()
    except ItdaError as error:
        assert str(error).strip(), "a refusal says why"


def damaged(draw: random.Random, wholes: list[bytes]) -> bytes:
    """A whole input with bytes changed, cut, put in or repeated, with an odd value where it is
    JSON, or in a hundredth of all something else."""
    whole = draw.choice(wholes)
    if draw.random() < 0.01:
        return draw.choice((draw.randbytes(draw.randrange(400)), *DEEP))
    if whole.startswith(b"PAR1") and draw.random() < 0.5:
        return odd_table(draw, whole)
    if draw.random() < 0.5:
        with contextlib.suppress(ValueError):
            return odd(draw, json.loads(whole))
    data = bytearray(whole)
    for _ in range(draw.randint(1, 4)):
        # Headers and footers say what the rest is, so that most changes are made there.
        first, last = draw.choice([(0, 256), (0, len(data)), _footer(data)])
        place = draw.randrange(first, max(first + 1, min(last, len(data))))
        match draw.randrange(5):
            case 0 if place < len(data):
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                del data[place:]
            case 2:
                data[place:place] = draw.randbytes(draw.randrange(40))
            case 3:
                data[place:place] = data[place : place + draw.randrange(5_000)]
            case _ if place < len(data):
                data[place] = draw.randrange(256)
    return bytes(data)


def _footer(data: bytearray) -> tuple[int, int]:
    """Where a Parquet file describes itself, without the length of that at its end; of others the
    last bytes."""
    length = int.from_bytes(data[-8:-4], "little") if data[-4:] == b"PAR1" else 256
    return max(0, len(data) - 8 - length), max(1, len(data) - 8)


def odd(draw: random.Random, said: object) -> bytes:
    """JSON with an odd value in one field at any depth, or without it."""
    at = said = copy.deepcopy(said)
    while isinstance(at, dict | list) and at:
        key = draw.choice([*at] if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.5:
            at = at[key]
        elif draw.random() < 1 / 6:
            del at[key]
            break
        else:
            at[key] = draw.choice(ODD)
            break
    return json.dumps(said).encode("utf-8", "surrogatepass")


def odd_table(draw: random.Random, whole: bytes) -> bytes:
    """A table that is one, with another column in place of one of its own, or without it, or with
    other rows."""
    table = pq.read_table(io.BytesIO(whole))
    place = draw.randrange(table.num_columns)
    name, rows = table.column_names[place], table.num_rows
    match draw.randrange(6):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.append_column(name, table.column(place))  # twice
        case 2:
            table = table.slice(0, draw.choice((0, rows // 2)))
        case 3:
            table = pa.concat_tables([table, table.slice(0, rows // 3)])
        case _:
            column = pa.array(draw.choice(ODD_CELLS)).take(pa.array([0] * rows))
            table = table.set_column(place, name, column)
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def kinds(folder: Path) -> dict[str, Kind]:
    """All of them, of a folder that `fill` has filled."""
    [run] = list_runs(folder / "data" / "runs")
    found = {**_of_a_run(run), **_of_exchange(folder), **_of_uploads(folder, run)}
    jobs = folder / "data" / "jobs"
    comparisons = folder / "data" / "comparisons"
    settings = json.dumps(run.config.to_dict()).encode()
    options = "\n".join(map(str, train_options(run.config))).encode()
    return found | {
        "job.json": _file(jobs / "00001" / "job.json", lambda _: listed_jobs(jobs)),
        "claim.json": _file(jobs / "00001" / "claim.json", lambda path: claimed_by(path.parent)),
        "jobs as JSON": Kind([json.dumps(JOB).encode()], lambda bad: _of_json(Job.from_dict, bad)),
        "progress": Kind([PROGRESS], Progress.read_line),
        "names.json": _file(names_file(folder / "data" / "runs"), read_names),
        "comparisons": _file(
            next(comparisons.glob("*.parquet")), lambda _: read_comparisons(comparisons)
        ),
        "labels": _labels(folder),
        "settings": Kind([settings], lambda bad: _of_json(TrainConfig.from_dict, bad)),
        "list.toml": Kind([LIST], lambda bad: listed_trainings(_text(bad), "list.toml")),
        "options": Kind([options], lambda bad: _parsed(_text(bad).split("\n"))),
        "numbers of links": Kind([b"12", b"-3.5e2"], lambda bad: number_below(_text(bad), 2_048)),
        "texts of links": Kind([b"0123abcd"], lambda bad: kept_text(folder / "texts", _text(bad))),
    }


def fill(folder: Path, kept: Path) -> None:
    """Put a whole one of every file into an empty folder. kept: a data folder of the tiny model,
    with one of every file of its own."""
    data = folder / "data"
    shutil.copytree(kept, data)
    for spare in list_runs(data / "runs")[1:]:
        shutil.rmtree(spare.directory)
    [run] = list_runs(data / "runs")
    (data / "jobs" / "00001").mkdir(parents=True)
    (data / "jobs" / "00001" / "job.json").write_text(json.dumps(JOB))
    (data / "jobs" / "00001" / "claim.json").write_text('{"pid": 4}')
    shutil.copytree(run.directory, data / "sealed")
    seal(data / "sealed")
    write_saelens(folder / "saelens")
    for name, content in published_files(run).items():
        (folder / "published").mkdir(exist_ok=True)
        (folder / "published" / name).write_bytes(content)
    (folder / "activations").mkdir()
    (folder / "activations" / "activations.json").write_text(json.dumps(ACTIVATIONS))
    shutil.copytree(run.config.model.name, folder / "model")


def _of_a_run(run: Run) -> dict[str, Kind]:
    at = run.directory
    readers = {
        "config.json": lambda _: read_run(at),
        "metrics.json": lambda _: read_run(at),
        "dictionary.safetensors": Dictionary.load,
        "sources.parquet": lambda _: by_content(run),
        "codes.parquet": lambda _: by_content(run),
        "prompts.parquet": lambda _: by_content(run),
        "nearly.parquet": lambda _: near_misses(run, 0),
        "map.parquet": lambda _: read_map(run),
        "evaluation.json": lambda _: read_evaluation(run),
        "probing.json": lambda _: read_probing(run),
    }
    found = {name: _file(at / name, read) for name, read in readers.items()}
    sealed = at.parent.parent / "sealed"
    return found | {"digests.json": _file(sealed / DIGESTS_FILE, lambda _: faults(sealed))}


def _of_exchange(folder: Path) -> dict[str, Kind]:
    """What other programs write."""
    readers = {
        "activations/activations.json": read_index,
        "model/config.json": check_folder,
        "saelens/cfg.json": read_saelens,
        "saelens/sae_weights.safetensors": read_saelens,
        "published/atoms.pt": read_published,
        "published/metadata.yaml": read_published,
    }
    found = {
        name: _file(folder / name, lambda path, read=read: read(path.parent))
        for name, read in readers.items()
    }
    return found | {"model.safetensors": _file(folder / "model/model.safetensors", check_file)}


def _of_uploads(folder: Path, run: Run) -> dict[str, Kind]:
    parquet = (run.directory / "prompts.parquet").read_bytes()
    found = {}
    for ending in UPLOADS:
        whole, file = TEXTS.get(ending, parquet), folder / f"upload{ending}"
        # What another ending would be, now and then.
        wholes = [*[whole, parquet] * len(TEXTS), *TEXTS.values()]
        found[f"upload{ending}"] = Kind(wholes, lambda bad, f=file: _uploaded(f, bad))
    return found


def _file(path: Path, read: Callable[[Path], object]) -> Kind:
    """A file that is damaged where it lies, and whole again in the end."""

    def read_it(bad: bytes) -> object:
        path.write_bytes(bad)
        return read(path)

    whole = path.read_bytes()
    return Kind([whole], read_it, lambda: _is_whole_again(path, whole, read))


def _is_whole_again(path: Path, whole: bytes, read: Callable[[Path], object]) -> None:
    path.write_bytes(whole)
    read(path)


def _labels(folder: Path) -> Kind:
    """Lines of labels, each read alone and in the end all of them into a database, one that is
    whole among them."""
    lines: list[bytes] = []
    whole = (folder / "data" / LABELS_FILE).read_bytes().strip()

    def read(bad: bytes) -> None:
        lines.append(bad)
        read_changes(bad)

    def finish() -> None:
        data = folder / "labels"
        data.mkdir(exist_ok=True)
        (data / LABELS_FILE).write_bytes(b"\n".join([*lines, whole]))
        database = Database()
        try:
            Index(database).import_labels(data / "runs")
            assert len(database.query("SELECT * FROM labels WHERE latent = 3"))
        finally:
            database.close()

    return Kind([whole], read, finish)


def _uploaded(file: Path, bad: bytes) -> None:
    file.write_bytes(bad)
    for read in (text_columns, read_texts):
        refused_or_read(lambda read=read: read(file))


def _of_json(read: Callable[[object], object], bad: bytes) -> None:
    try:
        said = json.loads(bad)
    except (ValueError, RecursionError):
        return
    read(said)


def _parsed(words: list[str]) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parse(["train", *words])
    except SystemExit as stopped:
        assert stopped.code in (0, 2)


def _text(bad: bytes) -> str:
    return bad.decode("utf-8", "surrogateescape")
