"""Where activations are taken, in the words of lists and pages, and where a moved dictionary is
from."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from itda_core.errors import InputError
from itda_core.settings import RESID_POST, SETTINGS


@dataclass(frozen=True)
class HookPoint:
    """Where activations are taken: a place in block `layer` (0 first) of `model`."""

    model: str
    layer: int
    site: str = RESID_POST
    """One of `settings.SITES`: by default the block's output"""

    @property
    def in_words(self) -> str:
        """Layer and site, such as "layer 7" or "layer 7 mlp_out"."""
        return layer_in_words(self.layer, self.site)


@dataclass(frozen=True)
class Origin:
    """The run whose latents a moved dictionary has."""

    run_id: str
    digest: str
    """of its dictionary: atoms, offset and sources"""
    model: str
    layer: int
    site: str = RESID_POST
    revision: str | None = None
    """of the model"""
    before: "Origin | None" = None
    """The run that this one was moved from itself"""

    def __post_init__(self) -> None:
        for name, setting in (("model", "model"), ("layer", "layers"), ("site", "site")):
            SETTINGS[setting].check(getattr(self, name))
        SETTINGS["revision"].check(self.revision)
        if not (isinstance(self.run_id, str) and isinstance(self.digest, str)):
            raise InputError("moved_from has to name a run and the digest of its dictionary.")

    @property
    def in_words(self) -> str:
        """Model, layer and site, such as "smollm2-135m layer 7"; of a folder or a hub id its last
        part."""
        name = self.model.rstrip("/\\").replace("\\", "/").split("/")[-1]
        revision = "" if self.revision is None else f" at {self.revision}"
        return f"{name}{revision} {layer_in_words(self.layer, self.site)}"

    @property
    def first(self) -> "Origin":
        """The first run of a chain of moves: the one that was trained."""
        return [*self.chain][-1]

    @property
    def chain(self) -> Iterator["Origin"]:
        """This run, the one that it was moved from, and so on to the first."""
        origin: Origin | None = self
        while origin is not None:
            yield origin
            origin = origin.before

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, those alone that say anything."""
        fields = dataclasses.asdict(dataclasses.replace(self, before=None))
        fields = {name: value for name, value in fields.items() if value is not None}
        return fields if self.before is None else {**fields, "before": self.before.to_dict()}

    @classmethod
    def from_dict(cls, fields: Any) -> "Origin":
        """The inverse of `to_dict`. Raises InputError where that is not what it is."""
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict) or set(fields) - set(known):
            raise InputError(f"moved_from has to be an object of {', '.join(known)}.")
        try:
            before = fields.get("before")
            before = None if before is None else cls.from_dict(before)
            return cls(**{**fields, "before": before})
        except TypeError as error:
            raise InputError(f"moved_from lacks something: {error}.") from error


def layer_in_words(layer: int, site: str) -> str:
    """ "layer 7", or, of another place than a block's output, "layer 7 mlp_out"."""
    return layers_in_words([layer], site)


def layers_in_words(layers: Sequence[int], site: str) -> str:
    """ "layers 7, 15", or, of another place than a block's output, "layers 7, 15 mlp_out"."""
    noun = "layer" if len(layers) == 1 else "layers"
    place = "" if site == RESID_POST else f" {site}"
    return f"{noun} {', '.join(map(str, layers))}{place}"
