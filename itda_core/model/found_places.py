"""Which modules of a block give what it adds to the stream: found by what they give in one pass.

x goes into the block and y comes out. In most families y = x + attention + MLP, and what the MLP
reads is the stream in between, z = x + attention. So z is looked for among all that modules are
given, and attention and MLP among all that modules give, before z and after it. Where no module is
given such a z, the two may stand side by side. No name of a module or family is asked for.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from itda_core.model.sites import INPUT, Place, hidden_of, stream_of

_ROUNDING = {"float32": (2e-6, 1e-3), "float16": (1e-3, 1e-2), "bfloat16": (4e-3, 5e-2)}
"""What rounding explains of a sum, by data type: so much of what is added up, and so much of what
is added"""
_MOST_OF_IT = 0.2
"""What may be wrong of a usual change of the stream: in half precision rounding alone would also
explain that something else was added"""
_NEAR = 1e-2
"""How far a factor may lie from a number of the configuration that is taken for it"""
_DEEPEST = 2
"""Dots in the path of a module that is looked at: experts and projections lie deeper"""
NOT_A_SUM = (
    "what a block gives is not what goes in and what two of its modules add, as where a norm "
    "follows the sum"
)
ONE_PART = "a block adds one thing to the stream, where attention and MLP would be two"
SIDE_BY_SIDE = "attention and MLP read the same stream, side by side, so there is none between them"
NOT_ONE_MODULE = "no one module gives what is added to the stream before the MLP"
OTHER_SHAPE = "what goes into a block is not of the shape of what it gives"


@dataclass
class Seen:
    """What was seen of a block in one pass: tensors by the path of their module."""

    before: torch.Tensor | None = None
    """[n_texts, longest, d_model], what went in"""
    after: torch.Tensor | None = None
    """the same of what came out"""
    given: list["Tensor"] = field(default_factory=list)
    """what modules were given"""
    gave: list["Tensor"] = field(default_factory=list)
    """what they gave"""
    steps: int = 0


@dataclass(frozen=True)
class Tensor:
    """What a module was given or gave."""

    module: str
    step: int
    """when, counted in the pass"""
    value: torch.Tensor
    """as the block's own hidden states, a copy"""

    def place(self, end: str, factor: float = 1.0) -> Place:
        return Place(self.module, end, factor)


@contextmanager
def watched(block: nn.Module, look: Callable[[Seen], None]) -> Iterator[None]:
    """Within this context `look` is given what was seen of the block, each time that it runs, as
    soon as it has: nothing is kept for longer."""
    seen = Seen()

    def began(_module, inputs, options):
        vars(seen).update(vars(Seen()))
        stream = stream_of(inputs, options)
        seen.before = None if stream is None else stream.clone()

    def given(path: str):
        def hook(_module, inputs, options):
            _keep(seen, seen.given, path, stream_of(inputs, options))

        return hook

    def gave(path: str):
        def hook(_module, _inputs, output):
            _keep(seen, seen.gave, path, hidden_of(output) if _has_hidden(output) else None)

        return hook

    def ended(_module, _inputs, output):
        seen.after = hidden_of(output)
        look(seen)
        vars(seen).update(vars(Seen()))

    with ExitStack() as hooks:
        hooks.callback(block.register_forward_pre_hook(began, with_kwargs=True).remove)
        for path, module in block.named_modules():
            if path and path.count(".") < _DEEPEST:
                handle = module.register_forward_pre_hook(given(path), with_kwargs=True)
                hooks.callback(handle.remove)
                hooks.callback(module.register_forward_hook(gave(path)).remove)
        hooks.callback(block.register_forward_hook(ended).remove)
        yield


def _has_hidden(output) -> bool:
    first = output[0] if isinstance(output, tuple | list) and output else output
    return torch.is_tensor(first)


def _keep(seen: Seen, kept: list[Tensor], path: str, value: torch.Tensor | None) -> None:
    """Keep what has as many rows and components as the block's own hidden states."""
    seen.steps += 1
    like = seen.before
    if value is None or like is None or value.shape[-1:] != like.shape[-1:]:
        return
    if value.numel() == like.numel() and value.is_floating_point():
        kept.append(Tensor(path, seen.steps, value.reshape(like.shape).clone()))


def found_places(
    seen: Seen,
    dtype: str,
    constants: Sequence[float] = (),
    guess: dict[str, Place] | None = None,
) -> tuple[dict[str, Place], dict[str, str]]:
    """The place of each site that a block was seen to have, and why not for each that it lacks.

    dtype: of the weights; constants: numbers of the configuration, one of which may be what an
    output is multiplied by; guess: the places in another block, which are tried first.
    """
    if seen.before is None or seen.before.shape != seen.after.shape:
        return {}, dict.fromkeys(("resid_pre", "attn_out", "resid_mid", "mlp_out"), OTHER_SHAPE)
    places = {"resid_pre": INPUT}
    found = _Sums(seen, dtype, constants).places(guess or {})
    if isinstance(found, str):
        return places, dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), found)
    lacking = {} if "resid_mid" in found else {"resid_mid": SIDE_BY_SIDE}
    return places | found, lacking


class _Sums:
    """What adds up in a block."""

    def __init__(self, seen: Seen, dtype: str, constants: Sequence[float]):
        self._x, self._y = seen.before, seen.after
        self._rounding = _ROUNDING.get(dtype, _ROUNDING["bfloat16"])
        self._constants = [abs(one) for one in constants if one and abs(one) != 1]
        self._given = [one for one in _once(seen.given) if not self._is_an_end(one.value)]
        self._gave = [one for one in _once(seen.gave) if not _same(one.value, self._x)]

    def _is_an_end(self, value: torch.Tensor) -> bool:
        """Whether it is the stream before the block or after it."""
        return _same(value, self._x) or _same(value, self._y)

    def places(self, guess: dict[str, Place]) -> dict[str, Place] | str:
        """attn_out, mlp_out and, where there is one, resid_mid; or why they are not there."""
        for part in (self._like(guess), self):
            if found := part._in_line() or part._side_by_side():
                return found
        if self._added(self._x, self._y, self._gave):
            return ONE_PART
        return NOT_ONE_MODULE if any(self._middles()) else NOT_A_SUM

    def _like(self, guess: dict[str, Place]) -> "_Sums":
        """With the tensors alone that stand at the same places in another block."""
        names = {place.module for place in guess.values()}
        part = object.__new__(_Sums)
        vars(part).update(vars(self))
        part._given = [one for one in self._given if one.module in names]
        part._gave = [one for one in self._gave if one.module in names]
        return part

    def _in_line(self) -> dict[str, Place]:
        """Attention first, then the MLP, which reads what the stream is then."""
        for middle, mlp in self._middles():
            before = [one for one in self._gave if one.step < middle.step]
            if attention := self._added(self._x, middle.value, before):
                between = dataclasses.replace(middle.place("input"), added=attention.place)
                return {
                    "attn_out": attention.place, "resid_mid": between, "mlp_out": mlp.place
                }  # fmt: skip
        return {}

    def _middles(self) -> Iterator[tuple[Tensor, "_Added"]]:
        """States of the stream that some module is given, to which one other is still added."""
        for middle in _distinct(self._given):
            after = [one for one in self._gave if one.step > middle.step]
            if mlp := self._added(middle.value, self._y, after):
                yield middle, mlp

    def _side_by_side(self) -> dict[str, Place]:
        """Both read what goes in, and what they give is added to it. Which is which, the proof
        tells by what reads other tokens; here the first is called attention."""
        pairs = itertools.combinations(_distinct(self._gave, last=True), 2)
        sums = [
            (error, a, b)
            for a, b in pairs
            if (error := self._error(self._x + a.value, b.value, self._y, 1.0)) is not None
            and self._matters(a, b)
        ]
        if not sums:
            return {}
        _, a, b = min(sums, key=lambda found: found[0])
        return {"attn_out": a.place("output"), "mlp_out": b.place("output")}

    def _matters(self, a: Tensor, b: Tensor) -> bool:
        """Whether the sum is none without either: else one alone would do."""
        zero = torch.zeros_like(self._x)
        return all(self._error(self._x + one.value, zero, self._y, 1.0) is None for one in (a, b))

    def _added(
        self, before: torch.Tensor, after: torch.Tensor, among: Sequence[Tensor]
    ) -> "_Added | None":
        """The module whose output was added between two states of the stream."""
        whole = [
            _Added(error, one, 1.0)
            for one in among
            if (error := self._error(before, one.value, after, 1.0)) is not None
        ]
        return min(whole or self._scaled(before, after, among), key=_Added.rank, default=None)

    def _scaled(self, before, after, among: Sequence[Tensor]) -> "list[_Added]":
        """The same, multiplied by a number."""
        change = (after.float() - before.float()).flatten()
        found = []
        for one in among:
            values = one.value.float().flatten()
            fitted = float(values @ change / (values @ values).clamp(min=1e-30))
            if abs(fitted) <= _NEAR:
                continue
            sums = (
                _Added(error, one, factor)
                for factor in (*self._named(fitted), fitted)
                if (error := self._error(before, one.value, after, factor)) is not None
            )
            found += itertools.islice(sums, 1)
        return found

    def _named(self, fitted: float) -> list[float]:
        """Numbers of the configuration that a fitted factor comes near, the nearest first."""
        near = [one for one in self._constants if abs(one - abs(fitted)) <= _NEAR * abs(fitted)]
        nearest = sorted(near, key=lambda one: abs(one - abs(fitted)))
        return [one if fitted > 0 else -one for one in nearest]

    def _error(self, before, added, after, factor: float) -> float | None:
        """How far before + factor × added is from after, relative; None where rounding does not
        explain it, or where nothing was added."""
        added = added if factor == 1 else (added.float() * factor).to(added.dtype)
        wrong = (before + added).float() - after.float()
        sums, parts = after.float().norm(dim=-1), added.float().norm(dim=-1)
        of_sums, of_parts = self._rounding
        sizes = before.float().norm(dim=-1) + sums
        if not (wrong.norm(dim=-1) <= of_sums * sizes + of_parts * parts).all():
            return None
        changes = (after.float() - before.float()).norm(dim=-1)
        shares = wrong.norm(dim=-1) / changes.clamp(min=1e-30)
        if not changes.any() or shares.median() > _MOST_OF_IT:
            return None
        return float(wrong.norm() / sums.norm().clamp(min=1e-30))


@dataclass(frozen=True)
class _Added:
    """A module whose output, times a factor, makes up what was added."""

    error: float
    what: Tensor
    factor: float

    def rank(self) -> tuple:
        """The nearest first; of those that are equally near the outermost module, and the one that
        ran last."""
        return self.error, self.what.module.count("."), -self.what.step

    @property
    def place(self) -> Place:
        return self.what.place("output", self.factor)


def _once(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those of modules that ran once: of others a hook could not tell which is meant."""
    counts = Counter(one.module for one in tensors)
    return [one for one in tensors if counts[one.module] == 1]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other)


def _distinct(tensors: Sequence[Tensor], last: bool = False) -> list[Tensor]:
    """One of each value: that of the outermost module, of several the first or the last."""
    kept: list[Tensor] = []
    ordered = sorted(
        tensors, key=lambda one: (one.module.count("."), -one.step if last else one.step)
    )
    for one in ordered:
        if not any(_same(one.value, other.value) for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.step)
