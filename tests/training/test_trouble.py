"""What can go wrong in a training ends in a sentence or a count, and harms nothing stored."""

import dataclasses
import errno
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from itda_core.corpus.corpus import load_corpus, prompt_id
from itda_core.dictionary import dictionary as dictionary_module
from itda_core.errors import CorpusError, InputError, ItdaError
from itda_core.model.loading import load_model
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs
from itda_core.runs.workspace import RowFile
from itda_core.training import trainer as training
from tests.support.trained_runs import (
    assert_same_runs,
    strict_json,
    tiny_config,
    trained,
)


def write_corpus(folder, texts, name="corpus.txt"):
    path = folder / name
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


def nothing_in(folder):
    return not folder.exists() or not list(folder.iterdir())


# Corpora and layers


@pytest.mark.parametrize("layers", [(4,), (0, 99), tuple(range(1_000_000))])
def test_layers_that_do_not_exist_are_refused_with_those_that_do(config, tmp_path, layers):
    wrong = dataclasses.replace(config, layers=layers)
    with pytest.raises(InputError, match=r"has layers 0 to 3; there is no layer") as caught:
        trained(wrong, tmp_path / "runs")
    assert len(str(caught.value)) < 400
    assert nothing_in(tmp_path / "runs")


@pytest.mark.parametrize("content", ["", "   \n\n \t \n"])
def test_an_empty_corpus_is_refused(config, tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    wrong = tiny_config(config.model.name, tmp_path / "empty.txt")
    with pytest.raises(CorpusError, match=r"empty\.txt (is empty|holds no text). Choose"):
        trained(wrong, tmp_path / "runs")
    assert nothing_in(tmp_path / "runs")


def test_a_corpus_of_one_token_prompts_is_refused(config, tmp_path):
    corpus = write_corpus(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(CorpusError, match=r"at least two tokens. Choose longer texts"):
        trained(tiny_config(config.model.name, corpus), tmp_path / "runs")
    assert nothing_in(tmp_path / "runs")


def test_short_and_cut_prompts_are_counted_in_progress_and_in_the_run(
    config, tmp_path, tiny_model, tiny_texts
):
    corpus = write_corpus(tmp_path, [*"abcdefgh", *tiny_texts[:30]])
    small = tiny_config(config.model.name, corpus, max_tokens=10_000, layers=(1,))
    last = trained(small, tmp_path / "runs")[-1]
    read = [prompt.text for prompt in load_corpus(small.corpus).training(small.seed)]
    counts = [len(tiny_model.tokenizer(text)["input_ids"]) for text in read]
    expected = {
        "prompts shorter than two tokens": sum(count < 2 for count in counts),
        "prompts cut to the context length": sum(count > 32 for count in counts),
    }
    assert all(expected.values())
    assert last.skipped == expected
    assert list_runs(tmp_path / "runs")[0].metrics["skipped"] == expected


def test_held_out_prompts_of_one_token_leave_the_run_without_an_fvu(
    config, tmp_path, tiny_model, tiny_texts
):
    """Which prompts are held out depends on their ids alone, so the shortest may be the ones."""
    words = [word for word in tiny_model.tokenizer.get_vocab() if word.isalpha() and len(word) > 1]
    short = next(
        word
        for word in sorted(words)
        if word.isascii()
        and len(tiny_model.tokenizer(word)["input_ids"]) == 1
        and prompt_id(word) < "2"
    )
    longer = [text for text in tiny_texts if prompt_id(text) > "4"][:10]
    corpus = write_corpus(tmp_path, [short, *longer])
    config = tiny_config(config.model.name, corpus, max_atoms=40, layers=(1,))
    assert [prompt.text for prompt in load_corpus(config.corpus).held_out()] == [short]
    trained(config, tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    assert run.metrics["fvu"] is None
    assert run.metrics["held_out_tokens"] == 0


def test_one_prompt_alone_is_trained_on_and_measured_on_nothing(config, tmp_path, tiny_texts):
    corpus = write_corpus(tmp_path, [tiny_texts[3]])
    trained(tiny_config(config.model.name, corpus, max_atoms=5, layers=(1,)), tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    assert len(run.dictionary()) == 5
    assert run.metrics["fvu"] is None
    strict_json((run.directory / "metrics.json").read_text())


def test_a_single_explored_token_has_no_variance_and_no_fvu(config, tmp_path):
    one = dataclasses.replace(config, explored_tokens=1, max_atoms=20, layers=(1,))
    trained(one, tmp_path)
    [run] = list_runs(tmp_path)
    metrics = strict_json((run.directory / "metrics.json").read_text())
    assert metrics["explored_tokens"] == 1
    assert metrics["explored_fvu"] is None
    used = set(pq.read_table(run.directory / "codes.parquet")["latent"].to_pylist())
    assert 1 <= len(used) <= 4
    assert metrics["unused_share"] == pytest.approx((20 - len(used)) / 20)


def test_more_atoms_than_the_corpus_has_tokens_is_refused_with_how_many_there_are(
    config, tmp_path, tiny_model, tiny_texts
):
    corpus = write_corpus(tmp_path, tiny_texts[:5])
    wrong = tiny_config(config.model.name, corpus, max_atoms=900)
    read = load_corpus(wrong.corpus).training(0)
    counts = [min(32, len(tiny_model.tokenizer(prompt.text)["input_ids"])) - 1 for prompt in read]
    with pytest.raises(InputError, match=rf"gives {sum(counts)} tokens.*at most {sum(counts)}"):
        trained(wrong, tmp_path / "runs")
    assert nothing_in(tmp_path / "runs")


# Activations that are not finite


def make_bad(monkeypatch, layer, where):
    """Activations of `layer` (and so of those after it) are NaN at the positions `where` picks."""

    def loaded(spec, **place):
        model = load_model(spec, **place)

        def spoil(_module, _inputs, hidden):
            positions = torch.arange(hidden.shape[1])
            return hidden.masked_fill(where(positions)[None, :, None], float("nan"))

        model.blocks[layer].register_forward_hook(spoil)
        return model

    monkeypatch.setattr(training, "load_model", loaded)


def test_activations_that_are_not_finite_are_skipped_and_counted(
    config, tmp_path, monkeypatch, undisturbed
):
    make_bad(monkeypatch, 1, lambda positions: positions == 5)
    config = dataclasses.replace(config, layers=(0, 1))
    last = trained(config, tmp_path)[-1]
    untouched, spoiled = list_runs(tmp_path)
    prompts = untouched.dictionary().prompt_ids
    lengths = [row.size for row in pq.read_table(untouched.directory / "prompts.parquet")["ends"]
               .to_pandas()]  # fmt: skip
    assert len(lengths) == len(prompts)
    bad = sum(length > 5 for length in lengths)
    what = "activations not finite or zero"
    assert last.skipped[what] == spoiled.metrics["skipped"][what] == bad > 20
    assert what not in untouched.metrics["skipped"]
    positions = spoiled.dictionary().sources["position"]
    assert 5 not in set(positions)
    assert {4, 6} <= set(positions)
    assert torch.isfinite(spoiled.dictionary().atoms).all()
    codes = pq.read_table(spoiled.directory / "codes.parquet").to_pandas()
    assert 5 not in set(codes["position"])
    assert spoiled.metrics["fvu"] < 1
    assert spoiled.metrics["explored_tokens"] < untouched.metrics["explored_tokens"] == 600
    before = list_runs(undisturbed)[0].dictionary()
    assert torch.equal(untouched.dictionary().atoms, before.atoms)


def test_what_was_skipped_before_an_interruption_is_counted_after_it(config, tmp_path, monkeypatch):
    make_bad(monkeypatch, 1, lambda positions: positions == 5)
    config = dataclasses.replace(config, layers=(0, 1))
    trained(config, tmp_path / "uninterrupted")
    steps = training.train(config, tmp_path / "runs")
    while next(steps).tokens < 500:
        pass
    steps.close()
    trained(config, tmp_path / "runs")
    assert_same_runs(tmp_path / "runs", tmp_path / "uninterrupted")


def test_a_layer_without_any_finite_activation_ends_in_a_sentence(config, tmp_path, monkeypatch):
    make_bad(monkeypatch, 2, lambda positions: positions >= 0)
    with pytest.raises(ItdaError, match=r"Layer 2 of .* no finite activation. Choose dtype"):
        trained(config, tmp_path)
    others = [layer for layer in config.layers if layer != 2]
    assert [run.layer for run in list_runs(tmp_path)] == others  # the good ones are not lost
    assert interrupted_trainings(tmp_path) == {}


# The disk


def raise_no_space(*_arguments, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (pq.ParquetWriter, "write_table"),
        (dictionary_module, "write_atomically"),
        (training.Workspace, "add_to_log"),
        (RowFile, "write"),
        (RowFile, "flush"),
    ],
    ids=["codes", "checkpoint", "log", "activations", "activations in a buffer"],
)
def test_a_full_disk_ends_in_a_sentence_and_spoils_no_run(
    config, tmp_path, undisturbed, owner, name
):
    runs = tmp_path / "runs"
    shutil.copytree(undisturbed, runs)
    other = dataclasses.replace(config, seed=8)
    with pytest.MonkeyPatch.context() as full:
        full.setattr(owner, name, raise_no_space)
        with pytest.raises(ItdaError, match=r"no space left on the disk of .*runs.*resume"):
            trained(other, runs)
    assert_same_runs(runs, undisturbed)
    assert not [path for path in runs.iterdir() if path.name.startswith(".writing")]
    assert list(interrupted_trainings(runs).values()) == [other]

    # With room again it goes on, to what it would have been.
    finished = trained(other, runs)[-1].finished
    assert len(finished) == 3
    assert len(list_runs(runs)) == 6
    trained(other, tmp_path / "afresh")
    for run in list_runs(runs):
        if run.config != other:
            shutil.rmtree(run.directory)
    assert_same_runs(runs, tmp_path / "afresh")


def test_a_disk_that_fills_up_half_way_resumes_from_the_checkpoint(
    config, tmp_path, undisturbed, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    write, windows = RowFile.write, []

    def fill_up(self, first, rows):
        if first > 300:
            write(self, first, rows[:5])  # what still found room
            raise_no_space()
        windows.append(first)
        write(self, first, rows)

    with pytest.MonkeyPatch.context() as full:
        full.setattr(RowFile, "write", fill_up)
        with pytest.raises(ItdaError, match=r"no space left on the disk of .*resume"):
            trained(config, tmp_path)
    assert windows[-1] > 200
    steps = trained(config, tmp_path)
    assert next(step.tokens for step in steps if step.stage == "training") > 300
    assert_same_runs(tmp_path, undisturbed)


def test_too_little_room_for_the_activations_is_said_before_the_work(config, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**12, 10**12, 1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(ItdaError, match="no space left"):
        trained(config, tmp_path)
    assert list_runs(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_named(config, tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(training.Workspace, "save_checkpoint", refuse)
    with pytest.raises(ItdaError, match=r"can't be written to \(.*\). Change its rights"):
        trained(config, tmp_path)
    assert list_runs(tmp_path) == []


def test_runs_given_as_a_file_are_refused(config, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ItdaError):
        trained(config, tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_layer_without_an_atom_is_told_why(tmp_path, tiny_model_folder):
    """With a context of two, texts that begin alike give one activation many times."""
    corpus = tmp_path / "alike.txt"
    corpus.write_text("\n\n".join(f"The same words, then {number}" for number in range(60)))
    config = tiny_config(
        tiny_model_folder, corpus, layers=(1,), context_length=2, max_tokens=40, max_atoms=5, l0=2,
        selection="coverage", offset="mean", pursuit="orthogonal",
    )  # fmt: skip
    with pytest.raises(ItdaError, match=r"no atom: .*a longer context") as failed:
        trained(config, tmp_path / "runs")
    assert "float32" not in str(failed.value)
    other = dataclasses.replace(config, offset="zero")
    assert trained(other, tmp_path / "runs")  # as the message proposes
