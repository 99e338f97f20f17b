"""activations.json: what a folder of activations says of itself; see docs/activations.md."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from itda_core.config import CorpusSpec, ModelSpec
from itda_core.errors import ExchangeError, InputError
from itda_core.files.json_files import read_json, write_json
from itda_core.settings import RESID_POST, SITES

FORMAT = 1
INDEX_FILE = "activations.json"
PROMPTS_FILE = "prompts.parquet"
TOKENS_FILE = "tokens.parquet"
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Part:
    """Rows that lie together."""

    rows: int
    files: tuple[str, ...]
    """safetensors files, which have one tensor for each layer and site among them"""


@dataclass(frozen=True)
class FolderIndex:
    """Whose activations a folder holds, of which places and tokens, and in which files."""

    model: ModelSpec
    """with the data type that it computed in"""
    d_model: int
    n_layers: int
    layers: tuple[int, ...]
    context_length: int
    skip_first: bool
    """whether the first position of each prompt has no activation"""
    parts: tuple[Part, ...]
    sites: tuple[str, ...] = (RESID_POST,)
    model_digest: str | None = None
    """the model's content, as `load_model` names it; None where that is not known"""
    tokenizer: str = ""
    """digest of the tokenizer; "" where it is not known"""
    put_in: dict[str, list[str]] = field(default_factory=lambda: {"before": [], "after": []})
    """names of the tokens that the tokenizer puts before and after each text"""
    seed: int | None = None
    """by which the prompts are in order; None where they are in one of their own"""
    corpus: CorpusSpec | None = None
    """where the prompts are from; None where that can't be read again"""
    corpus_digest: str | None = None
    """of all prompts of that corpus"""
    left_out: dict[str, int] = field(default_factory=dict)
    """texts of the corpus that are no prompts, and how many: "empty", "repeated", "unreadable" """
    tokens: tuple[str, ...] = (TOKENS_FILE,)
    """the tables of tokens, one after another a row for each row of the parts"""
    training_id: str = ""
    """names the capture that wrote the folder"""

    @property
    def total_rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        corpus = None
        if self.corpus:
            corpus = {**self.corpus.to_dict(), "digest": self.corpus_digest} | {
                "left_out": self.left_out
            }
        return {
            "format": FORMAT,
            "model": {
                "name": self.model.name,
                "revision": self.model.revision,
                "dtype": self.model.dtype,
                "digest": self.model_digest,
                "d_model": self.d_model,
                "n_layers": self.n_layers,
                "tokenizer": self.tokenizer,
                "put_in": self.put_in,
            },
            "layers": list(self.layers),
            "sites": list(self.sites),
            "context_length": self.context_length,
            "skip_first": self.skip_first,
            "seed": self.seed,
            "corpus": corpus,
            "tokens": list(self.tokens),
            "parts": [{"rows": part.rows, "files": list(part.files)} for part in self.parts],
            "training_id": self.training_id,
        }

    def write(self, folder: Path) -> None:
        """Make the folder whole: this file comes last."""
        write_json(folder / INDEX_FILE, self.to_dict())


def read_index(folder: Path) -> FolderIndex:
    """What a folder says of itself. Raises ExchangeError where that is missing or can't be."""
    path = folder / INDEX_FILE
    # pathlib's own tests raise for names that no folder can have, such as very long ones.
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ExchangeError(f"There is no folder of activations {folder}. Check the path.")
    if not path.exists():
        raise ExchangeError(
            f"{folder} is no folder of activations: it has no {INDEX_FILE}, which is written last. "
            "Let its capture end, or name another folder."
        )
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{path} can't be read: {error}.") from error
    try:
        return _index(_Fields(path, "", content))
    except InputError as error:
        if isinstance(error, ExchangeError):
            raise
        raise ExchangeError(f"{path} can't be used. {error}") from error


def _index(top: "_Fields") -> FolderIndex:
    version = top.number("format", 1)
    if version > FORMAT:
        raise ExchangeError(f"{top.path} is of a newer version: update the explorer.")
    model, corpus = top.inner("model"), top.inner("corpus", is_open=True)
    index = FolderIndex(
        model=ModelSpec(model.text("name"), model.text("revision", True), model.text("dtype")),
        model_digest=model.text("digest", True),
        d_model=model.number("d_model", 1),
        n_layers=model.number("n_layers", 1),
        tokenizer=model.text("tokenizer", True) or "",
        put_in=_put_in(model.inner("put_in", is_open=True)),
        layers=tuple(top.numbers("layers")),
        sites=tuple(top.texts("sites")),
        context_length=top.number("context_length", 2),
        skip_first=top.switch("skip_first"),
        seed=top.number("seed", 0, is_open=True),
        corpus=_corpus_spec(corpus),
        corpus_digest=corpus and corpus.text("digest"),
        left_out=_left_out(corpus and corpus.inner("left_out", is_open=True)),
        tokens=tuple(top.file_names("tokens")),
        parts=tuple(
            Part(part.number("rows", 1), tuple(part.file_names("files")))
            for part in top.inners("parts")
        ),
        training_id=top.text("training_id", True) or "",
    )
    _check(top, index)
    return index


def _check(top: "_Fields", index: FolderIndex) -> None:
    """What fields have to be to each other."""
    if index.model.dtype == "auto":
        raise top.refusal("model.dtype", "the data type that the model computed in")
    wrong = [layer for layer in index.layers if layer >= index.n_layers]
    if wrong or len(set(index.layers)) < len(index.layers):
        raise top.refusal("layers", f"different numbers from 0 to {index.n_layers - 1}")
    if set(index.sites) - set(SITES) or len(set(index.sites)) < len(index.sites):
        raise top.refusal("sites", f"different ones of {', '.join(SITES)}")
    files = [name for part in index.parts for name in part.files] + list(index.tokens)
    if len(set(files)) < len(files):
        raise top.refusal("parts", "parts of different files")


def _put_in(found: "_Fields | None") -> dict[str, list[str]]:
    sides = ("before", "after")
    return {side: found.texts(side, 0) if found else [] for side in sides}


def _corpus_spec(found: "_Fields | None") -> CorpusSpec | None:
    names = [one.name for one in fields(CorpusSpec)]
    return found and CorpusSpec(**{"name": None} | found.some(names))


def _left_out(found: "_Fields | None") -> dict[str, int]:
    return {name: found.number(name, 0) for name in found.content} if found else {}


class _Fields:
    """The fields of a JSON object; what is wrong with one is said by its name."""

    def __init__(self, path: Path, name: str, content: Any):
        self.path, self._name, self.content = path, name, content
        if not isinstance(content, dict):
            raise self.refusal("", "a JSON object")

    def refusal(self, name: str, words: str) -> ExchangeError:
        where = ".".join(filter(None, (self._name, name)))
        found = self.content.get(name) if name and isinstance(self.content, dict) else self.content
        return ExchangeError(
            f"{self.path} can't be used: {where or 'it'} must be {words}, got {found!r:.60}."
        )

    def _get(self, name: str, is_right: Callable[[Any], bool], words: str, is_open: bool) -> Any:
        value = self.content.get(name)
        if not (value is None and is_open) and not is_right(value):
            raise self.refusal(name, words)
        return value

    def number(self, name: str, least: int, is_open: bool = False) -> Any:
        words = f"a whole number of at least {least}"
        return self._get(name, lambda value: _is_number(value, least), words, is_open)

    def text(self, name: str, is_open: bool = False) -> Any:
        return self._get(name, lambda value: isinstance(value, str), "text", is_open)

    def switch(self, name: str) -> bool:
        return self._get(name, lambda value: isinstance(value, bool), "true or false", False)

    def numbers(self, name: str) -> list[int]:
        return self._list(name, lambda value: _is_number(value, 0), "whole numbers")

    def texts(self, name: str, least: int = 1) -> list[str]:
        return self._list(name, lambda value: isinstance(value, str), "texts", least)

    def file_names(self, name: str) -> list[str]:
        """A name leads nowhere outside of the folder."""
        words = "names of files in this folder"
        return self._list(name, lambda value: bool(_is_file_name(value)), words)

    def inner(self, name: str, is_open: bool = False) -> "_Fields | None":
        value = self._get(name, lambda value: isinstance(value, dict), "a JSON object", is_open)
        return None if value is None else _Fields(self.path, name, value)

    def inners(self, name: str) -> list["_Fields"]:
        found = self._list(name, lambda value: isinstance(value, dict), "JSON objects")
        return [_Fields(self.path, f"{name}[{row}]", value) for row, value in enumerate(found)]

    def some(self, names: list[str]) -> dict[str, Any]:
        return {name: self.content[name] for name in names if name in self.content}

    def _list(
        self, name: str, is_right: Callable[[Any], bool], words: str, least: int = 1
    ) -> list[Any]:
        def are_right(value: Any) -> bool:
            return isinstance(value, list) and len(value) >= least and all(map(is_right, value))

        return self._get(name, are_right, f"a list of {words}", False)


def _is_number(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and bool(_FILE_NAME.fullmatch(value))
