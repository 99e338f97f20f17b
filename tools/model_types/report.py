"""What a sweep found, for people (docs/models.md) and for the explorer (types.json)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from itda_core.files.writing import write_atomically
from itda_core.model.abilities import ABOUT, Abilities
from itda_core.model.known_types import FILE, SWEEP
from itda_core.model.sites import Sites
from itda_core.settings import SITES
from tools.model_types.listing import ModelType

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@dataclass(frozen=True)
class Found:
    """What was found of one type: one of `not_built`, `refused` and `abilities`."""

    type: ModelType
    not_built: str = ""
    """why there is no tiny model of it"""
    refused: str = ""
    """what `load_model` said"""
    abilities: Abilities | None = None
    wrong: str = ""
    """what it claims and does not do, which must never be"""
    part: str = ""
    """what ends the name with which it is loaded, such as ":encoder" """
    layers: int = 0
    sites: Sites = field(default_factory=Sites)
    """which places in a block it has, and why not the others"""
    not_swept: str = ""
    """why it can't be read block by block"""

    @property
    def in_words(self) -> str:
        """One line on a terminal."""
        if self.not_built or self.refused or self.wrong:
            return next(
                f"{name}: {reason}"
                for name, reason in (
                    ("not built", self.not_built),
                    ("refused", self.refused),
                    ("WRONG", self.wrong),
                )
                if reason
            )
        lacking = [about for name, about in ABOUT.items() if getattr(self.abilities, name)]
        return f"without {', '.join(lacking)}" if lacking else "everything"


def write_reports(found: Sequence[Found]) -> None:
    """The document, and what the Train page tells of a type before a model is loaded."""
    write_atomically(DOCUMENT, document(found).encode())
    content = {"transformers": metadata.version("transformers"), "types": shipped(found)}
    write_atomically(FILE, (json.dumps(content, indent=0) + "\n").encode())


def shipped(found: Sequence[Found]) -> dict[str, dict[str, str]]:
    """By class, and by class and part, what each lacks: reasons by ability; nothing of a type that
    does everything."""
    types: dict[str, dict[str, str]] = {}
    for one in found:
        if one.abilities and not one.wrong:
            reasons = {name: reason for name, reason in one.abilities.reasons().items() if reason}
            swept = {SWEEP: one.not_swept} if one.not_swept else {}
            types[one.type.class_name + one.part] = {**reasons, **swept}
        if one.refused or one.part:
            words = one.refused.removeprefix("MODEL can't be used: ").rstrip(".")
            words = words or "it has an encoder and a decoder: choose its encoder, NAME:encoder"
            types.setdefault(one.type.class_name, {"capture": words})
    return types


def document(found: Sequence[Found]) -> str:
    """docs/models.md."""
    version, torch = metadata.version("transformers"), metadata.version("torch").split("+")[0]
    return "\n".join(
        [
            "# Which models work",
            "",
            f"Written by `python -m tools.model_types.sweep --out DIR --write`: every type of "
            f"language model that transformers {version} knows, built tiny with random weights "
            f"(torch {torch}, CPU, float32), loaded as yours would be. Each proves what it can do "
            "(`itda_core/model/proof.py`), and what it claims is then checked with other texts "
            "against another instance of the model, by hooks and whole passes that share no code "
            "with the explorer. A model of your own proves itself again when it is first loaded: "
            "`itda models --check NAME`.",
            "",
            *_summary(found),
            "",
            "* **capture**: the activations of every block are transformers' own, in a batch as "
            "alone.",
            "* **next tokens**: it predicts them from what came before only; else it is used as an "
            "encoder, without CE loss score, *What if* and *Steer*.",
            "* **put back**: other activations can be put in place of a block's output.",
            "* **unembedding**: the next tokens that a vector speaks for can be told.",
            "* **steps**: it writes on step by step; else *Steer* reads the whole text each time.",
            "* **sites**: the places in a block that are there; `resid_post` always is.",
            "",
            *(line for kind in _HEADS for line in _table(kind, found)),
        ]
    )


_HEADS = {
    "causal": "Predict the next token",
    "masked": "Predict masked tokens (used as encoders)",
    "image-text": "Read images and text (used with text alone)",
    "seq2seq": "Have an encoder and a decoder (the encoder is used: NAME:encoder)",
    "audio-text": "Hear and write (used with text alone)",
    "encoder": "Other encoders",
}
"""The tables of the document, by kind; what stands among the kinds of two parts and has no encoder
of its own hears, and writes as the first kind does"""


def _group(one: Found) -> str:
    is_whole = one.type.kind == "seq2seq" and one.abilities is not None and not one.part
    return "audio-text" if is_whole else one.type.kind


def _summary(found: Sequence[Found]) -> list[str]:
    counts = Counter()
    for one in found:
        works = one.abilities is not None and not one.wrong
        counts[_group(one), "all"] += 1
        counts[_group(one), "capture"] += works
        counts[_group(one), "refused"] += bool(one.refused)
        counts[_group(one), "not built"] += bool(one.not_built)
        counts[_group(one), "wrong"] += bool(one.wrong)
        for name in [*ABOUT][1:]:
            counts[_group(one), name] += works and not getattr(one.abilities, name)
    names = ["all", "capture", *[*ABOUT][1:], "refused", "not built", "wrong"]
    heads = ["types", "capture", "next tokens", "put back", "unembedding", "steps", "refused"]
    lines = [["", *heads, "not built", "wrong"], ["---"] * (len(names) + 1)]
    lines += [[_HEADS[kind], *(str(counts[kind, name]) for name in names)] for kind in _HEADS]
    return [f"| {' | '.join(line)} |" for line in lines]


def _table(kind: str, found: Sequence[Found]) -> list[str]:
    lines = [
        [
            "type",
            "class",
            "capture",
            "next tokens",
            "put back",
            "unembedding",
            "steps",
            "why not",
            "sites",
        ],
        ["---"] * 9,
    ]
    for one in sorted((one for one in found if _group(one) == kind), key=lambda one: one.type.name):
        lines.append([one.type.model_type, one.type.class_name, *_cells(one)])
    return [f"## {_HEADS[kind]}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]


def _cells(one: Found) -> list[str]:
    """yes or no an ability, and the first reason."""
    if one.abilities is None or one.wrong:
        reason = one.refused or one.wrong or f"not built: {one.not_built}"
        return [*["–" if one.not_built else "no"] * len(ABOUT), reason.replace("|", "/"), ""]
    reasons = one.abilities.reasons()
    first = next((reason for reason in reasons.values() if reason), "")
    proved = ("no" if reason else "yes" for reason in reasons.values())
    return [*proved, first.replace("|", "/"), _sites(one.sites)]


def _sites(sites: Sites) -> str:
    """Those that a type has beside the usual one, or the first reason why not."""
    names = [site for site in SITES[:-1] if not sites.why_not(site)]
    if len(names) == len(SITES) - 1:
        return "all"
    lacking = next(sites.why_not(site) for site in SITES if sites.why_not(site))
    return f"{', '.join(names) or 'none'}: {lacking}".replace("|", "/")
