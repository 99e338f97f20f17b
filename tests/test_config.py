"""A configuration says what is wrong with it, and names its training by all that decides it."""

import dataclasses
import json
from pathlib import Path

import pytest

from itda_core.config import (
    CONFIG_VERSION,
    CorpusSpec,
    HookPoint,
    ModelSpec,
    Origin,
    TrainConfig,
    run_id,
    slug,
)
from itda_core.data_folder import data_directory
from itda_core.errors import InputError, SettingError
from itda_core.exchange.importing import ImportOptions
from itda_core.settings import SELECTIONS, SETTINGS

CONFIG = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("sotu"), layers=(7, 15))

# Another valid value for every field, so that a field added later is not forgotten here.
ORIGIN = Origin("tiny-1f0e9a3c-L07", "d", "tiny", 7, "mlp_out", "step1000")
OTHER = {
    "model": [ModelSpec("minilm-l6"), ModelSpec("smollm2-135m", "main"),
              ModelSpec("smollm2-135m", None, "bfloat16")],
    "corpus": [
        CorpusSpec("other.csv"),
        CorpusSpec("sotu", "body"),
        CorpusSpec("sotu", separator=";"),
        CorpusSpec("sotu", quote=""),
        CorpusSpec("sotu", header=False),
        CorpusSpec("sotu", encoding="cp1252"),
    ],
    "layers": [(7,), (7, 15, 22), (15, 16)],
    "site": ["resid_pre", "attn_out", "resid_mid", "mlp_out"],
    "max_tokens": [65_537],
    "context_length": [127],
    "max_atoms": [2_047],
    "l0": [31],
    "threshold": [0.2000001],
    "seed": [1, 2**63 - 1],
    "explored_tokens": [0],
    "skip_first": [False],
    "batch_tokens": [4_095],
    "selection": [name for name in SELECTIONS if name != CONFIG.selection],
    "offset": ["zero"],
    "pursuit": ["refit", "matching"],
    "budget": ["mean"],
    "activations": ["folder"],
    "moved_from": [
        ORIGIN,
        dataclasses.replace(ORIGIN, digest="e"),
        dataclasses.replace(ORIGIN, run_id="other"),
        dataclasses.replace(ORIGIN, before=ORIGIN),
    ],
}  # fmt: skip


def changed(name, value):
    """CONFIG with one field changed; another selection brings its own offset and pursuit."""
    method = {"offset": None, "pursuit": None} if name == "selection" else {}
    if name == "moved_from" and value is not None:
        method = {"selection": "moved"}
    return dataclasses.replace(CONFIG, **{**method, name: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("context_length", 1),
        ("max_atoms", 0),
        ("l0", 0),
        ("explored_tokens", -1),
        ("batch_tokens", 0),
        ("threshold", -0.25),
        ("threshold", 4.5),
        ("threshold", float("nan")),
        ("selection", "the best"),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.5),
        ("seed", True),
        ("l0", True),
        ("l0", 32_768),
        ("threshold", True),
        ("threshold", "0.2"),
        ("max_tokens", 2**31),
        ("skip_first", "false"),
        ("skip_first", 1),
        ("budget", None),
    ],
)
def test_a_field_out_of_range_is_refused_by_name_with_the_value_given(field, value):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(CONFIG, **{field: value})
    assert field in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (2**40, "at most 2,147,483,647, got 1099511627776"),
        (True, "a whole number, got True"),
        (1.5, "a whole number, got 1.5"),
        ("{0}", "a whole number, got '{0}'"),
        (-1, "Layers count from 0, got -1"),
    ],
)
def test_each_layer_is_checked_by_the_table_as_one_that_is_imported_is(layer, words):
    for make in (
        lambda: dataclasses.replace(CONFIG, layers=(0, layer)),
        lambda: ImportOptions(layer=layer),
    ):
        with pytest.raises(SettingError) as caught:
            make()
        assert words in caught.value.named("option")


def test_more_atoms_than_tokens_are_refused_with_both_numbers_and_what_to_do():
    with pytest.raises(InputError, match=r"max_atoms \(101\).*max_tokens \(100\).*fewer atoms"):
        dataclasses.replace(CONFIG, max_atoms=101, max_tokens=100)
    assert dataclasses.replace(CONFIG, max_atoms=100, max_tokens=100).max_atoms == 100


def test_every_field_stands_in_the_table_of_settings_with_its_default_allowed():
    spec_fields = {"revision", "dtype", "column"}
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(TrainConfig)} | spec_fields
    for field in dataclasses.fields(TrainConfig)[3:]:
        SETTINGS[field.name].check(field.default)


def test_a_message_names_settings_as_the_person_sees_them():
    with pytest.raises(SettingError) as caught:
        dataclasses.replace(CONFIG, max_atoms=101, max_tokens=100)
    assert str(caught.value).startswith("max_atoms (101) is more than max_tokens (100)")
    assert caught.value.named("option").startswith("--max-atoms (101) is more than --max-tokens")
    assert caught.value.named("label").startswith("Atoms (101) is more than Tokens (100)")
    with pytest.raises(SettingError) as caught:
        dataclasses.replace(CONFIG, selection="{0} {x}")
    assert caught.value.named("label").endswith("got '{0} {x}'.")


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), (" 7 ", 7), ("9223372036854775807", 2**63 - 1), ("9007199254740993", 2**53 + 1)],
)
def test_a_whole_number_is_read_to_its_last_digit(text, value):
    assert SETTINGS["seed"].read(text) == value


@pytest.mark.parametrize("text", ["", "1.5", "1e3", "1,000", "one", "-1", "9223372036854775808"])
def test_a_text_that_is_no_number_that_will_do_is_refused_as_it_was_typed(text):
    with pytest.raises(SettingError) as caught:
        SETTINGS["seed"].read(text)
    assert caught.value.named("label").startswith("Seed must be ")
    assert (text or "got nothing") in str(caught.value)


def test_more_terms_than_atoms_are_refused_where_no_atom_is_taken_twice():
    too_many = dataclasses.replace(CONFIG, l0=5_000, max_atoms=256)  # and a run of it can be read
    assert TrainConfig.of_finished(too_many.to_dict()) == too_many
    for pursuit in ("orthogonal", "refit"):
        with pytest.raises(SettingError) as caught:
            dataclasses.replace(too_many, pursuit=pursuit).check()
    told = "L0 (5,000) is more than Atoms (256): a token can't use more terms than there are atoms"
    assert caught.value.named("label").startswith(told)
    dataclasses.replace(too_many, l0=256).check()
    dataclasses.replace(too_many, pursuit="matching").check()  # docs/method.md: may repeat one


def test_a_run_of_before_with_a_seed_below_zero_is_read_and_not_trained_again():
    fields = {**CONFIG.to_dict(), "selection": "threshold", "offset": None, "pursuit": None}
    with pytest.raises(SettingError, match="seed must be at least 0, got -1"):
        TrainConfig.from_dict({**fields, "seed": -1})
    old = TrainConfig.of_finished({**fields, "seed": -1})
    assert old.to_dict()["seed"] == -1
    assert old.with_dtype("bfloat16").but(layers=(3,)).seed == -1
    assert old.but(seed=5).seed == 5
    assert TrainConfig.of_finished(CONFIG.to_dict()) == CONFIG
    with pytest.raises(SettingError, match="seed must be at least 0, got -1"):
        old.check()
    with pytest.raises(SettingError, match="at most"):
        TrainConfig.of_finished({**fields, "seed": 2**63})


def test_an_l0_on_average_leaves_room_for_twice_as_many_terms():
    assert dataclasses.replace(CONFIG, budget="mean", l0=16_383).max_terms == 32_766
    with pytest.raises(SettingError, match=r"l0 must be at most 16,383 .*got 16384"):
        dataclasses.replace(CONFIG, budget="mean", l0=16_384)


def test_no_layer_and_layers_below_zero_are_refused():
    with pytest.raises(InputError, match="at least one layer"):
        dataclasses.replace(CONFIG, layers=())
    with pytest.raises(InputError, match=r"from 0, got -3"):
        dataclasses.replace(CONFIG, layers=(1, -3))


@pytest.mark.parametrize("name", ["", "   ", "\n"])
def test_a_model_or_corpus_without_a_name_is_refused(name):
    with pytest.raises(InputError, match="Give a model"):
        ModelSpec(name)
    with pytest.raises(InputError, match="Give a corpus"):
        CorpusSpec(name)


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"float32.*got 'int8'"):
        ModelSpec("smollm2-135m", dtype="int8")


def test_layers_are_sorted_and_each_stands_once():
    assert dataclasses.replace(CONFIG, layers=(15, 7, 15)).layers == (7, 15)
    assert dataclasses.replace(CONFIG, layers=[15, 7]) == CONFIG


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.l0 = 3


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_a_configuration_survives_json_whatever_field_differs(field):
    for value in [getattr(CONFIG, field.name), *OTHER[field.name]]:
        config = changed(field.name, value)
        read = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert read == config
        assert type(getattr(read, field.name)) is type(getattr(config, field.name))


def test_fields_that_were_not_written_take_their_defaults():
    read = TrainConfig.from_dict(
        {"model": {"name": "smollm2-135m"}, "corpus": {"name": "sotu"}, "layers": [7, 15]}
    )
    assert read == CONFIG


def test_a_configuration_of_a_newer_version_is_refused():
    with pytest.raises(InputError, match=r"newer version: update"):
        TrainConfig.from_dict({**CONFIG.to_dict(), "version": CONFIG_VERSION + 1})


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        [1],
        None,
        "text",
        {**CONFIG.to_dict(), "colour": "red"},
        {**CONFIG.to_dict(), "version": "1"},
        {**CONFIG.to_dict(), "model": "smollm2-135m"},
        {**CONFIG.to_dict(), "model": {"name": 5}},
        {**CONFIG.to_dict(), "model": {}},
        {**CONFIG.to_dict(), "layers": 7},
        {**CONFIG.to_dict(), "layers": ["7"]},
        {**CONFIG.to_dict(), "layers": [7.5]},
        {**CONFIG.to_dict(), "layers": [True]},
        {**CONFIG.to_dict(), "layers": "7"},
        {**CONFIG.to_dict(), "version": True},
        {**CONFIG.to_dict(), "version": 2.5},
        {**CONFIG.to_dict(), "corpus": {"name": "sotu", "columns": "body"}},
        {**CONFIG.to_dict(), "model": {"name": "smollm2-135m", "revision": 5}},
        {**CONFIG.to_dict(), "l0": "32"},
        {**CONFIG.to_dict(), "l0": 2.5},
        {**CONFIG.to_dict(), "l0": None},
        {name: value for name, value in CONFIG.to_dict().items() if name != "layers"},
    ],
)
def test_json_that_is_no_configuration_is_refused(content):
    with pytest.raises(InputError):
        TrainConfig.from_dict(content)


def test_the_id_of_a_training_depends_on_every_field_and_on_both_digests():
    assert set(OTHER) == {field.name for field in dataclasses.fields(TrainConfig)}
    others = [changed(name, value) for name, values in OTHER.items() for value in values]
    ids = [config.training_id("model", "corpus") for config in [CONFIG, *others]]
    ids += [CONFIG.training_id("other", "corpus"), CONFIG.training_id("model", "other")]
    assert len(set(ids)) == len(ids) > len(OTHER)


def test_the_id_of_a_training_is_the_same_for_the_same_configuration():
    same = dataclasses.replace(CONFIG, layers=(15, 7, 7))
    read = TrainConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict())))
    assert len({one.training_id("model", "corpus") for one in (CONFIG, same, read)}) == 1


def test_every_layer_of_a_training_has_a_run_id_of_its_own():
    training_id = CONFIG.training_id("model", "corpus")
    ids = {run_id(training_id, layer) for layer in range(120)}
    assert len(ids) == 120
    assert all(name.startswith(f"{training_id}-L") for name in ids)
    assert run_id("smollm2-135m-1f0e9a3c", 7) == "smollm2-135m-1f0e9a3c-L07"


@pytest.mark.parametrize(
    "name",
    ["smollm2-135m", "HuggingFaceTB/SmolLM2-135M", "/home/me/models/tiny/", "C:\\models\\Tiny\\",
     "..", "../..", "/", ".", ".hidden", "a b\tc\n", "日本語", "émile", "x" * 500, "a/" * 90,
     "con:*?<>|\"'", "\x00", "-", "- . -", "👩‍👩‍👧", "$(rm -rf)", "%2e%2e"],
)  # fmt: skip
def test_a_slug_is_safe_as_the_beginning_of_a_file_name(name):
    made = slug(name)
    assert 1 <= len(made) <= 40
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert made[0] not in ".-"
    assert ".." not in made


def test_a_slug_keeps_the_last_part_of_the_name():
    assert slug("HuggingFaceTB/SmolLM2-135M_Instruct") == "smollm2-135m-instruct"
    assert slug("C:\\models\\Tiny v1.5\\") == "tiny-v1.5"


def test_the_data_folder_is_beside_the_code_unless_the_environment_says_otherwise(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("ITDA_DATA", str(tmp_path))
    assert data_directory() == tmp_path
    monkeypatch.setenv("ITDA_DATA", "~/of mine")
    assert data_directory() == Path.home() / "of mine"
    monkeypatch.setenv("ITDA_DATA", "")
    assert data_directory().name == "data"
    assert (data_directory().parent / "itda_core" / "config.py").exists()


def test_the_usual_site_is_no_part_of_what_is_written_so_that_ids_stay():
    assert "site" not in CONFIG.to_dict()
    assert CONFIG.to_dict() == dataclasses.replace(CONFIG, site="resid_post").to_dict()
    other = dataclasses.replace(CONFIG, site="mlp_out")
    assert other.to_dict() == {**CONFIG.to_dict(), "site": "mlp_out"}
    assert TrainConfig.from_dict(other.to_dict()) == other
    with pytest.raises(SettingError, match="site must be one of resid_pre, attn_out"):
        dataclasses.replace(CONFIG, site="mlp")


def test_a_layer_is_named_with_its_site_where_that_is_not_the_usual_one():
    assert HookPoint("gpt2", 7).in_words == "layer 7"
    assert HookPoint("gpt2", 7, "attn_out").in_words == "layer 7 attn_out"
