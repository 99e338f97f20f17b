"""Places in a block where activations stand, and hooks that read or replace what stands there.

A block adds to the stream of activations that runs through the model: x + attn_out + mlp_out. Where
in a family's block these stand is found and proved elsewhere (see found_places.py and
site_proof.py). All here works on one block as on all of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from itda_core.settings import RESID_POST

ABOUT = {
    "resid_pre": "the stream before a block",
    "attn_out": "what attention adds to the stream",
    "resid_mid": "the stream between attention and MLP",
    "mlp_out": "what the MLP adds to the stream",
    "resid_post": "the stream after a block",
}
"""Each site as people read it, in their order in a block"""


@dataclass(frozen=True)
class Place:
    """Where in a block the vectors of a site stand."""

    module: str = ""
    """path within the block; "" is the block itself"""
    end: str = "output"
    """what goes in ("input") or what comes out ("output")"""
    factor: float = 1.0
    """what stands there is so many times what the module gives"""
    added: "Place | None" = None
    """of the stream between two modules: what was added to it last. To replace the stream is to
    replace that."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Place":
        """The inverse of `dataclasses.asdict`."""
        added = fields["added"]
        return cls(**{**fields, "added": added and cls.of(added)})


INPUT = Place("", "input")
"""What goes into a block"""


@dataclass(frozen=True)
class Sites:
    """Where each site of a model's blocks is, and why not where the model lacks it."""

    places: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    """by site, one for each block"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """by site that it lacks"""

    def place(self, site: str, layer: int) -> Place:
        """Where a site is in block `layer`. KeyError for one that the model lacks."""
        return Place() if site == RESID_POST else self.places[site][layer]

    def why_not(self, site: str) -> str:
        """Why the model lacks a site, in words that go on after a colon; empty where it has it."""
        if site == RESID_POST or site in self.places:
            return ""
        return self.reasons.get(site, "it was not tried")

    def table(self) -> list[dict[str, str]]:
        """ability, proved ("yes", "no") and why not, a row each, as `Abilities.table` has them."""
        return [
            {
                "ability": f"{site}: {about}",
                "proved": "no" if self.why_not(site) else "yes",
                "why not": self.why_not(site),
            }
            for site, about in ABOUT.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Sites":
        """The inverse of `to_dict`."""
        places = {
            site: tuple(map(Place.of, of_blocks)) for site, of_blocks in fields["places"].items()
        }
        return cls(places, dict(fields["reasons"]))


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden states that a module gives. Some return a tensor and some a tuple that starts with
    it; `output[0]` of a tensor would silently keep only the first text of the batch."""
    return output if torch.is_tensor(output) else output[0]


@contextmanager
def heard(block: nn.Module, place: Place, hear: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Within this context `hear` is given what stands at a place, each time that the block runs:
    [n_texts, longest, d_model] as the block's own hidden states.

    What it is given is the block's own tensor for the block itself, else a copy: some families add
    in place to what a module gave.
    """
    stream = _Stream()

    def at_input(_module, inputs, options):
        hidden = _first(inputs, options)
        hear(stream.shaped(hidden).clone() if place.module else hidden.clone())

    def at_output(_module, _inputs, output):
        hidden = hidden_of(output)
        hear(stream.shaped(hidden * place.factor) if place.module else hidden)

    with _hooked(block, place, stream, at_input, at_output):
        yield


@contextmanager
def changed(
    block: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], place: Place = Place()
) -> Iterator[None]:
    """Within this context what stands at a place is what `change` makes of it, [n_texts, longest,
    d_model] to the same, each time that the block runs."""
    if place.added:
        with _stream_changed(block, change, place.added):
            yield
        return
    stream = _Stream()

    def at_input(_module, inputs, options):
        hidden = change(_first(inputs, options))
        return ((hidden, *inputs[1:]), options) if inputs else (inputs, _with(options, hidden))

    def at_output(_module, _inputs, output):
        was = hidden_of(output)
        if not place.module:
            return _instead(output, change(was))
        hidden = change(stream.shaped(was * place.factor)) / place.factor
        return _instead(output, hidden.reshape(was.shape))

    with _hooked(block, place, stream, at_input, at_output):
        yield


def replacing(hidden: torch.Tensor, where: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A change that puts `hidden`, [n_texts, longest, d_model], in place of what was there. where:
    [n_texts, longest] bool, the positions replaced; both on the device of what was there."""
    rows = where[..., None]

    def replaced(was: torch.Tensor) -> torch.Tensor:
        return torch.where(rows, hidden.to(was.dtype), was)

    return replaced


@contextmanager
def _stream_changed(
    block: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], added: Place
) -> Iterator[None]:
    """The stream after what stands at `added` was added to it is changed, by changing that: where
    the stream itself is kept, no module shows."""
    stream = _Stream()

    def of_added(was: torch.Tensor) -> torch.Tensor:
        before = stream.hidden.float()
        own = before + was.float()
        wanted = change(own.to(was.dtype)).float()
        # Where nothing changes, not even rounding does.
        return torch.where(
            wanted == own.to(was.dtype).float(), was, (wanted - before).to(was.dtype)
        )

    with stream.followed(block), changed(block, of_added, added):
        yield


@contextmanager
def _hooked(
    block: nn.Module, place: Place, stream: "_Stream", at_input: Callable, at_output: Callable
) -> Iterator[None]:
    """Within this context one of the two hooks is called at a place; where that is within the
    block, the stream is followed into the block."""
    module = block.get_submodule(place.module)
    with stream.followed(block) if place.module else nullcontext():
        if place.end == "input":
            handle = module.register_forward_pre_hook(at_input, with_kwargs=True)
        else:
            handle = module.register_forward_hook(at_output)
        try:
            yield
        finally:
            handle.remove()


class _Stream:
    """What goes into a block, as it runs."""

    def __init__(self):
        self.hidden: torch.Tensor | None = None

    @contextmanager
    def followed(self, block: nn.Module) -> Iterator[None]:
        def keep(_module, inputs, options):
            self.hidden = _first(inputs, options)

        handle = block.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self.hidden = None

    def shaped(self, hidden: torch.Tensor) -> torch.Tensor:
        """As [n_texts, longest, d_model]: some families lay all tokens in one row."""
        return hidden if hidden.shape == self.hidden.shape else hidden.reshape(self.hidden.shape)


def stream_of(inputs: tuple, options: Mapping[str, Any]) -> torch.Tensor | None:
    """The first tensor that a module is given; None where it is given none."""
    given = (*inputs[:1], options.get("hidden_states"))
    return next((one for one in given if torch.is_tensor(one)), None)


def _first(inputs: tuple, options: Mapping[str, Any]) -> torch.Tensor:
    return inputs[0] if inputs else options["hidden_states"]


def _with(options: dict[str, Any], hidden: torch.Tensor) -> dict[str, Any]:
    return {**options, "hidden_states": hidden}


def _instead(output: Any, hidden: torch.Tensor) -> Any:
    return hidden if torch.is_tensor(output) else (hidden, *output[1:])
