"""What a training is made of, as frozen dataclasses; their fields are its identity."""

import codecs
import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from itda_core.digests import digest
from itda_core.errors import InputError, SettingError
from itda_core.hook_point import HookPoint as HookPoint
from itda_core.hook_point import Origin
from itda_core.hook_point import layer_in_words as layer_in_words
from itda_core.hook_point import layers_in_words as layers_in_words
from itda_core.settings import IMPORTED, MAX_SEED, MAX_TERMS, MOVED, RESID_POST, SETTINGS

CONFIG_VERSION = 3
"""2: prompts are captured in windows and selected from in steps; "auto" is written down as what it
came to. 3: offset and pursuit. It is part of a training's identity."""
MAP_METHODS = ("umap", "svd")
MEAN_BUDGET_CAP = 2
"""With the budget "mean" a token may use so many times L0 terms."""
_USUAL = {"coverage": ("mean", "orthogonal")}
"""Offset and pursuit that go with a selection; the published ones with any other."""
_PUBLISHED = ("zero", "matching")
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "unicode-escape", "raw_unicode_escape",
                 "raw-unicode-escape", "undefined", "utf-7")  # fmt: skip
"""Ways of escaping, and not of writing"""
_OF_LEFTOVERS = ("writing-", "deleted-")
"""Begins a hidden folder that nobody comes back to (leftovers.py); one of a training must not"""
_CHECKED = ("model", "corpus", "layers", "moved_from")
"""Fields of a training that are checked by themselves"""


@dataclass(frozen=True)
class ModelSpec:
    """Which model: a built-in name, a hub id or a local folder."""

    name: str
    revision: str | None = None
    dtype: str = "auto"
    """Data type of the weights: "auto" is bfloat16 where the device computes faster in it, else
    float32. A run keeps what it came to."""

    def __post_init__(self) -> None:
        SETTINGS["model"].check(self.name)
        SETTINGS["revision"].check(self.revision)
        SETTINGS["dtype"].check(self.dtype)
        if not self.name.strip():
            raise InputError("Give a model: a built-in name, a hub id or a local folder.")


@dataclass(frozen=True)
class CorpusSpec:
    """Which texts: a built-in corpus, a file (.txt .csv .tsv .jsonl .parquet, the former also as
    .gz or .zst) or a hub data set.

    How a file is read is None where it is what the file shows: commas, the quotation mark ", a
    header and UTF-8. A run keeps what was taken of other kinds.
    """

    name: str
    column: str | None = None
    """The column that holds the texts, where the format has columns and the choice is open."""
    separator: str | None = None
    """Of a .csv or .tsv: the character between two fields."""
    quote: str | None = None
    """Of a .csv or .tsv: the character around fields; "" where quotation marks are text."""
    header: bool | None = None
    """Of a .csv or .tsv: whether the first row names the columns."""
    encoding: str | None = None
    """Of a text file, as Python calls it."""

    def __post_init__(self) -> None:
        SETTINGS["corpus"].check(self.name)
        SETTINGS["column"].check(self.column)
        if not self.name.strip():
            raise InputError("Give a corpus: a built-in name, a file or a hub data set.")
        _require_mark("separator", self.separator, ("\r", "\n", '"', ""))
        _require_mark("quote", self.quote, ("\r", "\n", " "))
        if self.separator is not None and self.separator == self.quote:
            raise InputError(f"separator and quote are both {self.quote!r}: choose two.")
        if self.header not in (None, True, False) or isinstance(self.header, int | float) != (
            isinstance(self.header, bool)
        ):
            raise InputError(f"header must be true or false, got {self.header!r}.")
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _text_encoding(self.encoding))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types. How the file is read stands in it only where it was said, as
        in the configurations of before, whose ids are made from it."""
        fields = dataclasses.asdict(self)
        always = ("name", "column")
        return {
            name: value for name, value in fields.items() if name in always or value is not None
        }


@dataclass(frozen=True)
class TrainConfig:
    """One training: several layers in one pass over the prompts, one dictionary for each."""

    model: ModelSpec
    corpus: CorpusSpec
    layers: tuple[int, ...]
    """Blocks whose output, or another place in them, is decomposed, 0 first."""
    max_tokens: int = 65_536
    """Activations that the selection may choose from, per layer."""
    context_length: int = 128
    """Longer prompts are cut to this many tokens."""
    max_atoms: int = 2_048
    """A dictionary with this many atoms is full."""
    l0: int = 32
    """Terms that one token may use; see `budget`."""
    selection: str = "coverage"
    """Which activations become atoms: "coverage" chooses among many those that explain the others
    best; "threshold" is the paper's greedy method."""
    offset: str | None = None
    """What is subtracted before pursuit: the "mean" activation or "zero". None is what goes with
    the selection: the mean with coverage, zero with the threshold."""
    pursuit: str | None = None
    """How an activation is decomposed: "orthogonal" refits all coefficients after each step,
    "refit" once at the end, "matching" never, as published. None is what goes with the selection:
    orthogonal with coverage, matching with the threshold."""
    budget: str = "token"
    """What L0 holds for: every "token", or the "mean" over tokens. Then tokens that are easy to
    explain use fewer terms, and others up to twice as many."""
    threshold: float = 0.2
    """Of the threshold selection: squared distance of unit vectors, in [0, 4], above which an
    activation becomes an atom."""
    seed: int = 0
    """Order of the prompts, and what the coverage draws by chance."""
    explored_tokens: int = 65_536
    """Activations encoded after training for browsing; at most `max_tokens` of them."""
    skip_first: bool = True
    """Leave out the first position of each prompt, an attention sink in most models."""
    batch_tokens: int = 2_048
    """Activations in one step of the threshold selection, at most; a short training takes smaller
    ones. Smaller steps choose better, since the atoms of one step do not know of each other."""
    site: str = RESID_POST
    """The place in the block, one of `settings.SITES`: by default its output."""
    activations: str | None = None
    """A folder of activations that were captured before, read in place of model and corpus."""
    moved_from: Origin | None = None
    """Of the selection "moved": the run whose sources become the atoms."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        for field in dataclasses.fields(self):
            if field.name not in _CHECKED:
                SETTINGS[field.name].check(getattr(self, field.name))
        self._complete_method()
        self._check_budget()
        if (self.selection == MOVED) != (self.moved_from is not None):
            raise InputError(
                "A dictionary is moved from a run: give its id with `itda move`, or on the page."
            )
        if self.max_atoms > self.max_tokens and self.selection not in (IMPORTED, MOVED):
            raise SettingError(
                f"{{0}} ({self.max_atoms:,}) is more than {{1}} ({self.max_tokens:,}): "
                "every atom is a token, so ask for fewer atoms or more tokens.",
                SETTINGS["max_atoms"],
                SETTINGS["max_tokens"],
            )

    def _complete_method(self) -> None:
        offset, pursuit = _USUAL.get(self.selection, _PUBLISHED)
        object.__setattr__(self, "offset", self.offset or offset)
        object.__setattr__(self, "pursuit", self.pursuit or pursuit)
        if self.selection == "threshold" and self.offset != "zero":
            raise InputError(
                "The threshold selection takes its first atoms before a mean is known: its offset "
                "is zero. Choose the selection coverage for an offset."
            )

    def _check_budget(self) -> None:
        if self.budget == "mean" and (self.offset, self.pursuit) != ("mean", "orthogonal"):
            raise InputError(
                "An L0 that holds on average needs the selection coverage with the mean as offset "
                "and the orthogonal pursuit. Choose those, or the budget token."
            )
        if self.max_terms > MAX_TERMS:
            most = MAX_TERMS // MEAN_BUDGET_CAP
            raise SettingError(
                f"{{0}} must be at most {most:,} where it holds on average, got {self.l0}.",
                SETTINGS["l0"],
            )

    @property
    def max_terms(self) -> int:
        """Terms that one token may use."""
        return self.l0 * (MEAN_BUDGET_CAP if self.budget == "mean" else 1)

    @property
    def method(self) -> str:
        """Selection, offset and pursuit in a few words, as lists show them."""
        if self.selection == IMPORTED:
            return IMPORTED
        if self.moved_from is not None:
            return f"moved from {self.moved_from.in_words}"
        parts = [self.selection]
        if self.selection == "threshold":
            parts[0] += f" {self.threshold:g}"
        usual = _USUAL.get(self.selection, _PUBLISHED)
        if self.offset != usual[0]:
            parts.append(f"offset {self.offset}")
        if self.pursuit != usual[1]:
            parts.append(f"{self.pursuit} pursuit")
        if self.budget == "mean":
            parts.append("L0 on average")
        return ", ".join(parts)

    def with_dtype(self, dtype: str) -> "TrainConfig":
        """The same training with the data type that "auto" came to on this machine."""
        return self.but(model=dataclasses.replace(self.model, dtype=dtype))

    def but(self, **fields: Any) -> "TrainConfig":
        """A copy with some fields changed; a seed that only `of_finished` lets pass stays."""
        seed = fields.pop("seed", self.seed)
        if seed >= 0 or seed != self.seed:
            return dataclasses.replace(self, **fields, seed=seed)
        copy = dataclasses.replace(self, **fields, seed=0)
        object.__setattr__(copy, "seed", seed)
        return copy

    def check(self) -> None:
        """Raises SettingError where this can't be trained: see `of_finished`. Runs of before with
        more terms than atoms stay readable."""
        dataclasses.replace(self)
        # Plain matching pursuit takes an atom again; what is fitted together has one term for each.
        may_repeat = self.pursuit == "matching" or self.selection in (IMPORTED, MOVED)
        if self.l0 > self.max_atoms and not may_repeat:
            raise SettingError(
                f"{{0}} ({self.l0:,}) is more than {{1}} ({self.max_atoms:,}): a token can't use "
                "more terms than there are atoms, so ask for fewer terms or more atoms.",
                SETTINGS["l0"],
                SETTINGS["max_atoms"],
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, with the format's version. What other trainings
        lack stands in it only where it was chosen, as in the configurations of before, whose ids
        are made from it."""
        fields = {**dataclasses.asdict(self), "corpus": self.corpus.to_dict()}
        if self.site == RESID_POST:
            del fields["site"]
        if self.activations is None:
            del fields["activations"]
        del fields["moved_from"]
        if self.moved_from is not None:
            fields["moved_from"] = self.moved_from.to_dict()
        return {"version": CONFIG_VERSION, **fields}

    @classmethod
    def from_dict(cls, fields: Any) -> "TrainConfig":
        """The inverse of `to_dict`. Raises InputError where a field is unknown, missing, or not
        what it may be."""
        fields = _as_object("a training configuration", fields)
        _check_version(fields.pop("version", CONFIG_VERSION))
        _check_names(
            "A training configuration", fields, [one.name for one in dataclasses.fields(cls)]
        )
        model = _spec(ModelSpec, "model", fields.pop("model", None))
        corpus = _spec(CorpusSpec, "corpus", fields.pop("corpus", None))
        origin = fields.pop("moved_from", None)
        fields["moved_from"] = None if origin is None else Origin.from_dict(origin)
        return cls(model=model, corpus=corpus, layers=fields.pop("layers", None), **fields)

    @classmethod
    def of_finished(cls, fields: dict[str, Any]) -> "TrainConfig":
        """What a finished run was trained with. Earlier versions took seeds below 0 for the
        threshold selection: such a run stays readable, and can't be trained anew."""
        fields = _as_object("a training configuration", fields)
        seed = fields.get("seed", 0)
        if type(seed) is not int or not -MAX_SEED <= seed < 0:
            return cls.from_dict(fields)
        config = cls.from_dict({**fields, "seed": 0})
        object.__setattr__(config, "seed", seed)
        return config

    def training_id(self, model_digest: str, corpus_digest: str) -> str:
        """Names the training after the model and a digest of all that decides its result.

        The digests stand for what the names can't: a folder or file whose content has changed.
        Where a folder of activations lies says nothing of it, nor does its name for the corpus.
        """
        fields = {**self.to_dict(), "digests": [model_digest, corpus_digest]}
        if self.activations is not None:
            del fields["activations"], fields["corpus"]
        content = json.dumps(fields, sort_keys=True)
        name = slug(self.model.name)
        name = f"model-{name}" if f"{name}-".startswith(_OF_LEFTOVERS) else name
        return f"{name}-{digest(content, size=4)}"


def run_id(training_id: str, layer: int) -> str:
    """One training makes a run for each layer: `smollm2-135m-1f0e9a3c-L07`."""
    return f"{training_id}-L{layer:02d}"


def slug(name: str) -> str:
    """A short name made of letters, digits, dots and dashes, safe as part of a file name."""
    last = name.rstrip("/\\").replace("\\", "/").split("/")[-1]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.")[:40] or "model"


def _require_mark(name: str, value: str | None, refused: tuple[str, ...]) -> None:
    if value is None:
        return
    if not isinstance(value, str) or len(value) > 1 or value in refused or not value.isascii():
        raise InputError(f"{name} must be one character such as ; or tab, got {value!r}.")


def _text_encoding(name: str) -> str:
    """An encoding as Python calls it, whichever of its names was given."""
    try:
        found = codecs.lookup(name)
        b"text".decode(found.name)
    except (LookupError, TypeError, ValueError):
        found = None
    if found is None or not found._is_text_encoding or found.name in _NO_ENCODINGS:
        raise InputError(
            f"encoding must be one that Python knows, such as utf-16 or cp1252, got {name!r}."
        )
    return found.name


def _check_layers(layers: Any) -> None:
    if not isinstance(layers, tuple | list):
        raise InputError(f"Layers are a list of whole numbers, got {layers!r}.")
    if not layers:
        raise InputError("Choose at least one layer.")
    for layer in layers:
        SETTINGS["layers"].check(layer)


def _check_version(version: Any) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"The version of a configuration is a whole number, got {version!r}.")
    if version > CONFIG_VERSION:
        raise InputError("This configuration is from a newer version: update the explorer.")


def _spec(kind: type, name: str, fields: Any) -> Any:
    """A ModelSpec or CorpusSpec of a configuration file."""
    fields = _as_object(name, fields)
    _check_names(name, fields, [field.name for field in dataclasses.fields(kind)])
    return kind(**{"name": None, **fields})


def _as_object(what: str, fields: Any) -> dict[str, Any]:
    """A copy of a JSON object."""
    if not isinstance(fields, dict):
        raise InputError(f"There has to be {what} as a JSON object, got {fields!r:.60}.")
    return dict(fields)


def _check_names(what: str, fields: dict[str, Any], known: list[str]) -> None:
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise InputError(f"{what} has no field {unknown[0]!r}; it has {', '.join(known)}.")
