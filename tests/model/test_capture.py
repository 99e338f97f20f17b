"""What capture promises, on the tiny Llama: rows in the order of the texts, whatever the passes."""

import math
import random

import pytest
import torch

from itda_core.errors import InputError
from itda_core.model import forward_batches
from itda_core.model.tokens import batches, padded, tokenized_texts
from tests.support.tiny_models import TEXTS, close

MIXED = (3, 60, 1, 0, 25, 25, 2, 90, 1, 40, 7, 90, 12, 0, 31, 5, 60)
"""Words of texts that are neither in order of length nor all different in it"""


@pytest.fixture(scope="module")
def mixed_texts(tiny_texts):
    words = " ".join(tiny_texts).split()
    random.Random(0).shuffle(words)
    ends = [sum(MIXED[: number + 1]) for number in range(len(MIXED))]
    return [" ".join(words[end - n : end]) for end, n in zip(ends, MIXED, strict=True)]


@pytest.fixture
def pass_shapes(tiny_model):
    """(texts, padded length) of each forward pass of the tiny model from now on."""
    shapes = []

    def keep(_module, inputs):
        shapes.append(tuple(inputs[0].shape[:2]))

    handle = tiny_model.blocks[0].register_forward_pre_hook(keep)
    yield shapes
    handle.remove()


def tokens_of(model, texts, lengths):
    """The texts as tokens, cut to the given lengths."""
    whole = tokenized_texts(model.tokenizer, texts, model.context_length)
    assert all(length <= len(text) for text, length in zip(whole, lengths, strict=True))
    cut = [text.first(length) for text, length in zip(whole, lengths, strict=True)]
    return padded(model.tokenizer, cut)


# Which rows


def test_padding_is_left_out_and_rows_name_prompt_and_position(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    activations = tiny_model.capture(tokens, [1], skip_first=False)
    expected = [
        (row, position) for row in range(4) for position in range(int(tokens.mask[row].sum()))
    ]
    assert list(zip(activations.prompts, activations.positions, strict=True)) == expected
    assert len(activations[1]) == len(expected) < tokens.mask.numel()


def test_the_first_position_is_left_out_unless_asked_for(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    with_first = tiny_model.capture(tokens, [1], skip_first=False)
    without = tiny_model.capture(tokens, [1])
    assert 0 not in without.positions
    later = with_first.positions > 0
    assert (without.positions == with_first.positions[later]).all()
    assert (without.prompts == with_first.prompts[later]).all()
    assert torch.equal(without[1], with_first[1][later])
    assert (with_first.positions == 0).sum() == 4


def test_capture_stops_after_the_last_layer_asked_for(tiny_model):
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(tiny_model.blocks)
    ]
    tiny_model.capture(tiny_model.tokenize(["the treaty"]), [0, 1])
    for handle in handles:
        handle.remove()
    assert calls == [0, 1]


def test_a_shortened_text_gives_its_first_tokens(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    shortened = tokens_of(tiny_model, TEXTS, [4, *tokens.lengths[1:].tolist()])
    whole, cut = tiny_model.capture(tokens, [2]), tiny_model.capture(shortened, [2])
    kept = (whole.prompts > 0) | (whole.positions < 4)
    close(cut[2], whole[2][kept])
    assert (cut.positions == whole.positions[kept]).all()


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["a"], ["", "the treaty"]])
def test_texts_without_a_second_token_give_no_rows(tiny_model, texts):
    activations = tiny_model.capture(tiny_model.tokenize(texts), [0, 3])
    expected = 0 if "the treaty" not in texts else len(tiny_model.tokenize(texts[1:]).ids[0]) - 1
    assert activations[0].shape == activations[3].shape == (expected, 16)
    assert len(activations.prompts) == len(activations.positions) == expected
    assert torch.isfinite(activations[3]).all()


def test_a_layer_asked_for_twice_and_out_of_order_is_captured_once(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    activations = tiny_model.capture(tokens, [2, 0, 2])
    assert set(activations) == {0, 2}
    close(activations[0], tiny_model.capture(tokens, [0])[0])


@pytest.mark.parametrize("layer", [4, -1, 1_000_000])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(tiny_model, layer):
    tokens = tiny_model.tokenize(TEXTS)
    with pytest.raises(InputError, match=rf"layers 0 to 3.* {layer}\."):
        tiny_model.capture(tokens, [0, layer])
    with (
        pytest.raises(InputError, match="layers 0 to 3"),
        tiny_model.splice(layer, torch.zeros(1), torch.zeros(1)),
    ):
        pass


# Forward passes of texts of similar length


@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize("forward_tokens", [1, 40, 97, 500, 10**9])
def test_texts_of_mixed_lengths_arrive_in_order_as_if_each_were_alone(
    tiny_model, mixed_texts, monkeypatch, forward_tokens, skip_first
):
    monkeypatch.setattr(forward_batches, "FORWARD_TOKENS", {"cpu": forward_tokens})
    lengths = [len(tiny_model.tokenizer(text)["input_ids"]) for text in mixed_texts]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    together = tiny_model.capture(tiny_model.tokenize(mixed_texts), [0, 2], skip_first)
    places = [
        (number, position)
        for number, length in enumerate(lengths)
        for position in range(skip_first, length)
    ]
    assert list(zip(together.prompts, together.positions, strict=True)) == places
    for layer in (0, 2):
        alone = [
            tiny_model.capture(tiny_model.tokenize([text]), [layer], skip_first)[layer]
            for text in mixed_texts
        ]
        assert len(together[layer]) == len(places)
        close(together[layer], torch.cat(alone))


def test_many_texts_keep_their_order_over_several_forward_passes(
    tiny_model, tiny_texts, pass_shapes
):
    texts = tiny_texts * 3
    tokens = tiny_model.tokenize(texts)
    activations = tiny_model.capture(tokens, [0, 2])
    assert len(pass_shapes) > 1
    assert tokens.mask.sum() > forward_batches.FORWARD_TOKENS["cpu"]
    row = 0
    for number, text in enumerate(texts[:120]):
        alone = tiny_model.capture(tiny_model.tokenize([text]), [0, 2])
        rows = slice(row, row + len(alone[0]))
        assert (activations.prompts[rows] == number).all()
        assert (activations.positions[rows] == alone.positions).all()
        close(activations[0][rows], alone[0])
        close(activations[2][rows], alone[2])
        row += len(alone[0])
    for repeat in (1, 2):
        assert torch.allclose(
            activations[2][:row], activations[2][repeat * row : (repeat + 1) * row], atol=1e-5
        )
    assert len(activations[0]) == 3 * row


def test_a_forward_pass_takes_the_texts_of_similar_length(
    tiny_model, tiny_texts, monkeypatch, pass_shapes
):
    """By hand: of 20 tokens, padding included, 10 and 9 make a pass, then 8 and 3, then 2 and 2.
    That is 40 tokens for 34; in the order of the texts it would be 54."""
    monkeypatch.setattr(forward_batches, "FORWARD_TOKENS", {"cpu": 20})
    tokens = tokens_of(tiny_model, tiny_texts[:6], [2, 9, 2, 8, 3, 10])
    activations = tiny_model.capture(tokens, [1])
    assert pass_shapes == [(2, 10), (2, 8), (2, 2)]
    assert activations.prompts.tolist() == [0] + [1] * 8 + [2] + [3] * 7 + [4] * 2 + [5] * 9


def test_little_of_a_forward_pass_is_padding(tiny_model, tiny_texts, monkeypatch, pass_shapes):
    """A pass holds at most F / longest texts, each padded by at most longest - shortest, which
    adds up to F (1 + ln(longest of all / shortest of all)), whatever the number of texts."""
    draw = random.Random(3)
    lengths = [draw.randint(3, 14) for _ in range(480)]
    tokens = tokens_of(tiny_model, tiny_texts * 4, lengths)
    together = 160
    monkeypatch.setattr(forward_batches, "FORWARD_TOKENS", {"cpu": together})
    tiny_model.capture(tokens, [0])
    sizes = [texts * width for texts, width in pass_shapes]
    assert max(sizes) <= together
    padding = sum(sizes) - sum(lengths)
    assert 0 <= padding <= together * (1 + math.log(max(lengths) / min(lengths)))
    in_order = [lengths[first:last] for first, last in batches(lengths, together)]
    assert padding < 0.1 * sum(max(some) * len(some) - sum(some) for some in in_order)


def test_a_text_longer_than_a_forward_pass_goes_alone(
    tiny_model, mixed_texts, monkeypatch, pass_shapes
):
    monkeypatch.setattr(forward_batches, "FORWARD_TOKENS", {"cpu": 1})
    tokens = tiny_model.tokenize(mixed_texts)
    tiny_model.capture(tokens, [0])
    # Texts of no or one token give no rows without their first position: they are not computed.
    expected = sorted((int(length) for length in tokens.lengths if length > 1), reverse=True)
    assert pass_shapes == [(1, length) for length in expected]
