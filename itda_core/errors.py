"""Errors that people read: each message says what happened and what to do next."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_NAMED = 20
"""Errors that one message names"""


class ItdaError(Exception):
    """Something failed; the message names the remedy. The command line exits with 1."""

    exit_code = 1


class InputError(ItdaError):
    """What was asked for can't be done as asked. The command line exits with 2."""

    exit_code = 2


class SettingError(InputError):
    """A setting can't be what was given. The message names settings by their keys, as a
    configuration file does; `named` as the command line or a page does."""

    def __init__(self, sentence: str, *settings: object):
        """sentence: {0} stands for the name of the first of `settings.Setting`, and so on."""
        self._sentence, self._settings = sentence, settings
        super().__init__(self.named("key"))

    def named(self, by: str) -> str:
        """The message; by: key, word, option or label, whichever the person sees."""
        return self._sentence.format(*(getattr(setting, by) for setting in self._settings))


class CorpusError(InputError):
    """The texts can't be read: no such corpus, wrong format, missing column, nothing in it."""


class FullMemory(InputError):
    """Not even the smallest part of some work fits into memory. What called for it may have a
    smaller part to try."""


class ModelError(InputError):
    """The model can't be loaded, or it is not one whose layers can be captured."""


class WeightsGone(ModelError):
    """The files of a model that is read block by block can't be read any more, or are other ones
    now, which says nothing of the model."""


class ComparisonError(InputError):
    """Two dictionaries can't be compared, for the reason given."""


class ExchangeError(InputError):
    """A folder can't be read as the dictionary it is said to be, or written as asked."""


class HubError(ItdaError):
    """The hub can't be reached, or it refuses."""


class StoreError(ItdaError):
    """The database is locked, damaged or from another version."""


class StoreNotOursError(StoreError):
    """Another process has the database, a newer version wrote it, or the machine can't read it now:
    it must be left alone."""


class StoreInUseError(StoreNotOursError):
    """Another process has the database."""


class StoreOutOfReachError(StoreNotOursError):
    """The disk or its rights are in the way, which says nothing against the database."""


class StoreOutdatedError(StoreError):
    """An older version wrote the database; the run directories have all that is in it."""


class StoreDamagedError(StoreError):
    """The database can't be opened or read; a rebuild makes it anew."""


class RunError(ItdaError):
    """A run directory is missing, incomplete, damaged or in use."""


class TrainingHeld(RunError):
    """Another process works on this training."""

    def __init__(self, message: str, directory: "Path"):
        super().__init__(message)
        self.directory = directory
        """the training's own"""


def together(errors: "Sequence[ItdaError]") -> ItdaError | None:
    """Several errors of what is taken into the database as one, a line each; None where there are
    none. It is a StoreError where one of them is."""
    if len(errors) < 2:
        return errors[0] if errors else None
    messages = [*dict.fromkeys(map(str, errors))]
    more = len(messages) - _NAMED
    lines = "\n".join(f"- {message}" for message in messages[:_NAMED])
    lines += f"\n- and {more:,} more" if more > 0 else ""
    kind = StoreError if any(isinstance(one, StoreError) for one in errors) else RunError
    return kind(f"{len(errors):,} things can't be taken in; all others are there.\n{lines}")


_OF_MEMORY = (
    "out of memory", "allocate memory", "enough memory", "alloc_failed", "bad allocation",
    "bad_alloc", "failed to allocate",
)  # fmt: skip
"""How libraries say that there is none"""


def is_of_memory(error: BaseException) -> bool:
    """Whether something failed because the memory was full, as far as its words tell."""
    return isinstance(error, MemoryError) or speaks_of_memory(str(error))


def speaks_of_memory(message: str) -> bool:
    """Whether the words of an error say that the memory was full."""
    return any(words in message.lower() for words in _OF_MEMORY)


def first_line(error: BaseException) -> str:
    """What an error says first, or its kind where it says nothing: CUDA's and DuckDB's go on with
    what is of no use to a person."""
    return next(iter(str(error).splitlines()), type(error).__name__)
