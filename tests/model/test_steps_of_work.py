"""A pass that is begun anew with smaller parts where memory was full: nothing twice, nothing
missing."""

import pytest
import torch

from itda_core.errors import FullMemory
from itda_core.model.steps_of_work import Step, in_halves

TEXTS = ["abcdefgh", "ij", "klmnop", "q", "rstuvwxyz"]


def halved(text):
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def one_by_one(room, tried):
    """A pass that takes an item when the one before is done."""

    def run(items):
        for number, item in enumerate(items):
            tried.append(item)
            if len(item) > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            yield Step(0.5, number, item.upper())

    return run


def all_at_once(room, tried):
    """A pass that takes all before it begins, and tells how far it is."""

    def run(items):
        chosen = list(items)
        yield Step(0.1)
        yield from one_by_one(room, tried)(chosen)

    return run


@pytest.mark.parametrize("kind", [one_by_one, all_at_once])
@pytest.mark.parametrize("room", [1, 2, 3, 4, 100])
def test_every_item_comes_once_and_in_order_whatever_fits(kind, room):
    tried = []
    steps = [*in_halves(kind(room, tried), TEXTS, halved, str)]
    values = [step.value for step in steps if step.value]
    assert "".join(item for item, _ in values) == "".join(TEXTS)
    assert all(value == item.upper() and len(item) <= room for item, value in values)
    assert [step.number for step in steps if step.value] == list(range(len(values)))
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert len(tried) == len(values) if room == 100 else len(tried) > len(values)


@pytest.mark.parametrize("kind", [one_by_one, all_at_once])
def test_one_text_that_does_not_fit_is_said(kind):
    with pytest.raises(FullMemory, match=r"No room for . \(CUDA out of memory"):
        [*in_halves(kind(0, []), TEXTS, halved, lambda text: f"No room for {text}")]


@pytest.mark.parametrize("kind", [one_by_one, all_at_once])
def test_a_full_memory_while_items_are_made_is_raised_on(kind):
    def items():
        yield "ab"
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        [*in_halves(kind(9, []), items(), halved, str)]


def test_other_errors_are_raised_on():
    def run(items):
        next(items)
        raise RuntimeError("a bug")
        yield

    with pytest.raises(RuntimeError, match="a bug"):
        [*in_halves(run, TEXTS, halved, str)]
