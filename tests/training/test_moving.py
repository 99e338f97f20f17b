"""A dictionary moves to another model, layer or tokenizer with its latents, and says what it is."""

import dataclasses
import functools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from itda_core.activations.recorded import folder_config
from itda_core.activations.sources import source_table, sources_of
from itda_core.config import CorpusSpec, HookPoint, ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError, RunError
from itda_core.model.loading import load_model
from itda_core.runs.checks import by_content
from itda_core.runs.run import list_runs, read_run
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import MovedBuilder
from itda_core.selection.coverage import choose
from itda_core.store.store import Store
from itda_core.training import trainer as training
from itda_core.training.folder_capture import capture_config, capture_folder
from itda_core.training.moving import Move, move, move_config
from itda_core.training.run_writer import each_once
from itda_core.training.trainer import resume
from tests.support.edited_runs import edit_about
from tests.support.pretend_device import PretendDevice
from tests.support.swept_models import rewrite_config, too_little
from tests.support.tiny_models import save_tiny_model, tiny_module
from tests.support.tiny_tokenizers import sentencepiece
from tests.support.trained_runs import advance, assert_same_runs, tiny_config, trained

LAYER = 1


def spec(folder):
    return ModelSpec(str(folder), dtype="float32")


def moved(run, folder, runs, layers=(LAYER,), **options):
    """The runs of a move, and its last progress."""
    *_, last = move(run, spec(folder), layers, runs, **options)
    return [read_run(runs / name) for name in last.finished], last


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """A run whose atoms were chosen among all that it read, all of it explored."""
    folder = tmp_path_factory.mktemp("chosen")
    changes = {"selection": "coverage", "layers": (LAYER,), "max_atoms": 90}
    changes |= {"max_tokens": 900, "explored_tokens": 900}
    trained(tiny_config(tiny_model_folder, tiny_corpus_file, **changes), folder)
    return list_runs(folder)[0]


@pytest.fixture(scope="module")
def greedy(runs_folder):
    """One of the published method, which explored less than it read."""
    return next(run for run in list_runs(runs_folder) if run.layer == LAYER)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """Another model with the same tokenizer."""
    folder = tmp_path_factory.mktemp("other") / "tiny-other"
    return save_tiny_model(folder, "qwen2", seed=5, d_model=24)


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory):
    """One with finer tokens that are others, and room for 24 of them."""
    folder = tmp_path_factory.mktemp("foreign") / "tiny-foreign"
    tiny_module(seed=6, d_model=16, n_layers=4).save_pretrained(folder)
    sentencepiece().save_pretrained(folder)
    rewrite_config(folder, max_position_embeddings=24)
    return folder


@pytest.fixture(scope="module")
def abroad(greedy, foreign_folder, tmp_path_factory):
    """The greedy run in the model with other tokens."""
    runs, last = moved(greedy, foreign_folder, tmp_path_factory.mktemp("abroad"))
    return runs[0], last


@functools.cache
def transformers_own(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@functools.cache
def hidden_states(folder, text, length):
    """transformers' own, [n_layers + 1, length, d_model] float32; layer L is number L + 1."""
    model, tokenizer = transformers_own(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"][:length]])
    with torch.inference_mode():
        return torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0]


def texts(run):
    table = pd.read_parquet(run.directory / "prompts.parquet")
    return dict(zip(table["prompt_id"], table["text"], strict=True))


def codes(run):
    return pd.read_parquet(run.directory / "codes.parquet").sort_values(
        ["prompt_id", "position", "step"], ignore_index=True
    )


# The atoms


def test_to_the_same_place_it_gives_the_same_dictionary(chosen, tiny_model_folder, tmp_path):
    [run], last = moved(chosen, tiny_model_folder, tmp_path)
    before, after = chosen.dictionary(), run.dictionary()
    torch.testing.assert_close(after.atoms, before.atoms, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.offset, before.offset, atol=1e-6, rtol=0)
    pd.testing.assert_frame_equal(after.sources, before.sources)
    assert after.words.tolist() == before.words.tolist()
    assert after.origin_latents.tolist() == list(range(len(before)))
    same = ["prompt_ids", "reading", "l0", "pursuit", "median_norm", "hook_point", "tokenizer"]
    assert all(getattr(after, name) == getattr(before, name) for name in same)
    assert np.array_equal(after.pool.positions, before.pool.positions)
    pd.testing.assert_frame_equal(codes(run), codes(chosen), atol=1e-4)
    assert run.metrics["fvu"] == pytest.approx(chosen.metrics["fvu"], rel=1e-4)
    assert run.run_id != chosen.run_id
    assert last.notes == chosen.about.get("notes", last.notes)
    assert run.about["moved"] == {"left_out": [], "together": []}


@pytest.mark.parametrize("which", ["chosen", "greedy"])
def test_atoms_are_the_directions_of_transformers_hidden_states(
    request, which, other_folder, tmp_path
):
    """A source's hidden state, less the mean of the explored ones where the origin has a mean."""
    origin = request.getfixturevalue(which)
    [run], _ = moved(origin, other_folder, tmp_path, layers=(2,))
    dictionary, text_of = run.dictionary(), texts(run)
    states = {
        name: hidden_states(other_folder, text_of[name], 32)[3].numpy()
        for name in set(dictionary.sources["prompt_id"])
    }
    read = pd.read_parquet(run.directory / "prompts.parquet").query("explored")
    explored = []
    for name, starts in zip(read["prompt_id"], read["starts"], strict=True):
        if name not in states:
            states[name] = hidden_states(other_folder, text_of[name], 32)[3].numpy()
        explored.append(states[name][1 : len(starts)])
    explored = np.concatenate(explored)[: run.metrics["explored_tokens"]].astype(np.float64)
    offset = explored.mean(0) if which == "chosen" else np.zeros(24)
    np.testing.assert_allclose(dictionary.offset, offset, atol=1e-4)
    for row, source in enumerate(dictionary.sources.itertuples()):
        x = states[source.prompt_id][source.position] - offset
        np.testing.assert_allclose(dictionary.atoms[row], x / np.linalg.norm(x), atol=2e-4)
    before = origin.dictionary().sources
    pd.testing.assert_frame_equal(dictionary.sources, before)


def test_the_library_moves_a_dictionary_without_a_run(greedy, chosen, other_folder, tmp_path):
    model = load_model(str(other_folder), device="cpu")
    [run], _ = moved(greedy, other_folder, tmp_path, layers=(2,))
    by_itself = greedy.dictionary().moved(model, 2)
    torch.testing.assert_close(by_itself.atoms, run.dictionary().atoms, atol=1e-5, rtol=0)
    pd.testing.assert_frame_equal(by_itself.sources, run.dictionary().sources)
    # Where there is an offset, it is the mean of the prompts that hold sources, up to the last.
    by_itself = chosen.dictionary().moved(model, 2)
    last = chosen.dictionary().sources.groupby("prompt_id")["position"].max()
    text_of = texts(chosen)
    rows = [
        hidden_states(other_folder, text_of[name], 32)[3][1 : position + 1]
        for name, position in last.items()
    ]
    mean = torch.cat(rows).mean(0)
    torch.testing.assert_close(by_itself.offset, mean, atol=1e-4, rtol=0)
    assert by_itself.save(tmp_path / "one.safetensors")
    again = Dictionary.load(tmp_path / "one.safetensors")
    assert again.origin_latents.tolist() == list(range(len(again)))
    with pytest.raises(RunError, match="load the dictionary from its run directory"):
        again.moved(model, 2)
    given = again.moved(model, 2, prompts=text_of.values())
    torch.testing.assert_close(given.atoms, by_itself.atoms, atol=1e-5, rtol=0)


def test_a_move_that_reads_few_texts_was_not_asked_for_more():
    """Of 9 tokens that a training asks for it would lack 4."""
    about = (SimpleNamespace(max_tokens=9), None, None, SimpleNamespace(total_rows=5), None)
    assert TrainingContext(*about).asked_tokens == 9
    assert TrainingContext(*about, moved=SimpleNamespace()).asked_tokens == 0


def test_an_l0_on_average_is_found_on_other_tokens_where_every_prompt_holds_a_source():
    """Two prompts of four tokens, with a source each: nothing lies in a prompt without one."""
    plan = SimpleNamespace(
        total_rows=8, prompts=[SimpleNamespace(prompt_id="a"), SimpleNamespace(prompt_id="b")],
        first_rows=lambda count: (np.repeat([0, 1], 4)[:count], np.tile(range(4), 2)[:count]),
    )  # fmt: skip
    builder = object.__new__(MovedBuilder)
    builder._context = SimpleNamespace(plan=plan)
    builder._sources, builder._drawn = np.array([1, 7]), np.arange(8)
    assert builder._apart().tolist() == [True, False, True, True, True, True, True, False]


def test_held_out_prompts_that_the_run_read_are_not_held_out(greedy):
    """As of a run from a folder of activations, which may hold out others than its corpus."""
    dictionary = greedy.dictionary()
    read = dictionary.prompt_ids[:3]
    held_out = [SimpleNamespace(prompt_id=name) for name in (*read, "0" * 16)]
    corpus = SimpleNamespace(name="these", held_out=lambda: held_out)
    why = Move(greedy, dictionary)._why_not_held_out(corpus)
    assert why == f"{greedy.run_id} read 3 of the prompts that these holds out."


def test_another_place_in_the_block_is_moved_to(greedy, other_folder, tmp_path):
    [run], _ = moved(greedy, other_folder, tmp_path, layers=(2,), site="resid_pre")
    [before], _ = moved(greedy, other_folder, tmp_path, layers=(1,))
    assert run.site == "resid_pre"
    torch.testing.assert_close(run.dictionary().atoms, before.dictionary().atoms)


def test_a_model_that_is_read_block_by_block_gives_the_same_runs(
    greedy, tiny_model_folder, tmp_path
):
    memory = too_little(tiny_model_folder)
    moved(greedy, tiny_model_folder, tmp_path / "swept", (0, 2), device="cpu", memory=memory)
    moved(greedy, tiny_model_folder, tmp_path / "resident", (0, 2), device="cpu")
    assert_same_runs(tmp_path / "swept", tmp_path / "resident")


def test_on_another_device_the_same_dictionary_is_made(chosen, tiny_model_folder, tmp_path):
    [expected], _ = moved(chosen, tiny_model_folder, tmp_path / "cpu", (2,), device="cpu")
    with PretendDevice():
        [run], _ = moved(chosen, tiny_model_folder, tmp_path / "device", (2,), device="pretend")
    one, other = run.dictionary(), expected.dictionary()
    torch.testing.assert_close(one.atoms, other.atoms, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.offset, other.offset, atol=1e-5, rtol=0)
    assert run.metrics["fvu"] == pytest.approx(expected.metrics["fvu"], rel=1e-3)


def test_an_l0_on_average_is_found_anew(
    tiny_model_folder, tiny_corpus_file, other_folder, tmp_path
):
    """At the same place it is the training's own, whose mean left out what it measured on; in
    another model tokens use as many terms on average."""
    changes = {"selection": "coverage", "layers": (LAYER,), "max_atoms": 60, "budget": "mean"}
    changes |= {"max_tokens": 900, "explored_tokens": 900}
    trained(tiny_config(tiny_model_folder, tiny_corpus_file, **changes), tmp_path)
    [origin] = list_runs(tmp_path)
    [run], _ = moved(origin, tiny_model_folder, tmp_path / "moved")
    assert origin.dictionary().min_projection > 0
    found, expected = run.dictionary(), origin.dictionary()
    assert found.min_projection == pytest.approx(expected.min_projection, rel=0.03)
    [there], _ = moved(origin, other_folder, tmp_path / "there")
    for one in (origin, run, there):
        terms = len(codes(one)) / one.metrics["explored_tokens"]
        assert terms == pytest.approx(4, abs=0.8), one.run_id
    by_itself = expected.moved(load_model(str(other_folder), device="cpu"), LAYER)
    least = there.dictionary().min_projection
    assert by_itself.min_projection == pytest.approx(least, rel=0.2)


def test_a_run_from_a_folder_of_activations_moves_to_a_model(
    tiny_model_folder, tiny_corpus_file, other_folder, tmp_path
):
    captured = capture_config(
        spec(tiny_model_folder), CorpusSpec(str(tiny_corpus_file)), (LAYER,), max_tokens=600,
        context_length=32,
    )  # fmt: skip
    list(capture_folder(captured, tmp_path / "folder", "cpu"))
    config = folder_config(tmp_path / "folder", max_atoms=40, l0=4)
    trained(config, tmp_path / "runs")
    shutil.rmtree(tmp_path / "folder")
    [origin] = list_runs(tmp_path / "runs")
    [run], _ = moved(origin, other_folder, tmp_path / "moved")
    assert run.config.activations is None
    pd.testing.assert_frame_equal(run.dictionary().sources, origin.dictionary().sources)
    assert run.metrics["fvu"] is not None, "the folder names its corpus"


# Other tokens


def test_what_has_no_token_is_left_out_by_name_and_the_others_say_their_numbers(
    abroad, greedy, foreign_folder
):
    run, last = abroad
    dictionary, before = run.dictionary(), greedy.dictionary()
    left_out = {row["latent"]: row["why"] for row in run.about["moved"]["left_out"]}
    assert left_out, "the test has to leave out some"
    assert len(dictionary) + len(left_out) == len(before)
    assert not set(left_out) & set(dictionary.origin_latents.tolist())
    assert dictionary.sources["latent"].tolist() == list(range(len(dictionary)))
    assert any(str(min(left_out)) in note and "Left out" in note for note in last.notes)
    assert last.skipped["latents without a token"] == len(left_out)
    # By hand: where the words end that the sources are in, in the tokenizer's own offsets.
    tokenizer = transformers.AutoTokenizer.from_pretrained(foreign_folder)
    text_of = texts(greedy)
    for number, source in enumerate(before.sources.itertuples()):
        spans = tokenizer(text_of[source.prompt_id], return_offsets_mapping=True)
        ends = [end for _, end in spans["offset_mapping"]]
        is_read = source.end <= max(ends[:24])
        assert is_read or number in left_out
        if number in left_out:
            assert left_out[number] == "it lies beyond the tokens that the model takes"
            continue
        row = dictionary.origin_latents.tolist().index(number)
        found = dictionary.sources.iloc[row]
        assert found["prompt_id"] == source.prompt_id
        assert found["end"] >= source.end
        if source.end in ends[1:24]:
            assert found["end"] == source.end


def test_latents_that_meet_on_one_token_are_told(abroad):
    run, last = abroad
    dictionary, groups = run.dictionary(), run.about["moved"]["together"]
    places = dictionary.sources.assign(number=dictionary.origin_latents)
    met = places.groupby(["prompt_id", "position"])["number"].agg(list)
    assert sorted(groups) == sorted(numbers for numbers in met if len(numbers) > 1)
    assert groups, "the test has to have some"
    row_of = {number: row for row, number in enumerate(dictionary.origin_latents.tolist())}
    for first, *others in groups:
        for other in others:
            assert torch.equal(dictionary.atoms[row_of[first]], dictionary.atoms[row_of[other]])
    assert any("Atoms of one token are equal" in note for note in last.notes)


# Chains, and what a run says of itself


def test_a_chain_of_moves_keeps_the_numbers_of_the_first(abroad, greedy, other_folder, tmp_path):
    between, _ = abroad
    [run], _ = moved(between, other_folder, tmp_path, layers=(2,))
    assert run.dictionary().origin_latents.tolist() == between.dictionary().origin_latents.tolist()
    origin = run.config.moved_from
    assert [one.run_id for one in origin.chain] == [between.run_id, greedy.run_id]
    assert origin.first.run_id == greedy.run_id
    assert run.method == "moved from tiny-foreign layer 1"
    again = TrainConfig.from_dict(json.loads(json.dumps(run.config.to_dict())))
    assert again == run.config
    sources = pd.read_parquet(run.directory / "sources.parquet")
    assert sources["origin"].tolist() == run.dictionary().origin_latents.tolist()
    store = Store()
    for one in (greedy, between, run):
        store.import_run(one)
    table = store.runs.table().set_index("run_id")
    assert set(table["root"]) == {greedy.run_id}
    assert table["moved_from"][run.run_id] == between.run_id
    assert pd.isna(table["moved_from"][greedy.run_id])
    digests = store.database.query("SELECT DISTINCT root_digest FROM runs")["root_digest"]
    assert digests.tolist() == [greedy.dictionary().digest], "it is known by what it is as well"
    latents = store.latents.table(run.run_id, store.latents.numbers(run.run_id))
    assert latents["origin"].tolist() == sources["origin"].tolist()
    latents = store.latents.table(greedy.run_id, store.latents.numbers(greedy.run_id))
    assert latents["origin"].tolist() == latents["latent"].tolist()


def test_a_moved_run_outlives_the_one_that_it_is_from(greedy, other_folder, tmp_path):
    shutil.copytree(greedy.directory, tmp_path / greedy.run_id)
    origin = read_run(tmp_path / greedy.run_id)
    [run], _ = moved(origin, other_folder, tmp_path)
    shutil.rmtree(origin.directory)
    assert len(read_run(run.directory).dictionary()) == len(greedy.dictionary())
    [onward], _ = moved(read_run(run.directory), other_folder, tmp_path, layers=(3,))
    assert onward.metrics["atoms"] == run.metrics["atoms"]


def test_settings_of_trainings_name_no_origin(chosen):
    config = chosen.config
    assert "moved_from" not in config.to_dict()
    with pytest.raises(InputError, match="itda move"):
        dataclasses.replace(config, selection="moved")
    settings = move_config(chosen, spec("a/model"), [3])
    assert settings.training_id("a", "b") != settings.but(
        moved_from=dataclasses.replace(settings.moved_from, digest="0")
    ).training_id("a", "b")
    with pytest.raises(InputError, match="moved_from"):
        TrainConfig.from_dict({**settings.to_dict(), "moved_from": {"run": 3}})


# What comes between


def test_a_move_that_was_stopped_goes_on_to_the_same_runs(
    greedy, other_folder, tmp_path, monkeypatch
):
    moved(greedy, other_folder, tmp_path / "undisturbed", (1, 2))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    runs = tmp_path / "stopped"
    shutil.copytree(greedy.directory, runs / greedy.run_id)
    for stage, number in (("moving", 4), ("encoding", 1)):
        steps = move(greedy, spec(other_folder), (1, 2), runs)
        at = advance(steps, stage, number).training_id
        steps.close()
    assert [*resume(at, runs)][-1].stage == "done"
    shutil.rmtree(runs / greedy.run_id)
    assert_same_runs(runs, tmp_path / "undisturbed")
    _, last = moved(greedy, other_folder, runs, (1, 2))
    assert last.tokens == 0, "it is not made again"


def test_without_its_corpus_the_runs_own_prompts_do(greedy, other_folder, tmp_path):
    [whole], _ = moved(greedy, other_folder, tmp_path / "whole")
    shutil.copytree(greedy.directory, tmp_path / greedy.run_id)
    corpus = greedy.about["config"]["corpus"] | {"name": str(tmp_path / "gone.txt")}
    edit_about(tmp_path / greedy.run_id, {"corpus": corpus})
    [run], last = moved(read_run(tmp_path / greedy.run_id), other_folder, tmp_path)
    assert run.metrics["fvu"] is None
    assert any("gone.txt" in note and "--corpus" in note for note in last.notes)
    assert torch.equal(run.dictionary().atoms, whole.dictionary().atoms)
    pd.testing.assert_frame_equal(codes(run), codes(whole))


def test_a_prompt_that_was_read_twice_keeps_the_spans_of_the_tokens_that_codes_are_of():
    """[CLS] ab cd [SEP], then as far as its sources lie; the other prompt is read for them alone,
    once up to the context length and once beyond."""
    explored = [(0, 0), (0, 2), (3, 5), (0, 0)]
    further = [(0, 0), (0, 2), (3, 5), (6, 8), (9, 11), (0, 0)]
    rows = [("p", True, explored), ("q", False, explored), ("p", False, further)]
    rows += [("q", False, further), ("r", True, explored)]
    table = pd.DataFrame(
        {
            "prompt_id": [name for name, *_ in rows],
            "explored": [is_explored for _, is_explored, _ in rows],
            "starts": [np.array(spans)[:, 0] for *_, spans in rows],
            "ends": [np.array(spans)[:, 1] for *_, spans in rows],
        }
    )
    found = {
        row.prompt_id: (
            row.explored,
            list(zip(row.starts.tolist(), row.ends.tolist(), strict=True)),
        )
        for row in each_once(table).itertuples()
    }
    assert list(found) == ["p", "q", "r"]
    assert found == {
        "p": (True, [*explored, *further[4:]]),
        "q": (False, further),
        "r": (True, explored),
    }


def test_an_autoencoder_is_refused(chosen, other_folder, tmp_path, monkeypatch):
    sae = dataclasses.replace(chosen.dictionary(), encoder=object())
    monkeypatch.setattr(type(chosen), "dictionary", lambda _self: sae)
    with pytest.raises(InputError, match="latents are no tokens"):
        moved(chosen, other_folder, tmp_path)


def test_an_origin_that_is_gone_or_changed_is_told(chosen, other_folder, tmp_path):
    config = move_config(chosen, spec(other_folder), [1])
    with pytest.raises(InputError, match="Begin the move anew"):
        list(training.train(config, tmp_path))
    changed = dataclasses.replace(config.moved_from, digest="0")
    with pytest.raises(InputError, match="not the dictionary any more"):
        list(training.train(config.but(moved_from=changed), tmp_path, origin=chosen))


# What it is worth


def test_between_seeds_it_costs_little_and_is_better_than_random_tokens():
    """Own < moved < random tokens, on held-out prompts; the issue has 1 to 3 % at 1,024 atoms."""
    there, here = (load_model(f"data/models/tiny-6x128-{seed}", device="cpu") for seed in (0, 1))
    corpus = load_corpus(CorpusSpec("sotu"))
    prompts = corpus.training(0)[:40]
    tokens = here.tokenize([prompt.text for prompt in prompts], 128)

    def made(model, choose_rows):
        activations = model.capture(tokens, [2])
        x = activations[2]
        rows, offset = choose_rows(x), x.mean(0)
        table = source_table(sources_of(tokens, prompts, activations).take(rows))
        return Dictionary(
            atoms=torch.nn.functional.normalize(x[rows] - offset, dim=1),
            offset=offset,
            l0=16,
            hook_point=HookPoint(model.name, 2),
            sources=table.drop(columns="word"),
            words=table["word"].to_numpy(),
            tokenizer=model.tokenizer_digest,
            reading="128 tokens, without the first",
            pursuit="orthogonal",
        )

    def chosen_rows(x):
        return choose(x, 256, 16, seed=0).rows.numpy()

    def random_rows(x):
        return np.random.default_rng(0).choice(len(x), 256, replace=False)

    moved = made(there, chosen_rows).moved(here, 2, [prompt.text for prompt in prompts])
    three = made(here, chosen_rows), moved, made(here, random_rows)
    held_out = here.tokenize([prompt.text for prompt in corpus.held_out()[:20]], 128)
    x = here.capture(held_out, [2])[2]
    own, moved, random = (fvu(x, one.decode(one.encode(x))) for one in three)
    assert own < moved < random
    assert moved < 1.06 * own


def fvu(x, xhat):
    """By NumPy, in float64."""
    x, xhat = x.numpy().astype(np.float64), xhat.numpy().astype(np.float64)
    return np.square(x - xhat).sum() / np.square(x - x.mean(0)).sum()


def test_a_moved_run_is_whole_by_what_its_files_say(abroad):
    assert by_content(abroad[0]) == []
