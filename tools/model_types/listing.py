"""Which types of model the transformers package here has."""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import transformers
from transformers.models.auto import modeling_auto

_KINDS = {
    "causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
    "masked": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModelForMaskedLM"),
    "image-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "AutoModelForImageTextToText"),
    "seq2seq": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"),
    "encoder": ("MODEL_MAPPING_NAMES", "AutoModel"),
}
KINDS = tuple(_KINDS)
_OTHER_INPUTS = {"pixel_values", "input_features", "input_values", "bbox", "audio_codes"}
"""What a model of other things than text alone asks for"""


@dataclass(frozen=True)
class ModelType:
    """One way in which transformers uses a type of model."""

    model_type: str
    """As config.json names it: "llama" """
    kind: str
    """One of KINDS"""
    class_name: str
    """In transformers: "LlamaForCausalLM" """

    @property
    def name(self) -> str:
        """What a person types, and the folder is called: "llama.causal"."""
        return f"{self.model_type}.{self.kind}"

    @property
    def auto_class(self) -> type:
        """The class of transformers that loads this kind."""
        return getattr(transformers, _KINDS[self.kind][1])


def every_type() -> list[ModelType]:
    """All types that read text, by kind; a type of several kinds stands there once a kind.

    Of kind "encoder" are those that none of the other kinds has and that read nothing but text.
    """
    return [*_language_models(), *_encoders()]


def find_types(names: str) -> Iterator[ModelType]:
    """Those that a list such as "llama,bart.seq2seq,masked" names.

    Each name is a type, one of its kinds, or a whole kind. Raises ValueError for one that there is
    not.
    """
    for name in names.split(","):
        # Encoders last: to know them, 400 modules of transformers are imported.
        found = _named(name, _language_models()) or _named(name, _encoders())
        if not found:
            raise ValueError(f"transformers {transformers.__version__} has no type {name!r}.")
        yield from found


def _named(name: str, types: Iterator[ModelType]) -> list[ModelType]:
    return [one for one in types if name in (one.model_type, one.name, one.kind)]


def _language_models() -> Iterator[ModelType]:
    for kind in KINDS[:-1]:
        yield from (ModelType(name, kind, made_by) for name, made_by in _mapping(kind))


def _encoders() -> Iterator[ModelType]:
    known = {one.model_type for one in _language_models()}
    for name, made_by in _mapping("encoder"):
        class_name = made_by if isinstance(made_by, str) else made_by[0]
        if name not in known and _reads_only_text(class_name):
            yield ModelType(name, "encoder", class_name)


def _mapping(kind: str) -> Iterable[tuple[str, str]]:
    return getattr(modeling_auto, _KINDS[kind][0]).items()


def _reads_only_text(class_name: str) -> bool:
    try:
        forward = getattr(transformers, class_name).forward
    except (ImportError, AttributeError):  # a package that is not installed, or no such class
        return False
    parameters = inspect.signature(forward).parameters
    return "input_ids" in parameters and not _OTHER_INPUTS & parameters.keys()
