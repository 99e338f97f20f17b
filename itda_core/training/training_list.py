"""A list of trainings: a TOML or JSON file with a table for each, named as on the command line.

[defaults]
max-tokens = 16384

[[training]]
model = ["tiny-6x128-0", "tiny-6x128-1"]    # several values stand for a training of each
layers = [2, 4]
"""

import difflib
import itertools
import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itda_core.config import TrainConfig, layers_in_words
from itda_core.errors import InputError, SettingError
from itda_core.files.foreign import read_foreign
from itda_core.settings import IMPORTED, MOVED, SELECTIONS
from itda_core.training.as_said import SAID_BY_FOLDER, TRAIN_OPTIONS, WORDS, config_as_said

MAX_TRAININGS = 10_000
_SAID_ONCE = ("device", "memory", "ray", "workers", "runs", "progress", "json")
_NO_PART = ("list", "resume", "config")


@dataclass(frozen=True)
class ListedTraining:
    """One training of a list."""

    number: int
    """in the list, from 1; a table with several values makes several"""
    table: int
    """the table that it is from, from 1"""
    config: TrainConfig

    @property
    def title(self) -> str:
        """What tells it from others, in a line."""
        config = self.config
        revision = f" at {config.model.revision}" if config.model.revision else ""
        layers = layers_in_words(config.layers, config.site)
        return f"{config.model.name}{revision}, {layers}, seed {config.seed}"


def read_list(file: Path) -> list[ListedTraining]:
    """The trainings of a file, in its order. Raises InputError, with the number of the table and
    the field, where one of them can't be trained."""
    try:
        text = read_foreign(file).decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error}.") from error
    return listed_trainings(text, str(file))


def listed_trainings(text: str, name: str) -> list[ListedTraining]:
    """The same of a file's content. name: the file, as messages call it."""
    defaults, tables = _tables(text, name)
    found: list[ListedTraining] = []
    for number, table in enumerate(tables, 1):
        where = f"{name}, training {number}"
        fields = _fields(table, where)
        fields = {**_fitting(defaults, fields), **fields}
        for said in _each(fields, where, MAX_TRAININGS - len(found)):
            found.append(ListedTraining(len(found) + 1, number, _config(said, where)))
    _refuse_twins(found, name)
    return found


def _tables(text: str, name: str) -> tuple[dict[str, Any], list[Any]]:
    """The defaults, and the tables of the trainings as they stand there."""
    content = _parsed(text, name)
    others = [key for key in content if key not in ("defaults", "training")]
    if others:
        raise InputError(
            f"{name} has {others[0]!r} beside its tables: put it under [defaults], or under "
            "[[training]] of one."
        )
    tables = content.get("training")
    if not isinstance(tables, list) or not tables:
        raise InputError(f"{name} lists no training: write [[training]] above the settings of one.")
    return _fields(content.get("defaults", {}), f"{name}, defaults"), tables


def _parsed(text: str, name: str) -> dict[str, Any]:
    """JSON where it begins with a brace, as TOML can't; else TOML."""
    is_json = text.lstrip("\ufeff \t\r\n").startswith("{")
    try:
        return json.loads(text.lstrip("\ufeff")) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "TOML"
        raise InputError(f"{name} can't be read as {kind}: {error}.") from error


def _fields(table: Any, where: str) -> dict[str, Any]:
    """A table by the names of a training's options. Raises InputError for one that has no place
    there."""
    if not isinstance(table, dict):
        raise InputError(f"{where} is no table of settings, but {table!r:.60}.")
    fields: dict[str, Any] = {}
    for word, value in table.items():
        key = word.replace("-", "_")
        if key in _SAID_ONCE:
            raise InputError(
                f"{where}: {word} holds for the whole list. Leave it out here, and give it on the "
                "command line or the page."
            )
        if key in _NO_PART or key not in TRAIN_OPTIONS:
            near = difflib.get_close_matches(key.replace("_", "-").lower(), WORDS, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            told = f"{where} has no setting {word!r:.60}. {meant}There are: {', '.join(WORDS)}."
            raise InputError(told)
        if key in fields:
            raise InputError(f"{where} says {word} twice, with - and with _: leave out one.")
        fields[key] = value
    return fields


def _fitting(defaults: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The defaults but for what another kind of training leaves no choice of."""
    if "activations" not in fields:
        return defaults
    return {key: value for key, value in defaults.items() if key not in SAID_BY_FOLDER}


def _each(fields: dict[str, Any], where: str, room: int) -> Iterator[dict[str, Any]]:
    """One for each combination of several values, the last named changing first."""
    choices = [_values(key, value, where) for key, value in fields.items()]
    count = 1
    for values in choices:
        count *= len(values)
    if count > room:
        raise InputError(
            f"{where} makes the list longer than {MAX_TRAININGS:,} trainings. Split it into "
            "several files."
        )
    for chosen in itertools.product(*choices):
        yield dict(zip(fields, chosen, strict=True))


def _values(key: str, value: Any, where: str) -> list[Any]:
    """Those that an entry stands for; layers are a list already, so that several lists of them
    stand for several trainings."""
    if value == []:
        raise InputError(
            f"{where}: {key.replace('_', '-')} has no value. Give one, or leave it out."
        )
    if key == "layers":
        is_several = isinstance(value, list) and all(isinstance(one, list) for one in value)
        return value if is_several else [value]
    return value if isinstance(value, list) else [value]


def _config(said: dict[str, Any], where: str) -> TrainConfig:
    if "layers" not in said and "activations" not in said:
        raise InputError(f"{where} lacks layers: give them, such as layers = [7, 15].")
    if said.get("selection") in (IMPORTED, MOVED):  # what a run's own settings may say
        raise InputError(
            f"{where}: selection must be {' or '.join(SELECTIONS)}, got {said['selection']!r}."
        )
    try:
        config = config_as_said(said)
        config.check()
        return config
    except SettingError as error:
        raise InputError(f"{where}: {error.named('word')}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_twins(found: list[ListedTraining], name: str) -> None:
    """The same training twice would only wait for itself."""
    alike: dict[TrainConfig, list[ListedTraining]] = {}
    for one in found:
        before = alike.setdefault(_wherever(one.config), [])
        for other in before:
            types = [training.config.model.dtype for training in (other, one)]
            if types[0] == types[1]:
                raise InputError(
                    f"{name}, training {one.table}: {one.title} stands there before, as training "
                    f"{other.table}. Leave out one, or tell them apart."
                )
            if "auto" in types:
                raise InputError(
                    f"{name}, training {one.table}: {one.title} may be training {other.table}, "
                    f"since the dtype auto may come to {max(types, key='auto'.__ne__)}. Leave out "
                    "one, or say both data types."
                )
        before.append(one)


def _wherever(config: TrainConfig) -> TrainConfig:
    """The same for each way of naming its files, and but for the data type."""
    model = replace(config.model, name=_place(config.model.name), dtype="auto")
    corpus = replace(config.corpus, name=_place(config.corpus.name))
    folder = config.activations and _place(config.activations)
    return replace(config, model=model, corpus=corpus, activations=folder)


def _place(name: str) -> str:
    """A file or folder by its path; any other name as it is."""
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    return str(Path(name).resolve()) if os.path.exists(name) else name  # noqa: PTH110
