"""The settings of a training: one table for page, command line and configuration file.

What a setting may be is checked here and nowhere else. A message names it as the person sees it:
"Atoms" on a page, `--max-atoms` on the command line, `max-atoms` in a list of trainings,
`max_atoms` in a file of one.
"""

import re
from dataclasses import dataclass
from typing import Any

from itda_core.errors import SettingError
from itda_core.glossary import GLOSSARY

SELECTIONS = ("coverage", "threshold")
OFFSETS = ("mean", "zero")
PURSUITS = ("orthogonal", "refit", "matching")
BUDGETS = ("token", "mean")
SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Places in a block, in the order in which they come"""
RESID_POST = SITES[-1]
"""Where activations are taken unless another place is asked for: what a block gives"""
DTYPES = ("auto", "float32", "bfloat16", "float16")
IMPORTED = "imported"
"""The selection of a dictionary that was made elsewhere: its configuration says how the prompts
were read, and can't be trained."""
MOVED = "moved"
"""The selection of a dictionary whose atoms are the sources of another one: nothing is chosen."""
MAX_SEED = 2**63 - 1
MAX_COUNT = 2**31 - 1
"""Positions, latents and their numbers are kept in 32 bits."""
MAX_TERMS = 2**15 - 1
"""Steps of a pursuit are kept in 16 bits."""

_KINDS = {
    "whole": ("a whole number", (int,)),
    "size": ("a whole number of bytes", (int,)),
    "number": ("a number", (int, float)),
    "switch": ("true or false", (bool,)),
    "text": ("text", (str,)),
}
"""By kind: what a value must be, and its types. To Python true and false are numbers; not here."""
_EXAMPLES = {
    "whole": "a whole number such as 2048",
    "number": "a number like 0.2",
    "size": "a size such as 8GiB or 500MB",
}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kmgt]?)(i?)b", re.IGNORECASE)
_LONGEST = 60
"""Characters of a value that a message shows"""


@dataclass(frozen=True)
class Setting:
    """Something that a person sets: how it is called, and what it may be."""

    key: str
    """its name in a configuration file and in the library"""
    label: str = ""
    """its name on a page"""
    kind: str = "whole"
    """whole (number), number, size (in bytes), switch, or text"""
    help: str = ""
    """what it is, in a few words, as the command line shows it"""
    advice: str = ""
    """what to know before it is changed; a page shows it after `help`"""
    min: float | None = None
    max: float | None = None
    below: str = ""
    """what to say of a value below `min`, where "at least" would not do"""
    choices: tuple[str, ...] = ()
    """of a text, where not every one will do"""
    is_open: bool = False
    """whether None stands for what goes without saying"""

    @property
    def word(self) -> str:
        """Its name in a list of trainings."""
        return self.key.replace("_", "-")

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return f"--{self.word}"

    @property
    def page_help(self) -> str:
        """`help` and `advice` as sentences."""
        help = f"{self.help[:1].upper()}{self.help[1:]}"
        return " ".join(filter(None, (f"{help}." if help else "", self.advice)))

    def check(self, value: Any) -> None:
        """Raises SettingError where the setting can't be `value`."""
        if value is None and self.is_open:
            return
        words, types = _KINDS[self.kind]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self._refusal(words, value)
        if self.choices and value not in self.choices:
            raise self._refusal(f"one of {', '.join(self.choices)}", value)
        if self.min is not None and value < self.min and self.below:
            raise SettingError(f"{self.below}, got {value!r}.", self)
        if self.min is not None and value < self.min:
            raise self._refusal(f"at least {self.min:,}", value)
        if self.max is not None and value > self.max:
            raise self._refusal(f"at most {self.max:,}", value)
        if value != value:  # not a number is neither above nor below
            raise self._refusal(f"between {self.min:,} and {self.max:,}", value)

    def read(self, text: str) -> int | float:
        """The number that a person typed; of a size, its bytes. Raises SettingError where it is
        none that will do."""
        read = {"whole": int, "size": _bytes_of}.get(self.kind, float)
        try:
            value = read(text)
        except ValueError:
            raise self._refusal(_EXAMPLES[self.kind], text) from None
        self.check(value)
        return value

    def _refusal(self, words: str, value: Any) -> SettingError:
        given = "nothing" if value == "" else repr(value)
        if len(given) > _LONGEST:
            given = f"{given[:_LONGEST]} …"
        return SettingError(f"{{0}} must be {words}, got {_braces_doubled(given)}.", self)


def _bytes_of(text: str) -> int:
    """8GiB is 8 · 2^30 bytes, 8GB is 8 · 10^9, 8B is 8. Raises ValueError where it is no number
    with its unit."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise ValueError(text)
    step = 1024 if found[3] else 1000
    return round(float(found[1]) * step ** (" kmgt".index(found[2].lower() or " ")))


def _braces_doubled(text: str) -> str:
    """A text as part of the sentence of a SettingError, in which braces stand for names."""
    return text.replace("{", "{{").replace("}", "}}")


_TRAINING = (
    Setting(
        "model",
        "Model",
        "text",
        "built-in name, hub id or folder",
        "A built-in model, one from the hub such as EleutherAI/pythia-70m, or the path of a folder "
        "with config.json and safetensors. Type a new one to add it.",
    ),
    Setting(
        "revision",
        "Revision",
        "text",
        "revision of a hub model",
        "Branch, tag or commit: a training checkpoint such as step1000.",
        is_open=True,
    ),
    Setting(
        "dtype",
        "Data type",
        "text",
        "data type of the weights",
        "auto: bfloat16 where this machine computes faster in it, else float32.",
        choices=DTYPES,
    ),
    Setting("corpus", "Corpus", "text", "built-in name, file or hub data set"),
    Setting(
        "column",
        "Column that holds the texts (where it has several)",
        "text",
        "the corpus' text column",
        is_open=True,
    ),
    Setting(
        "layers",
        "Layers",
        help="numbers from 0, such as 7,15,22",
        min=0,
        max=MAX_COUNT,
        below="Layers count from 0",
    ),
    Setting(
        "site",
        "Place in the block",
        "text",
        "place in the block",
        GLOSSARY["site"],
        choices=SITES,
    ),
    Setting(
        "max_tokens",
        "Tokens",
        help="activations read, per layer",
        advice="A dictionary that is full takes no more of them.",
        min=1,
        max=MAX_COUNT,
    ),
    Setting(
        "context_length",
        "Context length",
        help="longer prompts are cut to this many tokens",
        min=2,
        max=MAX_COUNT,
    ),
    Setting(
        "max_atoms",
        "Atoms",
        help="size of a dictionary",
        advice="More atoms reconstruct better and differ less.",
        min=1,
        max=MAX_COUNT,
    ),
    Setting(
        "l0",
        "L0",
        help="terms that one token may use",
        advice="Fewer are easier to read, more lose less.",
        min=1,
        max=MAX_TERMS,
    ),
    Setting(
        "selection",
        "Method",
        "text",
        "which activations become atoms; threshold is the paper's method",
        f"{GLOSSARY['selection']} With both every atom is the activation of a real token.",
        choices=(*SELECTIONS, IMPORTED, MOVED),
    ),
    Setting(
        "offset",
        "Subtract first (offset)",
        "text",
        "subtracted before pursuit (mean with coverage, zero with threshold)",
        f"{GLOSSARY['offset']} Without the mean activation, atoms need not explain what all tokens "
        "have in common.",
        choices=OFFSETS,
        is_open=True,
    ),
    Setting(
        "pursuit",
        "Pursuit",
        "text",
        "how activations are decomposed (orthogonal with coverage, matching with threshold)",
        "How a token is written as a sum of atoms.",
        choices=PURSUITS,
        is_open=True,
    ),
    Setting(
        "budget",
        "Terms",
        "text",
        "whether L0 holds for every token or on average",
        "On average: tokens that are easy to explain use fewer terms than L0, others up to twice "
        "as many; only with the orthogonal pursuit.",
        choices=BUDGETS,
    ),
    Setting(
        "threshold",
        "Threshold",
        "number",
        "error above which an activation becomes an atom",
        "The squared error of its direction. Lower fills the dictionary sooner.",
        min=0,
        max=4,
    ),
    Setting(
        "seed",
        "Seed",
        help="order of the prompts",
        advice="Compare only dictionaries with the same seed.",
        min=0,
        max=MAX_SEED,
    ),
    Setting(
        "explored_tokens",
        "Explored tokens",
        help="activations encoded for browsing",
        min=0,
        max=MAX_COUNT,
    ),
    Setting(
        "skip_first",
        "Leave out first positions",
        "switch",
        "leave out the first position of each prompt",
        "In most models it is an attention sink with a huge norm and no content.",
    ),
    Setting(
        "batch_tokens",
        "Tokens in a step",
        help="activations in one step of the threshold selection",
        advice="The atoms of one step do not know of each other: smaller steps choose better and "
        "take longer.",
        min=1,
        max=MAX_COUNT,
    ),
    Setting(
        "activations",
        "Folder of activations",
        "text",
        "folder of activations to train from, in place of a model and a corpus",
        "The path of a folder that `itda capture` wrote, or another program in the same format.",
        is_open=True,
    ),
    Setting("moved_from", "Moved from", "text", "run whose latents these are", is_open=True),
)
SETTINGS = {setting.key: setting for setting in _TRAINING}
"""Of a training, by key"""
MEMORY = Setting(
    "memory",
    "Memory that may be used",
    "size",
    "memory that the model's weights may take (the rest of the process, about 1 GB, comes on top)",
    "It bounds the model's weights. What else a training needs comes on top, about 1 GB, more with "
    "many atoms: the estimate counts it. A model that needs more is read block by block, all "
    "tokens through each. What is trained does not depend on it.",
    min=2**20,
    max=2**60,
    below="{0} must be at least 1MiB",
    is_open=True,
)
"""Of the device where a model computes: no part of a training's identity."""
