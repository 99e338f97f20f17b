"""What reads many texts asks for them in one call: values in the order of the batches, each with
how far the call is."""

import pytest
import torch

from itda_core.errors import InputError
from tests.support.swept_like import SweptLike


@pytest.fixture(scope="module")
def batches(tiny_model, tiny_texts):
    """Batches of several lengths, one of them without a token."""
    groups = [tiny_texts[:3], tiny_texts[3:4], [""], tiny_texts[4:9]]
    return [tiny_model.tokenize(texts) for texts in groups]


@pytest.fixture(params=[False, True], ids=["in memory", "block by block"])
def model(request, tiny_model):
    return SweptLike(tiny_model) if request.param else tiny_model


def values_of(steps):
    """By number, in the order in which they came; fractions must rise to one."""
    steps = list(steps)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert min(fractions) >= 0
    assert all(step.value is None for step in steps if step.number is None)
    return [(step.number, step.value) for step in steps if step.number is not None]


@pytest.mark.parametrize("skip_first", [True, False])
def test_capture_gives_each_layer_of_each_batch_as_a_call_for_it_does(
    model, tiny_model, batches, skip_first
):
    found = {0: [], 2: []}
    for number, activations in values_of(model.capture_each(batches, [2, 0], skip_first, "cpu")):
        expected = tiny_model.capture(batches[number], [0, 2], skip_first)
        assert (activations.prompts == expected.prompts).all()
        assert (activations.positions == expected.positions).all()
        for layer, rows in activations.items():
            assert torch.equal(rows, expected[layer])
            found[layer].append(number)
    assert found == {0: [0, 1, 2, 3], 2: [0, 1, 2, 3]}


def test_hidden_gives_each_batch_as_a_call_for_it_does(model, tiny_model, batches):
    some = [*batches[:2], batches[3]]
    found = values_of(model.hidden_each(some, 1))
    assert [number for number, _ in found] == [0, 1, 2]
    for number, hidden in found:
        assert torch.equal(hidden, tiny_model.hidden(some[number], 1))


@pytest.mark.parametrize("is_counted", [True, False])
def test_logits_after_gives_each_stream_as_a_call_for_it_does(
    model, tiny_model, batches, is_counted
):
    some = [batches[0], batches[3], batches[0]]
    hidden = [tiny_model.hidden(tokens, 1) for tokens in some]
    hidden[2] = torch.zeros_like(hidden[2])
    total = sum(int(tokens.mask.sum()) for tokens in some) if is_counted else None
    steps = model.logits_after_each(1, zip(some, hidden, strict=True), total)
    found = values_of(steps)
    assert [number for number, _ in found] == [0, 1, 2]
    for number, logits in found:
        assert torch.equal(logits, tiny_model.logits_after(some[number], 1, hidden[number]))


def test_a_model_in_memory_reads_a_batch_when_it_is_asked_for(tiny_model, batches, monkeypatch):
    read, hidden, taken = [], tiny_model.hidden, []
    monkeypatch.setattr(tiny_model, "hidden", lambda *of: read.append(len(read)) or hidden(*of))
    steps = tiny_model.hidden_each(batches[:2], 1)
    assert not read
    first = next(steps)
    assert (first.number, read) == (0, [0])

    def streams():
        for number in range(2):
            taken.append(number)
            yield batches[0], first.value

    logits = tiny_model.logits_after_each(1, streams(), 10_000)
    assert not taken
    next(logits)
    assert taken == [0]


def test_a_layer_that_does_not_exist_is_refused(tiny_model, batches):
    for steps in (
        tiny_model.capture_each(batches, [0, 4]),
        tiny_model.hidden_each(batches, 4),
        tiny_model.logits_after_each(4, [(batches[1], torch.zeros(1))]),
    ):
        with pytest.raises(InputError, match="layers 0 to 3"):
            list(steps)
