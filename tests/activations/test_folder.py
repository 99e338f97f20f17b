"""A folder of activations is read as it is documented, and refused where it is not so.

The folders are written here by hand, with pandas and safetensors, as another program would.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.recorded import RecordedModel, folder_config
from itda_core.config import ModelSpec
from itda_core.corpus.corpus import prompt_id
from itda_core.errors import ExchangeError, InputError
from itda_core.model.tokens import padded
from itda_core.runs.run import list_runs
from itda_core.training.trainer import train

TEXTS = [" ".join(f"w{n}x{m}" for m in range(12)) for n in range(20)]
D_MODEL = 6


def token_rows(text, first=1):
    """White-space words as tokens, the one before them left out: (position, start, end, …)."""
    rows, start = [], 0
    for position, word in enumerate(text.split(), first):
        start = text.index(word, start)
        rows.append((prompt_id(text), position, start, start + len(word), word, start))
        start += len(word)
    return rows


def activations(n_rows, seed):
    return torch.randn(n_rows, D_MODEL, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def written(tmp_path):
    """Two parts of ten prompts each, with layers 1 and 3 in one file; the last two are held out."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    columns = ["prompt_id", "position", "start", "end", "token", "word"]
    rows = [row for text in TEXTS for row in token_rows(text)]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "tokens.parquet")
    held_out = [number >= 18 for number in range(20)]
    ids = [prompt_id(text) for text in TEXTS]
    prompts = {"prompt_id": ids, "text": TEXTS, "title": [""] * 20, "held_out": held_out}
    pd.DataFrame(prompts).to_parquet(folder / "prompts.parquet")
    parts = []
    for number in range(2):
        layers = {"1.resid_post": activations(120, number), "3.resid_post": activations(120, 9)}
        save_file(layers, folder / f"part-{number}.safetensors")
        parts.append({"rows": 120, "files": [f"part-{number}.safetensors"]})
    index = {
        "format": 1,
        "model": {"name": "some/model", "dtype": "bfloat16", "d_model": D_MODEL, "n_layers": 5},
        "layers": [1, 3],
        "sites": ["resid_post"],
        "context_length": 16,
        "skip_first": True,
        "tokens": ["tokens.parquet"],
        "parts": parts,
    }
    (folder / "activations.json").write_text(json.dumps(index))
    return folder


def changed_index(folder, change):
    path = folder / "activations.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def changed_table(folder, file, change):
    table = pd.read_parquet(folder / file)
    change(table)
    table.to_parquet(folder / file)


def looked_through(folder):
    """Read all there is of a folder."""
    opened = ActivationFolder(folder)
    for prompt in opened.selected(held_out=False) + opened.selected(held_out=True):
        opened.tokenized(prompt.prompt_id, prompt.text)
    return opened


def test_rows_are_those_of_the_tokens_that_they_are_said_to_be(written):
    model = RecordedModel(looked_through(written), "cpu")
    texts = [TEXTS[9], TEXTS[12], TEXTS[10]]
    found = model.tokenized(texts, 16)
    assert [len(text) for text in found] == [13, 13, 13]
    assert [TEXTS[9][start:end] for start, end in found[0].spans[1:]] == TEXTS[9].split()
    rows = model.capture(padded(model.tokenizer, found), [3, 1])
    stored = torch.cat([activations(120, 0), activations(120, 1)]).view(20, 12, D_MODEL)
    assert torch.equal(rows[1].view(3, 12, D_MODEL), stored[[9, 12, 10]])
    assert rows.prompts.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert rows.positions.tolist() == list(range(1, 13)) * 3


def test_a_prompt_that_is_cut_gives_its_first_rows(written):
    model = RecordedModel(ActivationFolder(written), "cpu")
    [text] = model.tokenized([TEXTS[3]], 16)
    rows = model.capture(padded(model.tokenizer, [text.first(6)]), [1])
    assert torch.equal(rows[1], activations(120, 0)[36:41])


def test_first_positions_that_are_there_can_be_left_out(written):
    changed_index(written, lambda index: index.update(skip_first=False))
    rows = [row for text in TEXTS for row in token_rows(text, first=0)]
    table = pd.read_parquet(written / "tokens.parquet")
    pd.DataFrame(rows, columns=table.columns).to_parquet(written / "tokens.parquet")
    model = RecordedModel(looked_through(written), "cpu")
    tokens = padded(model.tokenizer, model.tokenized([TEXTS[1]], 16))
    assert torch.equal(model.capture(tokens, [1])[1], activations(120, 0)[13:24])
    assert torch.equal(model.capture(tokens, [1], skip_first=False)[1], activations(120, 0)[12:24])


def test_a_training_needs_no_more_than_the_folder(written, tmp_path):
    config = folder_config(written, max_tokens=200, max_atoms=40, l0=3, explored_tokens=50)
    last = [*train(config, tmp_path / "runs", "cpu")][-1]
    assert last.stage == "done"
    runs = list_runs(tmp_path / "runs")
    assert [run.layer for run in runs] == [1, 3]
    assert {run.about["model_digest"] for run in runs} == {None}
    sources = runs[0].dictionary().sources
    held_out = {prompt_id(text) for text in TEXTS[18:]}
    assert len(sources) == 40
    assert not held_out & set(sources["prompt_id"])
    atoms, offset = runs[0].dictionary().atoms, runs[0].dictionary().offset
    stored = torch.cat([activations(120, 0), activations(120, 1)]).view(20, 12, D_MODEL)
    ids = [prompt_id(text) for text in TEXTS]
    for atom, row in zip(atoms, sources.itertuples(), strict=True):
        x = stored[ids.index(row.prompt_id), row.position - 1] - offset
        torch.testing.assert_close(atom, x / x.norm(), rtol=1e-5, atol=1e-6)
        assert TEXTS[ids.index(row.prompt_id)][row.start : row.end] == row.token
    assert runs[0].metrics["held_out_tokens"] == 24


def test_the_id_of_a_training_follows_the_content_and_not_the_place(written, tmp_path):
    def trained_on(folder, runs):
        config = folder_config(folder, max_tokens=200, max_atoms=9, l0=3, layers=(1,))
        [*_, last] = train(config, tmp_path / runs, "cpu")
        return last.training_id

    first = trained_on(written, "a")
    moved = written.rename(tmp_path / "moved")
    assert trained_on(moved, "b") == first
    save_file(
        {"1.resid_post": activations(120, 5), "3.resid_post": activations(120, 9)},
        moved / "part-1.safetensors",
    )
    assert trained_on(moved, "c") != first


def test_prompts_without_a_row_are_prompts_that_are_too_short(written, tmp_path):
    table = pd.read_parquet(written / "prompts.parquet")
    short = {"prompt_id": prompt_id("a"), "text": "a", "title": "", "held_out": False}
    pd.concat([pd.DataFrame([short]), table]).to_parquet(written / "prompts.parquet")
    config = folder_config(written, max_tokens=200, max_atoms=9, l0=3, layers=(1,))
    [*_, last] = train(config, tmp_path / "runs", "cpu")
    assert last.skipped["prompts shorter than two tokens"] == 1
    [run] = list_runs(tmp_path / "runs")
    assert prompt_id("a") in run.dictionary().prompt_ids


# Damage


def at(name, row, value):
    def change(table):
        table.loc[row, name] = value

    return change


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokens.parquet", at("token", 14, "other"), "row 14 .*'other' is not what stands there"),
        ("tokens.parquet", at("end", 30, 999), "row 30 .*characters 30 to 999"),
        ("tokens.parquet", at("start", 30, -1), "row 30 .*characters -1"),
        ("tokens.parquet", at("position", 5, 8), "row 5 .*position is 8, and 6 comes next"),
        ("tokens.parquet", at("word", 7, 3), "row 7 .*its word begins at 35, not at 3"),
        ("tokens.parquet", at("prompt_id", 12, "f" * 16), "row 12 .*has no prompt 'ffff"),
        ("tokens.parquet", at("prompt_id", 200, prompt_id(TEXTS[0])), "row 200 .*further up"),
        ("tokens.parquet", at("token", 3, None), "row 3 .*it has no token"),
        ("tokens.parquet", lambda t: t.drop(columns="word", inplace=True), "no column word"),
        ("tokens.parquet", lambda t: t.drop(index=239, inplace=True), "counts 240 rows, .* 239"),
        ("prompts.parquet", at("text", 4, "changed"), "row 4 .*is not the id of its text"),
        ("prompts.parquet", lambda t: t.__setitem__("held_out", "yes"), "is damaged"),
    ],
)  # fmt: skip
def test_damaged_tables_are_told_with_file_and_row(written, file, change, said):
    changed_table(written, file, change)
    with pytest.raises(ExchangeError, match=said) as raised:
        looked_through(written)
    assert file in str(raised.value)


def test_a_prompt_that_stands_twice_is_told(written):
    table = pd.read_parquet(written / "prompts.parquet")
    pd.concat([table, table.iloc[:1]]).to_parquet(written / "prompts.parquet")
    with pytest.raises(ExchangeError, match=r"row 20 .*stands above already"):
        looked_through(written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: index.update(format=2), "newer version"),
        (lambda index: index.update(format="1"), "format must be a whole number"),
        (lambda index: index.pop("model"), "model must be a JSON object"),
        (lambda index: index["model"].pop("dtype"), r"model\.dtype must be text"),
        (lambda index: index["model"].update(dtype="auto"), r"model\.dtype must be the data type"),
        (lambda index: index["model"].update(dtype="int3"), "must be one of"),
        (lambda index: index["model"].update(d_model=0), r"model\.d_model must be"),
        (lambda index: index.update(layers=[5]), "layers must be different numbers from 0 to 4"),
        (lambda index: index.update(sites=["resid_past"]), "sites must be different ones of"),
        (lambda index: index.update(layers=[]), "layers must be a list of whole numbers"),
        (lambda index: index.update(skip_first=1), "skip_first must be true or false"),
        (lambda index: index["parts"][1].update(rows=True), r"parts\[1\]\.rows must be"),
        (lambda index: index["parts"][0].update(files=["../x"]), "names of files in this folder"),
        (lambda index: index["parts"][1].update(files=["part-0.safetensors"]), "different files"),
        (lambda index: index["parts"][1].update(files=["part-9.safetensors"]), "lacks part-9"),
        (lambda index: index["parts"][1].update(rows=119), r"\[120, 6\].* and not .*\[119, 6\]"),
        (lambda index: index.update(layers=[1, 2]), r"part-0\.safetensors has no 2\.resid_post"),
        (lambda index: index.update(corpus={"name": 3, "digest": "x"}), "corpus must be text"),
    ],
)
def test_an_index_that_can_not_be_is_told_with_its_field(written, change, said):
    changed_index(written, change)
    with pytest.raises(ExchangeError, match=said):
        ActivationFolder(written)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_an_index_that_is_no_json_is_told(written, content):
    (written / "activations.json").write_bytes(content)
    with pytest.raises(ExchangeError, match=r"activations\.json can't be"):
        ActivationFolder(written)


def test_parts_that_end_too_soon_are_told(written):
    part = written / "part-1.safetensors"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(ExchangeError, match=r"part-1\.safetensors is damaged"):
        ActivationFolder(written)


def test_whole_numbers_are_no_activations(written):
    rows = {f"{layer}.resid_post": torch.ones(120, D_MODEL, dtype=torch.int32) for layer in (1, 3)}
    save_file(rows, written / "part-0.safetensors")
    with pytest.raises(ExchangeError, match=r"part-0\.safetensors is damaged: .* is I32"):
        ActivationFolder(written)


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(ExchangeError, match="There is no folder of activations"):
        ActivationFolder(tmp_path / "nowhere")
    with pytest.raises(ExchangeError, match=r"has no activations\.json"):
        ActivationFolder(tmp_path)


def test_what_a_folder_does_not_have_is_refused(written):
    with pytest.raises(InputError, match="has layers 1, 3 of some/model; there is no layer 2"):
        folder_config(written, layers=(1, 2))
    config = folder_config(written, max_tokens=200, max_atoms=9, l0=3, skip_first=False)
    with pytest.raises(InputError, match="no activations of first positions"):
        [*train(config, written.parent / "runs", "cpu")]
    longer = folder_config(written, max_tokens=200, max_atoms=9, l0=3).but(context_length=32)
    with pytest.raises(InputError, match="captured with the context length 16, and not 32"):
        [*train(longer, written.parent / "runs", "cpu")]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ModelSpec("other/model"), "the model some/model, and not other/model"),
        (ModelSpec("some/model", "step1"), "the revision left open, and not step1"),
        (ModelSpec("some/model", dtype="float32"), "the data type bfloat16, and not float32"),
    ],
)
def test_another_model_than_the_folders_is_told_by_what_differs(written, model, said):
    config = folder_config(written, max_tokens=200, max_atoms=9, l0=3).but(model=model)
    with pytest.raises(InputError, match=f"was captured with {said}\\. Leave"):
        [*train(config, written.parent / "runs", "cpu")]


def test_places_in_a_block_are_read_by_their_names(written):
    changed_index(written, lambda index: index.update(sites=["resid_post", "mlp_out"]))
    for number in range(2):
        names = [f"{layer}.{site}" for layer in (1, 3) for site in ("resid_post", "mlp_out")]
        rows = {name: activations(120, 50 * number + place) for place, name in enumerate(names)}
        save_file(rows, written / f"part-{number}.safetensors")
    model = RecordedModel(ActivationFolder(written), "cpu")
    tokens = padded(model.tokenizer, model.tokenized(TEXTS[10:12], 16))
    assert torch.equal(model.capture(tokens, [3])[3], activations(120, 52)[:24])
    assert torch.equal(model.at("mlp_out").capture(tokens, [3])[3], activations(120, 53)[:24])
    with pytest.raises(InputError, match="has resid_post, mlp_out of some/model, and no attn_out"):
        model.at("attn_out")


def test_activations_of_half_the_size_are_read_as_the_numbers_that_they_are(written):
    x = activations(120, 0)
    for dtype in (torch.bfloat16, torch.float16):
        rows = {f"{layer}.resid_post": x.to(dtype) for layer in (1, 3)}
        save_file(rows, written / "part-0.safetensors")
        model = RecordedModel(ActivationFolder(written), "cpu")
        tokens = padded(model.tokenizer, model.tokenized(TEXTS[:2], 16))
        assert torch.equal(model.capture(tokens, [1])[1], x[:24].to(dtype).float())


def test_another_seed_reads_the_prompts_in_another_order(written):
    corpus = RecordedModel(ActivationFolder(written), "cpu").corpus
    orders = [[prompt.text for prompt in corpus.training(seed)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(TEXTS[:18])
    changed_index(written, lambda index: index.update(seed=1))
    corpus = RecordedModel(ActivationFolder(written), "cpu").corpus
    assert [prompt.text for prompt in corpus.training(1)] == TEXTS[:18]
    assert np.array_equal([prompt.text for prompt in corpus.training(0)], orders[0])
