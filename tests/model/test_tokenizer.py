"""What a tokenizer's files set for other uses is not taken over, and what a tokenizer is named."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from itda_core.errors import ModelError
from itda_core.model.built_in import BUILT_IN
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.model.tokenizer import is_of_before, may_be_same, put_in, tokenizer_digest
from itda_core.model.tokens import tokenize
from tests.support.tiny_models import save_tiny_model, tiny_module, tiny_tokenizer
from tests.support.tiny_tokenizers import byte_level, fast, sentencepiece

TEXT = "The senate met to ratify the treaty with Spain, and the house agreed to the report."


def changed_folder(folder, settings=None, file=None):
    """A tiny model whose tokenizer's files say more: tokenizer_config.json and tokenizer.json."""
    save_tiny_model(folder)
    for name, more in (("tokenizer_config.json", settings), ("tokenizer.json", file)):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **(more or {})}))
    return folder


TRUNCATION = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 2}
PADDING = {
    "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
    "pad_type_id": 0, "pad_token": "<|endoftext|>",
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"truncation_side": "left"}, None),
        ({"padding_side": "left", "pad_to_multiple_of": 16, "max_length": 5, "stride": 2}, None),
        ({"model_max_length": 5}, None),
        (None, {"truncation": TRUNCATION}),
        (None, {"padding": PADDING}),
        ({"truncation_side": "left"}, {"truncation": TRUNCATION, "padding": PADDING}),
    ],
)
def test_settings_for_cutting_and_padding_change_no_token_and_no_name(tmp_path, settings, file):
    plain = load_model(str(save_tiny_model(tmp_path / "plain")))
    other = load_model(str(changed_folder(tmp_path / "other", settings, file)))
    whole = tiny_tokenizer().backend_tokenizer.encode(TEXT).ids
    assert len(whole) > 12
    for length in (4, 12, 200):
        for model in (plain, other):
            tokens = model.tokenize([TEXT, "a"], length)
            assert tokens.ids[0, : tokens.lengths[0]].tolist() == whole[:length]
            assert tokens.lengths.tolist() == [min(length, len(whole)), 1]
    assert plain.tokenizer_digest == other.tokenizer_digest


def test_the_end_is_cut_and_the_closing_token_stays(tmp_path):
    tokenizer = tiny_tokenizer(with_marks=True)
    tokenizer.truncation_side = "left"
    cut = tokenize(tokenizer, [TEXT, "a"], 6)
    whole = tiny_tokenizer().backend_tokenizer.encode(TEXT).tokens
    assert cut.names == (("[CLS]", *whole[:4], "[SEP]"), ("[CLS]", "a", "[SEP]"))
    assert cut.special[0].tolist() == [True, *[False] * 4, True]
    for longest in (1, 2, 3):
        assert tokenize(tokenizer, [TEXT], longest).lengths.tolist() == [longest]


def test_threads_that_read_to_different_lengths_do_not_disturb_each_other(tmp_path):
    model = load_model(str(save_tiny_model(tmp_path)))
    texts = [TEXT] * 50

    def read(length):
        return {tuple(model.tokenize(texts, length).lengths.tolist()) for _ in range(30)}

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(read, (3, 5, 7, 11)))
    assert found == [{(length,) * 50} for length in (3, 5, 7, 11)]


def test_long_texts_are_read_in_groups_and_in_their_order(monkeypatch):
    texts = [TEXT[: 3 * number] for number in range(20)]
    together = tokenize(tiny_tokenizer(), texts, 64)
    monkeypatch.setattr("itda_core.model.tokens._TOGETHER_CHARACTERS", 40)
    apart = tokenize(tiny_tokenizer(), texts, 64)
    assert apart.texts == together.texts
    assert np.array_equal(apart.ids, together.ids) and np.array_equal(apart.spans, together.spans)


# The digest


def variant(change):
    """The digest of a tokenizer with one part changed."""
    tokenizer = tiny_tokenizer()
    change(tokenizer)
    return tokenizer_digest(tokenizer)


CHANGES = {
    "normaliser": lambda t: setattr(t.backend_tokenizer, "normalizer", normalizers.NFC()),
    "decoder": lambda t: setattr(t.backend_tokenizer, "decoder", decoders.Fuse()),
    "post-processor": lambda t: setattr(
        t.backend_tokenizer, "post_processor", processors.ByteLevel(trim_offsets=True)
    ),
    "added token": lambda t: t.add_tokens(["senate"]),
    "setting": lambda t: setattr(t, "split_special_tokens", True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_part_of_a_tokenizer_is_in_its_digest(change):
    assert variant(change) != tokenizer_digest(tiny_tokenizer())


def test_what_earlier_versions_named_alike_is_told_apart_now():
    """The same vocabulary and the same tokens of the one sentence that they looked at."""
    plain, other = tokenizer_digest(tiny_tokenizer()), variant(CHANGES["normaliser"])
    assert plain.partition("-")[0] == other.partition("-")[0]
    assert not may_be_same(plain, other)
    before = plain.partition("-")[0]
    assert is_of_before(before) and not is_of_before(plain)
    assert may_be_same(before, plain) and may_be_same(other, before)
    assert not may_be_same("0" * 16, plain)


def test_a_digest_stays_what_it_is_when_the_tokenizer_was_used_and_saved(tmp_path):
    model = load_model(str(save_tiny_model(tmp_path)))
    model.tokenizer(["a", TEXT], truncation=True, max_length=3, padding="max_length")
    assert model.tokenizer_digest == tokenizer_digest(tiny_tokenizer())


def test_built_in_models_that_earlier_versions_named_alike_have_one_tokenizer():
    """So that old and new runs of different ones compare by token."""
    wholes = {}
    for name in [*[*BUILT_IN][2:], "minilm-l6"]:
        before, _, whole = load_model(name).tokenizer_digest.partition("-")
        wholes.setdefault(before, set()).add(whole)
    assert len(wholes) == 2
    assert all(len(found) == 1 for found in wholes.values())


@pytest.mark.parametrize(
    ("tokenizer", "before", "after"),
    [
        (tiny_tokenizer(), [], []),
        (tiny_tokenizer(with_marks=True), ["[CLS]"], ["[SEP]"]),
        (byte_level(prefix_space=True, roberta=True), ["<s>", "Ġ"], ["</s>"]),
        (sentencepiece(), ["<s>", "▁"], []),
    ],
)
def test_what_a_tokenizer_puts_around_a_text_is_told(tokenizer, before, after):
    assert put_in(tokenizer) == {"before": before, "after": after}


# Tokens that the model does not know


def test_a_token_without_an_embedding_is_refused_by_name():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["senate"])
    model = Model(
        "tiny", tiny_module(n_vocabulary=len(tokenizer) - 1), tokenizer, "", "model.layers"
    )
    assert int(model.tokenize(["the treaty"]).lengths[0]) > 1
    with pytest.raises(ModelError, match=r"'senate'.*embeddings for numbers below"):
        model.tokenize(["the treaty", "the senate met"])


def test_a_tokenizer_of_words_only_is_read(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))

    assert tokenize(fast(backend), ["a"], 4).spans.tolist() == [[[0, 1]]]
