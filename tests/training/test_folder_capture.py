"""`itda capture` and a training from its folder, against a training on the model itself."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.folder_writer import write_rows
from itda_core.activations.recorded import folder_config
from itda_core.cli import console
from itda_core.config import CorpusSpec, ModelSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError, ItdaError
from itda_core.evaluation.batch import check_model, held_out_prompts
from itda_core.exchange.model_card import model_card
from itda_core.runs.run import NEAR_MISS_FILE, list_runs, read_run
from itda_core.training import folder_capture
from itda_core.training.folder_capture import capture_config, capture_folder
from tests.support.swept_models import both_kinds
from tests.support.trained_runs import tiny_config, trained


def of_tiny(model, corpus, dtype="float32", **changes):
    """What `tiny_config` reads, to be captured."""
    fields = {"max_tokens": 1_000, "context_length": 32, **changes}
    spec = ModelSpec(str(model), dtype=dtype)
    return capture_config(spec, CorpusSpec(str(corpus)), (0, 1, 2), **fields)


def captured_into(folder, config, **options):
    """options: with a model, none is loaded."""
    return [*capture_folder(config, folder, "cpu", **options)][-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    target = tmp_path_factory.mktemp("captured") / "folder"
    captured_into(target, of_tiny(tiny_model_folder, tiny_corpus_file))
    return target


def method_of(config):
    names = ("layers", "max_tokens", "max_atoms", "l0", "selection", "explored_tokens")
    return {name: getattr(config, name) for name in (*names, "batch_tokens")}


def runs_by_layer(folder):
    return {run.layer: run for run in list_runs(folder)}


def assert_made_alike(of_folder, of_model):
    """All that a run holds is the same, but for where it comes from."""
    assert set(of_folder) == set(of_model)
    for layer, run in of_folder.items():
        other = of_model[layer]
        file = "dictionary.safetensors"
        assert (run.directory / file).read_bytes() == (other.directory / file).read_bytes()
        for file in ("codes.parquet", "prompts.parquet", "sources.parquet", NEAR_MISS_FILE):
            frames = [pd.read_parquet(one.directory / file) for one in (run, other)]
            pd.testing.assert_frame_equal(*frames)
        assert {**run.metrics, "seconds": 0} == {**other.metrics, "seconds": 0}
        about = ("d_model", "n_layers", "dtype", "model_digest", "corpus_digest", "put_in")
        assert [run.about[name] for name in about] == [other.about[name] for name in about]


def test_the_dictionaries_are_those_of_the_model_byte_for_byte(
    folder, undisturbed, config, tmp_path
):
    made = folder_config(folder, **method_of(config))
    trained(made, tmp_path)
    assert_made_alike(runs_by_layer(tmp_path), runs_by_layer(undisturbed))


def test_so_are_those_of_the_coverage_at_another_place_in_bfloat16(
    tiny_model_folder, tiny_corpus_file, tmp_path
):
    config = tiny_config(
        tiny_model_folder, tiny_corpus_file, "bfloat16",
        selection="coverage", layers=(1, 2), max_atoms=60, seed=3, site="mlp_out",
    )  # fmt: skip
    trained(config, tmp_path / "model")
    target = tmp_path / "folder"
    captured = of_tiny(tiny_model_folder, tiny_corpus_file, "bfloat16", seed=3, site="mlp_out")
    captured_into(target, captured)
    kept = load_file(target / "part-00000.1.mlp_out.safetensors")["1.mlp_out"]
    assert kept.dtype == torch.bfloat16  # which loses nothing of what such a model computes
    trained(folder_config(target, **method_of(config)), tmp_path / "runs")
    assert_made_alike(runs_by_layer(tmp_path / "runs"), runs_by_layer(tmp_path / "model"))


def test_each_row_is_the_hidden_state_of_its_token(folder, tiny_model, tiny_corpus_file):
    opened = ActivationFolder(folder)
    prompts = opened.selected(held_out=False)[:3] + opened.selected(held_out=True)[:2]
    for prompt in prompts:
        text = opened.tokenized(prompt.prompt_id, prompt.text)
        first, last = opened.rows_of(prompt.prompt_id)
        ids = tiny_model.tokenizer(prompt.text)["input_ids"][: len(text)]
        with torch.inference_mode():
            states = tiny_model.module(torch.tensor([ids]), output_hidden_states=True)
        for layer in (0, 2):
            rows = opened.rows(layer, first, last, "resid_post")
            torch.testing.assert_close(
                rows, states.hidden_states[layer + 1][0, 1:], rtol=1e-4, atol=1e-5
            )


def test_held_out_prompts_are_those_of_the_corpus(folder, tiny_corpus_file):
    corpus = load_corpus(CorpusSpec(str(tiny_corpus_file)))
    opened = ActivationFolder(folder)
    expected = [prompt.prompt_id for prompt in corpus.held_out()]
    held_out = [prompt.prompt_id for prompt in opened.selected(held_out=True)]
    assert held_out == expected[: len(held_out)]
    order = [prompt.prompt_id for prompt in corpus.training(0)]
    training = [prompt.prompt_id for prompt in opened.selected(held_out=False)]
    assert training == order[: len(training)]
    assert opened.n_rows(held_out=False) == 1_000


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of some 130 rows."""
    monkeypatch.setattr(folder_capture, "_PART_BYTES", 4 * 16 * 130)


def test_an_interrupted_capture_goes_on_behind_what_is_written(
    tmp_path, tiny_model_folder, tiny_corpus_file, tiny_model, small_parts
):
    config = of_tiny(tiny_model_folder, tiny_corpus_file)
    whole, target = tmp_path / "whole", tmp_path / "target"
    captured_into(whole, config, model=tiny_model)
    steps = capture_folder(config, target, model=tiny_model)
    for progress in steps:
        if progress.tokens > 500:
            break
    steps.close()
    newest = sorted(target.glob("part-*"))[-1]
    assert newest.name.endswith(".2.resid_post.safetensors")
    newest.unlink()  # as if it had been killed between the files of a part
    number = newest.name.partition(".")[0]
    parts = [path for path in target.glob("part-*") if not path.name.startswith(number)]
    there = {path: path.stat().st_mtime_ns for path in parts}
    assert 3 * 3 <= len(there) < len([*whole.glob("part-*")]) - 6
    with pytest.raises(InputError, match=r"has no activations\.json"):
        ActivationFolder(target)
    (target / ".part-00007.1.resid_post.safetensors-12-3").write_bytes(b"half")
    again = capture_folder(config, target, model=tiny_model)
    first = next(progress.tokens for progress in again if progress.stage == "capturing")
    assert first >= 390
    list(again)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert files_of(target) == files_of(whole)
    assert [path for path in target.iterdir() if path.name.startswith(".")] == []


def test_a_model_that_is_read_block_by_block_gives_the_same_folder(
    folder, tmp_path, tiny_model_folder, tiny_corpus_file
):
    _, swept = both_kinds(tiny_model_folder)
    target = tmp_path / "swept"
    captured_into(target, of_tiny(tiny_model_folder, tiny_corpus_file), model=swept)
    assert files_of(target) == files_of(folder)


def test_parts_of_any_size_give_the_same_training(
    folder, tmp_path, tiny_model_folder, tiny_corpus_file, tiny_model, small_parts, config
):
    target = tmp_path / "target"
    captured_into(target, of_tiny(tiny_model_folder, tiny_corpus_file), model=tiny_model)
    assert len(ActivationFolder(target).index.parts) > 6
    for name, place in (("one", folder), ("other", target)):
        made = folder_config(place, **{**method_of(config), "layers": (1,)})
        trained(made, tmp_path / name)
    assert_made_alike(runs_by_layer(tmp_path / "one"), runs_by_layer(tmp_path / "other"))


def test_a_capture_that_is_done_is_not_made_again(
    folder, tiny_model_folder, tiny_corpus_file, tiny_model
):
    before = files_of(folder)
    config = of_tiny(tiny_model_folder, tiny_corpus_file)
    assert captured_into(folder, config, model=tiny_model).stage == "done"
    assert files_of(folder) == before


def test_a_folder_with_something_else_is_left_alone(
    folder, tmp_path, tiny_model_folder, tiny_corpus_file, tiny_model
):
    other = of_tiny(tiny_model_folder, tiny_corpus_file, seed=1)
    with pytest.raises(InputError, match="holds other activations already"):
        captured_into(folder, other, model=tiny_model)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-a-friend.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty"):
        captured_into(tmp_path / "letters", other, model=tiny_model)
    with pytest.raises(InputError, match="is a file"):
        captured_into(tmp_path / "letters" / "to-a-friend.txt", other, model=tiny_model)


def test_types_that_can_not_hold_an_activation_are_refused(
    tmp_path, tiny_model_folder, tiny_corpus_file, tiny_model
):
    config = of_tiny(tiny_model_folder, tiny_corpus_file)
    captured_into(tmp_path / "half", config, stored="float16", model=tiny_model)
    kept = load_file(tmp_path / "half" / "part-00000.1.resid_post.safetensors")["1.resid_post"]
    assert kept.dtype == torch.float16
    with pytest.raises(InputError, match=r"float16 can't hold .* 7e\+04\. Keep them in bfloat16"):
        write_rows(tmp_path, "x", {"1.resid_post": torch.tensor([[7e4]])}, "float16")


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path, tiny_model_folder, tiny_corpus_file, tiny_model, monkeypatch
):
    monkeypatch.setattr(folder_capture.shutil, "disk_usage", lambda _: type("", (), {"free": 9}))
    with pytest.raises(ItdaError, match="no space left on the disk"):
        config = of_tiny(tiny_model_folder, tiny_corpus_file)
        captured_into(tmp_path / "full", config, model=tiny_model)
    assert [*(tmp_path / "full").glob("part-*")] == []


# The command line, and what comes afterwards


def test_commands_capture_train_and_evaluate(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file, folder
):
    options = ["--model", tiny_model_folder, "--corpus", tiny_corpus_file, "--layers", "0,1,2"]
    options += ["--max-tokens", 1_000, "--context-length", 32, "--dtype", "float32"]
    target = tmp_path / "captured"
    code, out, _ = cli("capture", *options, "--out", target, "--json", "--device", "cpu")
    assert code == 0
    told = json.loads(out)
    assert told["tokens"] == 1_000
    assert told["layers"] == [0, 1, 2]
    assert told["bytes"] == sum(path.stat().st_size for path in target.iterdir())
    assert files_of(target) == files_of(folder)
    training = ["--max-tokens", 1_000, "--max-atoms", 60, "--l0", 4, "--layers", "1", "--json"]
    runs = ["--runs", tmp_path / "runs", "--device", "cpu"]
    code, out, _ = cli("train", "--activations", target, *training, *runs)
    assert code == 0
    [run] = json.loads(out)["runs"]
    code, out, _ = cli("evaluate", run["run_id"], "--l0s", "4", "--json", *runs)
    assert code == 0
    [evaluated] = json.loads(out)["runs"]
    assert evaluated["by_l0"][0]["fvu"] == pytest.approx(run["fvu"], rel=1e-4)


def test_fewer_tokens_than_are_asked_for_are_said_and_kept_with_the_run(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file, tiny_texts
):
    (tmp_path / "few.txt").write_text("\n\n".join(tiny_texts[:20]), encoding="utf-8")
    options = ["--model", tiny_model_folder, "--corpus", tmp_path / "few.txt", "--layers", 1]
    options += ["--dtype", "float32", "--max-tokens", 5_000, "--json"]
    target, runs = tmp_path / "captured", ["--runs", tmp_path / "runs"]
    code, out, error = cli("capture", *options, "--out", target)
    there = json.loads(out)["tokens"]
    note = f"{there:,} tokens beside those held out, fewer than the 5,000 asked for"
    assert (code, error.count(f"The corpus gives {note}")) == (0, 1)
    code, again, error = cli("capture", *options, "--out", target)
    assert (code, again) == (0, out)
    assert f"{target} has all of it already" in error

    training = ["--max-tokens", 5_000, "--max-atoms", 30, "--l0", 4, "--json", *runs]
    code, out, error = cli("train", "--activations", target, *training)
    assert (code, error.count(f"The folder of activations has {note}")) == (0, 1)
    assert "Opening the folder of activations" in error
    assert "Loading the model" not in error
    run = read_run(Path(json.loads(out)["runs"][0]["directory"]))
    assert (run.config.max_tokens, run.metrics["asked_tokens"]) == (5_000, 5_000)
    assert run.metrics["tokens"] == there
    assert "`asked_tokens`" in model_card(run, "owner/name")
    lines = (run.directory / "progress.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["asked_tokens"] == 5_000
    code, _, error = cli("train", "--activations", target, *training)  # it is there already
    assert f"fewer tokens than the 5,000 asked for: {there:,} were read" in error


def test_a_stopped_command_says_how_to_go_on_and_does(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file, small_parts, monkeypatch
):
    options = ["--model", tiny_model_folder, "--corpus", tiny_corpus_file, "--layers", 1]
    options += ["--max-tokens", 600, "--context-length", 32, "--out", tmp_path / "out"]

    def stopping(progress):
        if progress.tokens > 300:
            os.kill(os.getpid(), signal.SIGTERM)
        return describe(progress)

    describe = console.describe
    monkeypatch.setattr(console, "describe", stopping)
    code, _, error = cli("capture", *options, "--device", "cpu")
    assert code == 1
    assert "Stopped. Go on with: the same command." in error
    monkeypatch.setattr(console, "describe", describe)
    assert not (tmp_path / "out" / "activations.json").exists()
    code, out, _ = cli("capture", *options, "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["tokens"] == 600


def test_options_that_a_folder_decides_are_refused(cli, folder, tmp_path):
    options = ["train", "--activations", folder, "--runs", tmp_path]
    code, _, error = cli(*options, "--model", "minilm-l6", "--context-length", 64)
    assert code == 2
    assert f"{folder} says whose activations: leave out --model, --context-length." in error
    code, _, error = cli(*options, "--layers", "3")
    assert code == 2
    assert "has layers 0, 1, 2" in error


@pytest.fixture
def copied(folder, tmp_path):
    target = tmp_path / "copied"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def trained_without(copied, tmp_path, what, value=None):
    path = copied / "activations.json"
    index = json.loads(path.read_text())
    where, name = what
    (index[where] if where else index)[name] = value
    path.write_text(json.dumps(index))
    trained(folder_config(copied, layers=(1,), max_atoms=20, l0=4), tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    return run


def test_an_unknown_model_is_not_taken_for_the_one_of_its_name(copied, tmp_path, tiny_model):
    run = trained_without(copied, tmp_path, ("model", "digest"))
    with pytest.raises(InputError, match="do not say which version of"):
        check_model(run, tiny_model)


def test_another_model_of_that_name_is_refused(copied, tmp_path, tiny_model):
    run = trained_without(copied, tmp_path, ("model", "digest"), "0123456789abcdef")
    with pytest.raises(InputError, match="has changed since"):
        check_model(run, tiny_model)


def test_held_out_prompts_without_a_corpus_are_not_guessed(copied, tmp_path):
    run = trained_without(copied, tmp_path, ("", "corpus"))
    assert run.metrics["held_out_tokens"] > 0
    with pytest.raises(InputError, match="names no corpus"):
        held_out_prompts(run)


def test_what_a_dictionary_was_trained_on_is_not_taken_for_held_out(copied, tmp_path):
    """The folder names a corpus, and holds out other prompts than that."""
    table = pd.read_parquet(copied / "prompts.parquet")
    its_own = table["held_out"].copy()
    table["held_out"] = [number < 5 for number in range(len(table))]
    table.to_parquet(copied / "prompts.parquet")
    trained(folder_config(copied, layers=(1,), max_atoms=20, l0=4, max_tokens=2_000), tmp_path)
    [run] = list_runs(tmp_path)
    with pytest.raises(InputError, match=f"was trained on {its_own.sum()} of the .* holds out"):
        held_out_prompts(run)


def test_the_explored_tokens_are_decomposed_as_they_were_recorded(folder, tmp_path):
    trained(folder_config(folder, layers=(2,), max_atoms=20, l0=4, max_tokens=300), tmp_path)
    [run] = list_runs(tmp_path)
    opened, dictionary = ActivationFolder(folder), run.dictionary()
    codes = pd.read_parquet(run.directory / "codes.parquet")
    name = opened.selected(held_out=False)[2].prompt_id
    rows = opened.rows(2, *opened.rows_of(name), "resid_post")
    expected = dictionary.encode(rows)
    its = codes[(codes["prompt_id"] == name) & (codes["step"] == 0)].sort_values("position")
    assert its["latent"].tolist() == expected.latents[:, 0].tolist()
    assert np.allclose(its["coefficient"], expected.coefficients[:, 0], rtol=1e-5)
