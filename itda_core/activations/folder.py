"""A folder of activations, read: its prompts, the token of each row, and the rows themselves.

All that it says is checked when it is read; what is wrong is told with file and row.
"""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open

from itda_core.activations.folder_index import (
    INDEX_FILE,
    PROMPTS_FILE,
    FolderIndex,
    Part,
    read_index,
)
from itda_core.activations.folder_writer import PROMPT_SCHEMA, TOKEN_SCHEMA, tensor_name
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.digests import digest, sample_of
from itda_core.errors import ExchangeError, first_line
from itda_core.model.tokens import TokenizedText, word_table
from itda_core.tables import as_frame, read_table

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_OPTIONAL = ("cut", "first_start", "first_end")
_OPEN_FILES = 64
_SAMPLED_BLOCKS = 8
"""Of each file, for the digest: there may be thousands of files"""


class ActivationFolder:
    """Activations of a model on some prompts, captured earlier or elsewhere."""

    def __init__(self, path: Path):
        """Raises ExchangeError where something is missing or damaged; the activations themselves
        are only read where they are asked for."""
        self.path = path
        self.index: FolderIndex = read_index(path)
        self._check_there()
        self._files = [self._files_of(part) for part in self.index.parts]
        self._starts = np.cumsum([0, *(part.rows for part in self.index.parts)])
        self._opened = functools.lru_cache(maxsize=_OPEN_FILES)(self._open)

    @property
    def files(self) -> list[Path]:
        """All that belongs to it."""
        parts = [name for part in self.index.parts for name in part.files]
        return [self.path / name for name in (INDEX_FILE, PROMPTS_FILE, *self.index.tokens, *parts)]

    @functools.cached_property
    def digest(self) -> str:
        """Names the content: names, sizes and some blocks of all files."""
        return digest(sample_of(self.files, _SAMPLED_BLOCKS))

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    @property
    def seed(self) -> int:
        """By which a training reads the prompts in the order of the folder, where it is in one."""
        return self.index.seed or 0

    @functools.cached_property
    def prompts(self) -> pd.DataFrame:
        """prompt_id, text, title, held_out, cut, first_start, first_end (-1 where not known)."""
        table = as_frame(self._table(PROMPTS_FILE, PROMPT_SCHEMA, _OPTIONAL))
        for row, (name, text) in enumerate(zip(table["prompt_id"], table["text"], strict=True)):
            if prompt_id(text) != name:
                raise self._damage(PROMPTS_FILE, row, f"{name!r} is not the id of its text")
        twice = np.flatnonzero(table["prompt_id"].duplicated())
        if len(twice):
            raise self._damage(PROMPTS_FILE, int(twice[0]), "its prompt stands above already")
        return table.assign(
            cut=table["cut"].fillna(False).astype(bool),
            first_start=table["first_start"].fillna(-1).astype(np.int32),
            first_end=table["first_end"].fillna(-1).astype(np.int32),
        )

    def selected(self, held_out: bool) -> list[Prompt]:
        """The training prompts, or those that are held out, in the order of the folder."""
        chosen = self.prompts[self.prompts["held_out"] == held_out]
        columns = (chosen[name] for name in ("prompt_id", "text", "title"))
        return [Prompt(*row) for row in zip(*columns, strict=True)]

    def n_rows(self, held_out: bool) -> int:
        """Activations of the training prompts, or of the held-out ones, for each layer."""
        chosen = self.prompts["prompt_id"][self.prompts["held_out"] == held_out]
        return sum(last - first for name in chosen for first, last in [self.rows_of(name)])

    def rows_of(self, name: str) -> tuple[int, int]:
        """The first row of a prompt and the one after its last; both 0 where it has none."""
        return self._places.get(name, (0, 0))

    @functools.cached_property
    def _tokens(self) -> pa.Table:
        tables = [self._table(name, TOKEN_SCHEMA) for name in self.index.tokens]
        total = sum(len(table) for table in tables)
        if total != self.index.total_rows:
            raise ExchangeError(
                f"{self.path} is damaged: {INDEX_FILE} counts {self.index.total_rows:,} rows, and "
                f"{', '.join(self.index.tokens)} {total:,}. Write the folder anew."
            )
        return pa.concat_tables(tables).unify_dictionaries().combine_chunks()

    @functools.cached_property
    def names(self) -> list[str]:
        """Every text of a token that there is; `TokenizedText.ids` of this folder count in it. The
        first one stands for tokens that have no row."""
        return ["", *self._dictionary("token").dictionary.to_pylist()]

    def _dictionary(self, name: str) -> pa.DictionaryArray:
        """A column of `_tokens` that has few different texts."""
        column = self._tokens[name].combine_chunks()
        return column if isinstance(column, pa.DictionaryArray) else column.chunk(0)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        numbers = ("position", "start", "end", "word")
        columns = {name: self._tokens[name].to_numpy() for name in numbers}
        if not len(self._tokens):
            return {**columns, "name": np.zeros(0, np.int64)}
        return {**columns, "name": self._dictionary("token").indices.to_numpy() + 1}

    @functools.cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Where the rows of each prompt are. They stand together, in one part."""
        if not len(self._tokens):
            return {}
        column = self._dictionary("prompt_id")
        numbers = column.indices.to_numpy()
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        ids = column.dictionary.take(pa.array(numbers[starts])).to_pylist()
        known, places = set(self.prompts["prompt_id"]), {}
        part_ends = np.cumsum([part.rows for part in self.index.parts])
        lasts = [*starts[1:].tolist(), len(numbers)]
        for name, first, last in zip(ids, starts.tolist(), lasts, strict=True):
            if name not in known:
                raise self._row_damage(first, f"{PROMPTS_FILE} has no prompt {name!r}")
            if name in places:
                raise self._row_damage(first, "its prompt has other rows further up")
            if np.searchsorted(part_ends, first, "right") < np.searchsorted(part_ends, last):
                raise self._row_damage(first, "its prompt's rows lie in two parts")
            places[name] = first, last
        return places

    def tokenized(self, name: str, text: str) -> TokenizedText:
        """The tokens of a prompt: those that have a row, and the first position where that has
        none. Empty where the prompt has no row at all."""
        first, last = self.rows_of(name)
        skipped = int(self.index.skip_first and last > first)
        rows = {column: values[first:last] for column, values in self._columns.items()}
        self._check_tokens(text, first, rows)
        spans = np.zeros((skipped + last - first, 2), np.int32)
        ids = np.zeros(len(spans), np.int32)
        spans[skipped:] = np.stack([rows["start"], rows["end"]], 1)
        ids[skipped:] = rows["name"]
        about = self._about_prompt[name]
        if skipped and about.first_start >= 0:
            spans[0] = about.first_start, about.first_end
        return TokenizedText(text, ids, spans, spans[:, 0] == spans[:, 1], bool(about.cut))

    @functools.cached_property
    def _about_prompt(self) -> dict[str, Any]:
        return {row.prompt_id: row for row in self.prompts.itertuples()}

    def _check_tokens(self, text: str, first: int, rows: dict[str, np.ndarray]) -> None:
        """Positions follow each other; spans, tokens and words are those of the text."""
        words = word_table(text)
        columns = (rows[name].tolist() for name in ("position", "start", "end", "word", "name"))
        for number, (position, start, end, word, name) in enumerate(zip(*columns, strict=True)):
            if position != number + self.index.skip_first:
                expected = number + self.index.skip_first
                why = f"its position is {position}, and {expected} comes next in its prompt"
            elif not 0 <= start <= end <= len(text):
                why = f"characters {start} to {end} are not in its prompt of {len(text)}"
            elif start < end and self.names[name] != text[start:end]:
                why = f"its token {self.names[name]!r} is not what stands there"
            elif word != (-1 if start == end else words[start]):
                why = f"its word begins at {words[start] if start < end else -1}, not at {word}"
            else:
                continue
            raise self._row_damage(first + number, why)

    def rows(self, layer: int, first: int, last: int, site: str) -> torch.Tensor:
        """Activations `first` to `last` (not included) of a layer, in one part: [n, d_model] in the
        type that they are kept in."""
        number = int(np.searchsorted(self._starts, first, "right")) - 1
        name, start = tensor_name(layer, site), int(self._starts[number])
        file = self._files[number][name]
        try:
            return self._opened(file).get_slice(name)[first - start : last - start]
        except Exception as error:  # the disk's, or the file's own
            why = first_line(error)
            raise ExchangeError(f"{self.path / file} can't be read: {why}.") from error

    def _open(self, file: str):
        return safe_open(self.path / file, framework="pt")

    def _check_there(self) -> None:
        missing = [path.name for path in self.files if not path.is_file()]
        if missing:
            raise ExchangeError(
                f"{self.path} is not whole: it lacks {', '.join(missing[:5])}. Write it anew."
            )

    def _files_of(self, part: Part) -> dict[str, str]:
        """Which file of a part has which tensor. Raises ExchangeError where one is missing or not
        of the shape that it must be."""
        shape, found = [part.rows, self.index.d_model], {}
        for file in part.files:
            for name, its_shape, dtype in self._tensors(file):
                if its_shape != shape or dtype not in _DTYPES:
                    raise ExchangeError(
                        f"{self.path / file} is damaged: {name} is {dtype} {its_shape}, and not "
                        f"F32, BF16 or F16 {shape}. Write the folder anew."
                    )
                found[name] = file
        wanted = itertools.product(self.index.layers, self.index.sites)
        for name in itertools.starmap(tensor_name, wanted):
            if name not in found:
                raise ExchangeError(
                    f"{self.path} is not whole: {', '.join(part.files)} has no {name}, which "
                    f"{INDEX_FILE} promises. Write it anew."
                )
        return found

    def _tensors(self, file: str) -> Iterator[tuple[str, list[int], str]]:
        """Name, shape and type of each tensor of a file."""
        try:
            with safe_open(self.path / file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    its = opened.get_slice(name)
                    yield name, list(its.get_shape()), its.get_dtype()
        except Exception as error:
            raise ExchangeError(
                f"{self.path / file} is damaged ({first_line(error)}). Write the folder anew."
            ) from error

    def _table(self, file: str, schema: pa.Schema, optional: tuple[str, ...] = ()) -> pa.Table:
        """A table with the columns of a schema. Raises ExchangeError where it has not, or a value
        is missing."""
        try:
            table = read_table(self.path / file)
            for name in optional:
                if name not in table.column_names:
                    empty = pa.nulls(len(table), schema.field(name).type)
                    table = table.append_column(name, empty)
            lacking = [name for name in schema.names if name not in table.column_names]
            if lacking:
                raise ValueError(f"it has no column {lacking[0]}")
            table = pa.table([_cast(table[one.name], one.type) for one in schema], schema=schema)
        except Exception as error:  # whatever a file that somebody wrote makes pyarrow say
            raise ExchangeError(
                f"{self.path / file} is damaged ({first_line(error)}). Write the folder anew."
            ) from error
        for name in set(schema.names) - set(optional):
            if table[name].null_count:
                row = table[name].is_null().to_pylist().index(True)
                raise self._damage(file, row, f"it has no {name}")
        return table

    def _row_damage(self, row: int, why: str) -> ExchangeError:
        """What is wrong with a row of the tables of tokens."""
        for file in self.index.tokens:
            n_rows = pq.read_metadata(self.path / file).num_rows
            if row < n_rows:
                break
            row -= n_rows
        return self._damage(file, row, why)

    def _damage(self, file: str, row: int, why: str) -> ExchangeError:
        """row: from 0, as pandas counts."""
        return ExchangeError(
            f"{self.path / file} is damaged: row {row} can't be used, since {why}. Write the "
            "folder anew."
        )


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        return column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)
