"""What a model writes, plain and steered, against slow loops without a cache."""

import dataclasses
import math

import pytest
import torch

from itda_core.analysis.steering import (
    Writing,
    at_once,
    judged,
    loops,
    perplexity,
    repetition,
    steering_sum,
    steering_vector,
    usual_norm,
    write_on,
)
from itda_core.config import ModelSpec
from itda_core.errors import InputError, ModelError
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from tests.support.tiny_models import FAMILIES, save_tiny_model

TEXT = "The river rose in the spring"
DECODERS = [family for family in FAMILIES if family != "bert"]


@pytest.fixture(scope="module", params=DECODERS)
def model(request, tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), request.param, seed=2)
    return load_model(ModelSpec(str(folder), dtype="float32"))


@pytest.fixture
def run_dictionary(runs_folder):
    return list_runs(runs_folder)[0].dictionary()


def written_slowly(model, text, count, layer=None, vector=None):
    """Whole forward passes, the vector added to all positions but the first; greedy."""
    ids, found = model.tokenize([text]).ids, []
    for _ in range(count):
        tokens = model.tokenize([text])
        object.__setattr__(tokens, "ids", ids)
        object.__setattr__(tokens, "mask", torch.ones_like(ids, dtype=torch.bool))
        if layer is None:
            logits = model.logits(tokens)
        else:
            hidden = model.hidden(tokens, layer).clone()
            hidden[:, 1:] += vector
            with model.splice(layer, hidden, tokens.mask):
                logits = model.logits(tokens)
        last = logits[0, -1]
        token = int(last.argmax())
        found.append((token, float(last.log_softmax(0)[token])))
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return found


def assert_same(tokens, expected):
    assert [one.token_id for one in tokens] == [token for token, _ in expected]
    found = torch.tensor([one.log_probability for one in tokens])
    torch.testing.assert_close(found, torch.tensor([p for _, p in expected]), atol=1e-3, rtol=1e-3)


def without_ends(monkeypatch, model):
    monkeypatch.setattr(model.module.generation_config, "eos_token_id", None)


def test_a_plain_text_goes_on_as_without_a_cache(model, monkeypatch):
    without_ends(monkeypatch, model)
    tokens = list(write_on(model, TEXT, Writing(8)))
    assert_same(tokens, written_slowly(model, TEXT, 8))
    whole = model.tokenizer.decode([one.token_id for one in tokens])
    assert "".join(one.text for one in tokens) == whole.rstrip("\N{REPLACEMENT CHARACTER}")


def test_a_steered_text_goes_on_as_without_a_cache(model, monkeypatch):
    without_ends(monkeypatch, model)
    vector = 3 * torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    tokens = list(write_on(model, TEXT, Writing(8), (1, vector)))
    assert_same(tokens, written_slowly(model, TEXT, 8, 1, vector))
    plain = list(write_on(model, TEXT, Writing(8)))
    assert [one.log_probability for one in tokens] != [one.log_probability for one in plain]


def test_a_strength_of_zero_changes_nothing(tiny_model, runs_folder):
    dictionary = next(run for run in list_runs(runs_folder) if run.layer == 1).dictionary()
    vector = steering_vector(dictionary, 3, 0.0, 10.0)
    steered = list(write_on(tiny_model, TEXT, Writing(6), (1, vector)))
    assert steered == list(write_on(tiny_model, TEXT, Writing(6)))


def test_a_strength_counts_in_usual_norms_along_the_atom(tiny_model, runs_folder):
    dictionary = next(run for run in list_runs(runs_folder) if run.layer == 1).dictionary()
    dictionary = dataclasses.replace(dictionary, median_norm=7.0)
    norm = usual_norm(tiny_model, dictionary, TEXT)
    assert norm == 7.0
    vector = steering_vector(dictionary, 3, -1.5, norm)
    assert float(vector @ dictionary.atoms[3]) == pytest.approx(-1.5 * norm, rel=1e-4)
    assert float(vector.norm()) == pytest.approx(1.5 * norm, rel=1e-4)
    dictionary = dataclasses.replace(dictionary, median_norm=None)
    x = tiny_model.capture(tiny_model.tokenize([TEXT]), [1])[1]
    assert usual_norm(tiny_model, dictionary, TEXT) == pytest.approx(float(x.norm(dim=1).median()))


def test_what_is_drawn_depends_on_the_seed_alone(tiny_model):
    def text(seed):
        drawn = write_on(tiny_model, TEXT, Writing(12, temperature=1.0, seed=seed))
        return [one.token_id for one in drawn]

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_the_end_of_a_text_ends_it(tiny_model, monkeypatch):
    without_ends(monkeypatch, tiny_model)
    all_tokens = [one.token_id for one in write_on(tiny_model, TEXT, Writing(8))]
    monkeypatch.setattr(tiny_model.module.generation_config, "eos_token_id", [all_tokens[3]])
    ended = [one.token_id for one in write_on(tiny_model, TEXT, Writing(8))]
    assert ended == all_tokens[: all_tokens.index(all_tokens[3])]


def test_a_text_longer_than_the_context_is_cut_on_its_left(tiny_model):
    tokens = list(write_on(tiny_model, f"{TEXT} " * 200, Writing(5)))
    assert len(tokens) <= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "from 1 to 200, got 0"),
        ({"max_tokens": 201}, "from 1 to 200"),
        ({"temperature": -1.0}, "at least 0"),
    ],
)
def test_what_cannot_be_written_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Writing(**options)


def test_no_text_no_latent_and_an_encoder_are_refused(tiny_model, runs_folder, tmp_path):
    dictionary = list_runs(runs_folder)[0].dictionary()
    with pytest.raises(InputError, match="no token"):
        next(write_on(tiny_model, "", Writing(3)))
    with pytest.raises(InputError, match="no latent 9999"):
        steering_vector(dictionary, 9_999, 1.0, 1.0)
    encoder = load_model(ModelSpec(str(save_tiny_model(tmp_path / "encoder", "bert"))))
    with pytest.raises(ModelError, match="predicts no next token"):
        next(write_on(encoder, TEXT, Writing(3)))


def test_several_latents_are_added_by_their_weights(run_dictionary):
    atoms = run_dictionary.atoms
    found = steering_sum(run_dictionary, {3: 1.0, 5: -0.5}, 0.25, 40.0)
    torch.testing.assert_close(found, 10.0 * atoms[3] - 5.0 * atoms[5])
    alone = steering_sum(run_dictionary, {3: 1.0}, 2.0, 7.0)
    torch.testing.assert_close(alone, steering_vector(run_dictionary, 3, 2.0, 7.0))
    with pytest.raises(InputError, match="There is no latent 99999"):
        steering_sum(run_dictionary, {3: 1.0, 99_999: 1.0}, 1.0, 1.0)
    with pytest.raises(InputError, match="Choose at least one"):
        steering_sum(run_dictionary, {}, 1.0, 1.0)


def test_a_plain_text_is_judged_as_it_was_written_and_a_steered_one_by_the_model_as_it_is(
    model, monkeypatch
):
    without_ends(monkeypatch, model)
    writing = Writing(6)
    plain = list(write_on(model, TEXT, writing))
    found = judged(model, TEXT, writing, plain)
    assert found == pytest.approx([one.log_probability for one in plain], abs=1e-3)
    assert perplexity(found) == pytest.approx(torch.tensor(-found).mean().exp().item())
    vector = 5 * torch.ones(model.d_model, dtype=torch.float32)
    steered = list(write_on(model, TEXT, writing, (0, vector)))
    found, ids = judged(model, TEXT, writing, steered), model.tokenize([TEXT]).ids
    for value, token in zip(found, steered, strict=True):
        with torch.no_grad():
            last = model.module(input_ids=ids).logits[0, -1].double()
        assert value == pytest.approx(float(last.log_softmax(0)[token.token_id]), abs=1e-3)
        ids = torch.cat([ids, torch.tensor([[token.token_id]], dtype=torch.int64)], 1)


@pytest.mark.parametrize(
    ("ids", "n", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 4, 0.0),  # 3 sequences, all different
        ([7] * 8, 4, 0.8),  # 5 sequences, 1 of them different
        ([1, 2, 1, 2, 1, 2], 2, 0.6),  # 12 21 12 21 12: 2 of 5 are different
        ([1, 2, 3, 4, 1, 2, 3, 4], 4, 0.2),  # 5 sequences, the last is the first
    ],
)
def test_repetition_is_the_share_of_sequences_that_came_before(ids, n, expected):
    assert repetition(ids, n) == pytest.approx(expected)


def test_a_text_too_short_for_a_sequence_has_no_repetition():
    assert math.isnan(repetition([1, 2, 3]))


def tokens_of(text):
    """Token ids of words, by the order in which they come up."""
    words = text.split()
    return [list(dict.fromkeys(words)).index(word) for word in words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 0),
        ("a b c d", 0),
        ("a a", 1),
        ("a a a a", 3),
        ("a b a", 0),  # of two tokens that come twice, one has
        ("a b a b", 2),
        ("a b a b a", 3),
        ("x a b c a b c a y", 4),  # bca, and the a behind it, are each the one three before it
        ("a b c x a b c", 0),  # not at once: the stretch that comes again is of four, and not whole
        ("a a x b c b c", 2),  # the longer of two
    ],
)
def test_what_is_repeated_at_once_is_counted_behind_its_first_time(text, expected):
    assert at_once(tokens_of(text)) == expected


# What SmolLM2 wrote by latent 963 of the demo's layer 15, in words, each seen to loop or not.
SHORT = {
    "of war . of war was . of war was . of war of war of war of": True,
    "n n This is a a a a a a a this exactly this exactly this exactly this exactly this": True,
    "The war was ended , but the war was ended . The war was ended . The war was ended": True,
    "n n This is the a . This is the a . This is the n n This is the": True,
    "n n The treaty was not just about the balance of power . It was about the balance of power":
        False,
    "n n The above is a list of the people who have been mentioned in the list of the people":
        False,
    "The war was ended by the Treaty of Bell er ica , in which the king of France was": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SHORT.items())
def test_a_short_text_loops_though_less_than_half_of_its_sequences_came_before(text, expected):
    ids = tokens_of(text)
    assert 17 <= len(ids) <= 20
    assert repetition(ids) < 0.5
    assert loops(ids) is expected


def test_how_much_must_be_repeated_at_once_depends_on_the_length():
    def text(length, repeated):
        """Of different tokens, but for the last ones, which are each the one before."""
        return [*range(length - repeated), *[length - repeated - 1] * repeated]

    # a quarter of the tokens, 4 at least and 12 at most
    for length, least in ((8, 4), (16, 4), (20, 5), (40, 10), (48, 12), (200, 12)):
        assert not loops(text(length, least - 1)), length
        assert loops(text(length, least)), length


def test_a_text_that_says_the_same_with_others_between_loops_by_half_of_its_sequences():
    line = list(range(10, 20))
    ids = [*line, 1, *line, 2, *line, 3, *line]  # never at once
    assert at_once(ids) == 0
    assert repetition(ids) > 0.5  # by hand: 40 sequences, 7 + 3 × 4 = 19 different
    assert loops(ids)


def test_nothing_written_does_not_loop():
    assert not loops([])
    assert not loops([1, 1, 1])
