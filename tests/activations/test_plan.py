"""What a training reads: an exact number of tokens, in windows, and nothing unsaid."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch

from itda_core.activations import plan as plan_module
from itda_core.activations.plan import make_plan
from itda_core.activations.sources import sources_of
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.errors import CorpusError
from itda_core.model.model import Activations
from itda_core.model.tokens import Tokens, padded
from tests.support.trained_runs import tiny_config

EVERYTHING = 10**9


def prompts_of(texts):
    return [Prompt(prompt_id(text), text) for text in texts]


def token_count(model, text):
    """Tokens of one text, uncut, by the tokenizer alone."""
    return len(model.tokenizer(text)["input_ids"])


def slow_lengths(model, texts, context_length, skip_first, budget):
    """Walk through the texts one by one and stop when the budget is spent."""
    lengths, short, cut = [], 0, 0
    for text in texts:
        if budget == 0:
            break
        whole = token_count(model, text)
        if whole < 2:
            short += 1
            continue
        length = min(whole, context_length)
        rows = min(length - 1 if skip_first else length, budget)
        budget -= rows
        cut += whole > context_length
        lengths.append(rows + 1 if skip_first else rows)
    return lengths, short, cut


@pytest.fixture(scope="module")
def texts(tiny_texts, tiny_model):
    """The tiny texts with a few of one token between them."""
    short = ["a", "7", "s", "x"]
    assert [token_count(tiny_model, text) for text in short] == [1, 1, 1, 1]
    mixed = list(tiny_texts)
    for place, text in zip((0, 5, 6, 40), short, strict=True):
        mixed.insert(place, text)
    return mixed


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path, tmp_path)


@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 7, 50, 333, 1_000, EVERYTHING])
def test_the_budget_is_spent_to_the_token(tiny_model, texts, config, budget, skip_first):
    config = dataclasses.replace(config, context_length=24, skip_first=skip_first)
    plan = make_plan(tiny_model, prompts_of(texts), config, budget)
    lengths, short, cut = slow_lengths(tiny_model, texts, 24, skip_first, budget)
    assert plan.lengths == lengths
    assert (plan.too_short, plan.cut) == (short, cut)
    assert plan.total_rows == sum(lengths) - skip_first * len(lengths)
    if budget < EVERYTHING:
        assert plan.total_rows == budget
    else:
        assert plan.total_rows < budget
        assert (short, len(plan.prompts)) == (4, 120)
        assert cut > 10


def test_the_last_prompt_is_read_only_as_far_as_the_budget_goes(tiny_model, texts, config):
    whole = make_plan(tiny_model, prompts_of(texts), config, EVERYTHING)
    budget = int(whole.rows[:6].sum()) + 3
    plan = make_plan(tiny_model, prompts_of(texts), config, budget)
    assert plan.lengths == [*whole.lengths[:6], 4]
    tokens = plan.tokens(5, 7)
    assert tokens.lengths.tolist() == plan.lengths[5:]
    expected = tiny_model.tokenizer(plan.prompts[6].text)["input_ids"][:4]
    assert tokens.ids[1][tokens.mask[1]].tolist() == expected
    assert len(tiny_model.capture(tokens, [0])[0]) == plan.rows[5:].sum()


def test_a_prompt_cut_by_the_context_length_keeps_its_first_tokens(tiny_model, texts, config):
    config = dataclasses.replace(config, context_length=5)
    plan = make_plan(tiny_model, prompts_of(texts), config, EVERYTHING)
    tokens = plan.tokens(0, 8)
    for row in range(8):
        expected = tiny_model.tokenizer(plan.prompts[row].text)["input_ids"][:5]
        assert tokens.ids[row, :5].tolist() == expected
        assert tokens.lengths[row] == 5


def test_a_prompt_longer_than_the_model_takes_is_cut_and_counted(tiny_model, config):
    text = "the treaty " * 200
    assert token_count(tiny_model, text) > tiny_model.context_length == 256
    for context_length in (255, 256, 300, 5_000):
        wide = dataclasses.replace(config, context_length=context_length)
        plan = make_plan(tiny_model, prompts_of([text, "with Spain"]), wide, EVERYTHING)
        assert plan.lengths[0] == min(context_length, 256)
        assert plan.cut == 1


def test_a_prompt_of_exactly_the_context_length_is_not_counted_as_cut(tiny_model, config):
    text = "the senate met to ratify the treaty"
    exact = dataclasses.replace(config, context_length=token_count(tiny_model, text))
    assert make_plan(tiny_model, prompts_of([text]), exact, EVERYTHING).cut == 0


@pytest.mark.parametrize(
    ("batch_tokens", "max_tokens"), [(1, 700), (33, 700), (33, 2_400), (900, 2_400)]
)
def test_windows_take_all_prompts_in_order_and_are_about_a_sixteenth_of_the_tokens(
    tiny_model, texts, config, batch_tokens, max_tokens
):
    config = dataclasses.replace(config, batch_tokens=batch_tokens)
    plan = make_plan(tiny_model, prompts_of(texts), config, max_tokens)
    read = [number for first, last in plan.windows for number in range(first, last)]
    assert read == list(range(len(plan.prompts)))
    sixteenth = max(config.context_length, max_tokens // 16)
    assert plan.step == min(batch_tokens, sixteenth)
    sizes = [sum(plan.lengths[first:last]) for first, last in plan.windows]
    assert all(abs(size - sixteenth) <= max(plan.lengths) for size in sizes[:-1])
    assert len(sizes) > 8


@pytest.mark.parametrize(
    ("batch_tokens", "context_length", "max_tokens", "step"),
    [
        (2_048, 32, 32_000, 2_000),  # a sixteenth of a short training
        (2_048, 32, 10**9, 2_048),
        (100, 32, 32_000, 100),
        (2_048, 200, 1_000, 200),  # a prompt as long as can be fits into a step
        (2_048, 5_000, 1_000, 256),  # the tiny model takes no more
    ],
)
def test_a_step_is_a_sixteenth_of_a_training_and_a_batch_at_most(
    tiny_model, texts, config, batch_tokens, context_length, max_tokens, step
):
    config = dataclasses.replace(config, batch_tokens=batch_tokens, context_length=context_length)
    assert make_plan(tiny_model, prompts_of(texts), config, max_tokens).step == step


def test_a_window_ends_where_the_tokens_so_far_have_filled_it():
    """By hand, for windows of 10: 3 | 28 | 32 35 37 | 67 68 tokens so far, of which the second
    prompt and the one before the last are longer than a window."""
    windows = plan_module._windows([3, 25, 4, 3, 2, 30, 1], 10)
    assert windows == [(0, 1), (1, 2), (2, 5), (5, 7)]
    assert plan_module._windows([40, 40, 40], 10) == [(0, 1), (1, 2), (2, 3)]
    assert plan_module._windows([2, 2], 10) == [(0, 2)]
    assert plan_module._windows([1], 1) == [(0, 1)]


def test_windows_of_a_long_training_are_of_8192_tokens():
    lengths = np.random.default_rng(0).integers(2, 129, 5_000).tolist()
    sizes = [sum(lengths[first:last]) for first, last in plan_module._windows(lengths, 8_192)]
    assert plan_module._WINDOW_TOKENS == 8_192
    assert sum(sizes) == sum(lengths)
    assert all(abs(size - 8_192) <= 128 for size in sizes[:-1])


@pytest.mark.parametrize(("window", "batch_tokens"), [(1, 1), (10, 1), (10, 7), (100, 64)])
def test_prompts_longer_than_a_window_are_read_whole_and_once(
    tiny_model, texts, config, monkeypatch, window, batch_tokens
):
    monkeypatch.setattr(plan_module, "_WINDOW_TOKENS", window)
    config = dataclasses.replace(config, batch_tokens=batch_tokens, context_length=200)
    plan = make_plan(tiny_model, prompts_of([*texts, " ".join(texts)]), config, EVERYTHING)
    assert max(plan.lengths) == 200 > window
    read = [number for first, last in plan.windows for number in range(first, last)]
    assert read == list(range(len(plan.prompts)))
    sizes = [sum(plan.lengths[first:last]) for first, last in plan.windows]
    assert min(sizes) > 0
    assert all(size < window + max(plan.lengths) for size in sizes)


def test_a_step_larger_than_a_window_makes_the_window_larger(
    tiny_model, texts, config, monkeypatch
):
    monkeypatch.setattr(plan_module, "_WINDOW_TOKENS", 10)
    config = dataclasses.replace(config, batch_tokens=500)
    plan = make_plan(tiny_model, prompts_of(texts), config, EVERYTHING)
    assert plan.step == 500
    sizes = [sum(plan.lengths[first:last]) for first, last in plan.windows]
    assert all(abs(size - 500) <= 32 for size in sizes[:-1])


def test_windows_are_not_all_padded_at_once(tiny_model, texts, config, monkeypatch):
    made = []

    def remembered(*arguments):
        tokens = padded(*arguments)
        made.append(weakref.ref(tokens))
        return tokens

    monkeypatch.setattr(plan_module, "padded", remembered)
    plan = make_plan(tiny_model, prompts_of(texts), config, 1_000)
    assert len(plan.windows) > 8
    for step in tiny_model.capture_each(plan.in_windows(), [1]):
        assert sum(tokens() is not None for tokens in made) <= 2  # one, and perhaps its next
        expected = tiny_model.capture(plan.tokens(*plan.windows[step.number]), [1])
        assert torch.equal(step.value[1], expected[1])
    assert step.number == len(plan.windows) - 1


@pytest.mark.parametrize("skip_first", [True, False])
def test_first_rows_are_the_rows_that_capture_gives(tiny_model, texts, config, skip_first):
    config = dataclasses.replace(config, skip_first=skip_first)
    plan = make_plan(tiny_model, prompts_of(texts), config, 700)
    prompts, positions = [], []
    for first, last in plan.windows:
        rows = tiny_model.capture(plan.tokens(first, last), [0], skip_first)
        prompts += (rows.prompts + first).tolist()
        positions += rows.positions.tolist()
    assert len(prompts) == 700
    for count in (0, 1, 17, 699, 700):
        found = plan.first_rows(count)
        assert found[0].tolist() == prompts[:count]
        assert found[1].tolist() == positions[:count]


def test_sources_say_which_prompt_characters_and_word_a_row_is(tiny_model):
    # The tiny tokenizer knows these characters only as bytes: 4 of the emoji, 2 of each letter.
    texts = ["a🎉b", "a\nb", "שת"]
    prompts = prompts_of(texts)
    tokens = tiny_model.tokenize(texts)
    rows = tiny_model.capture(tokens, [0])
    assert list(sources_of(tokens, prompts, rows)) == [
        *[(prompts[0].prompt_id, position, 1, 2, "🎉", 0) for position in (1, 2, 3, 4)],
        (prompts[0].prompt_id, 5, 2, 3, "b", 0),
        (prompts[1].prompt_id, 1, 1, 2, "\n", 2),
        (prompts[1].prompt_id, 2, 2, 3, "b", 2),
        (prompts[2].prompt_id, 1, 0, 1, "ש", 0),
        *[(prompts[2].prompt_id, position, 1, 2, "ת", 0) for position in (2, 3)],
    ]


def test_the_first_position_has_a_source_where_it_is_kept(tiny_model):
    texts = ["a treaty", "x y"]
    tokens = tiny_model.tokenize(texts)
    rows = tiny_model.capture(tokens, [0], skip_first=False)
    found = list(sources_of(tokens, prompts_of(texts), rows))
    assert len(found) == len(rows[0]) == tokens.mask.sum()
    firsts = [source for source in found if source[1] == 0]
    assert firsts == [(prompt_id(text), 0, 0, 1, text[0], 0) for text in texts]


@pytest.fixture
def counted(monkeypatch):
    """The (prompt, position) of every token whose text is asked for."""
    asked, token_text = [], Tokens.token_text

    def counting(self, row, position):
        asked.append((row, position))
        return token_text(self, row, position)

    monkeypatch.setattr(Tokens, "token_text", counting)
    return asked


def test_only_sources_that_are_looked_at_are_made(tiny_model, texts, counted):
    tokens = tiny_model.tokenize(texts)
    rows = tiny_model.capture(tokens, [0])
    sources = sources_of(tokens, prompts_of(texts), rows)
    some = sources.take(np.array([7, 3, 3, len(rows[0]) - 1]))
    assert len(sources) == len(rows[0]) > 1_000
    assert len(some) == 4
    assert counted == []
    assert some[1] == some[2] == sources[3]
    places = list(zip(rows.prompts.tolist(), rows.positions.tolist(), strict=True))
    assert counted == [places[3]] * 3
    assert list(some) == [sources[row] for row in (7, 3, 3, len(sources) - 1)]
    assert list(some.take(np.array([3, 0]))) == [sources[-1], sources[7]]
    assert list(sources.take(np.array([], dtype=np.int64))) == []


def test_sources_hold_the_numbers_that_json_and_parquet_take(tiny_model):
    tokens = tiny_model.tokenize(["the treaty"])
    rows = Activations({}, np.array([0]), np.array([1]))
    [source] = sources_of(tokens, prompts_of(["the treaty"]), rows)
    assert [type(part) for part in source] == [str, int, int, int, str, int]


def test_the_rows_of_a_plan_without_prompts_left_over_add_up(tiny_model, texts, config):
    plan = make_plan(tiny_model, prompts_of(texts), config, 100)
    assert np.array_equal(plan.rows, np.array(plan.lengths) - 1)
    assert plan.rows.dtype == np.int64


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "s", "7"]])
def test_prompts_that_are_all_too_short_are_refused(tiny_model, config, texts):
    with pytest.raises(CorpusError, match="at least two tokens"):
        make_plan(tiny_model, prompts_of(texts), config, 100)
