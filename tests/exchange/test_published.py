"""The published code's layout, out and in: what the files hold, and that sources are proved."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from itda_core.corpus.corpus import load_corpus, prompt_id
from itda_core.errors import ExchangeError, InputError
from itda_core.exchange.export import export
from itda_core.exchange.import_published import import_published
from itda_core.exchange.import_saelens import import_sae
from itda_core.exchange.importing import ImportOptions
from itda_core.exchange.published import published_files, published_note, read_published
from itda_core.runs.checks import by_content
from itda_core.runs.run import list_runs, read_run
from itda_core.similarity.dictionaries import jaccard
from tests.support.foreign import write_saelens
from tests.support.trained_runs import assert_same_dictionaries

TEXTS = [
    "The river rose in the spring and the farmers moved to the hills.",
    "What is the price of peace?",
    "   ",
    "The river rose in the spring and the farmers moved to the hills.",
    "The ships left the harbour in the morning.",
    "A nation that forgets its debts will soon be asked to pay them twice.",
]
"""As a data set has them: one empty, one twice."""


class Exploit:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def run(runs_folder):
    return list_runs(runs_folder)[1]


@pytest.fixture
def choices(tiny_model_folder):
    return ImportOptions(model=str(tiny_model_folder), max_tokens=400, dtype="float32")


def write_published(folder, model, texts=TEXTS, layer=1, indices=None, **metadata):
    """A folder as the published code writes it: by default an atom for each token of the texts
    with an even number, first positions included."""
    folder.mkdir(parents=True, exist_ok=True)
    if indices is None:
        lengths = model.tokenize(texts).lengths
        indices = [(n, p) for n in range(0, len(texts), 2) for p in range(lengths[n])]
    rows = []
    for number, position in indices:
        x = model.capture(model.tokenize([texts[max(number, 0)]]), [layer], skip_first=False)[layer]
        rows.append(x[min(max(position, 0), len(x) - 1)])
    atoms = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    torch.save(atoms, folder / "atoms.pt")
    torch.save(torch.tensor(indices, dtype=torch.long), folder / "atom_indices.pt")
    about = {
        "lm_name": "someone/some-model", "layer": layer, "k": 7, "loss_threshold": 0.01,
        "dataset": "someone/texts", "seq_len": 32, "batch_size": 2, "steps": len(texts) // 2,
        "activation_dim": atoms.shape[1], "device": "cuda", "wandb_name": "ITDA",
        "submodule_name": None, "seed": None, "max_dict_size": 0, **metadata,
    }  # fmt: skip
    (folder / "metadata.yaml").write_text(yaml.dump(about))
    return folder


@pytest.fixture
def corpus(tmp_path):
    """The texts as a file, with four more that were not read."""
    path = tmp_path / "texts.jsonl"
    more = [f"The senate met on day {number} to ratify the treaty." for number in range(4)]
    path.write_text("\n".join(json.dumps(text) for text in TEXTS + more))
    return path


def taken(folder, runs, choices, **changes):
    """The run that an import makes."""
    *_, last = import_published(folder, runs, ImportOptions(**{**vars(choices), **changes}))
    return read_run(runs / last.finished[0])


def test_a_run_that_was_imported_is_whole_by_what_its_files_say(run, tmp_path, choices):
    export(run, tmp_path / "out", "published")
    assert by_content(taken(tmp_path / "out", tmp_path / "runs", choices)) == []


# Out


def test_a_run_has_the_files_and_meanings_of_the_published_code(run, tmp_path):
    folder = export(run, tmp_path / "out", "published").folder
    dictionary = run.dictionary()
    atoms = torch.load(folder / "atoms.pt", weights_only=True)
    indices = torch.load(folder / "atom_indices.pt", weights_only=True)
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert torch.equal(atoms, dictionary.atoms)
    assert indices.dtype == torch.int64
    texts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    for source, (number, position) in zip(
        dictionary.sources.itertuples(), indices.tolist(), strict=True
    ):
        assert prompt_id(texts[number]) == source.prompt_id
        assert position == source.position
    assert metadata["steps"] * metadata["batch_size"] == len(texts)
    assert metadata["k"] == dictionary.l0
    assert metadata["seq_len"] == run.config.context_length
    # Their error is a mean over the components, ours their sum.
    assert metadata["loss_threshold"] * atoms.shape[1] == pytest.approx(run.config.threshold)
    assert {"lm_name", "layer", "dataset", "seed", "max_dict_size"} <= set(metadata)


def test_their_pursuit_gives_our_codes(run, tmp_path):
    """Their encoder, as it is described, on the exported atoms."""
    folder = export(run, tmp_path / "out", "published").folder
    atoms = torch.load(folder / "atoms.pt", weights_only=True).double()
    x = torch.randn(20, atoms.shape[1], generator=torch.Generator().manual_seed(1))
    left, dense = x.double(), torch.zeros(20, len(atoms), dtype=torch.float64)
    for _ in range(yaml.safe_load((folder / "metadata.yaml").read_text())["k"]):
        products = left @ atoms.T
        best = products.abs().argmax(1)
        values = products.gather(1, best[:, None])
        dense.scatter_add_(1, best[:, None], values)
        left = left - values * atoms[best]
    codes = run.dictionary().encode(x)
    ours = torch.zeros(20, len(atoms)).scatter_add_(1, codes.latents, codes.coefficients)
    torch.testing.assert_close(ours, dense.float(), rtol=1e-4, atol=1e-4)


def test_a_folder_says_what_their_code_does_not_know(run):
    dictionary = run.dictionary()
    object.__setattr__(dictionary, "pursuit", "matching")
    assert "as the dictionary does" in published_note(dictionary)
    object.__setattr__(dictionary, "pursuit", "refit")
    object.__setattr__(dictionary, "offset", torch.ones(dictionary.d_model))
    assert "knows no offset" in published_note(dictionary)
    assert "'refit'" in published_note(dictionary)


def test_an_autoencoder_has_no_such_layout(tmp_path, tiny_model_folder, tiny_corpus_file):
    write_saelens(tmp_path / "sae")
    choices = ImportOptions(
        model=str(tiny_model_folder), corpus=str(tiny_corpus_file), max_tokens=50, dtype="float32"
    )
    *_, last = import_sae(tmp_path / "sae", tmp_path / "runs", choices)
    with pytest.raises(ExchangeError, match="Export it as saelens"):
        published_files(read_run(tmp_path / "runs" / last.finished[0]))


# Out and in


def test_a_dictionary_that_went_out_comes_back_with_its_sources(run, tmp_path, choices):
    folder = export(run, tmp_path / "out", "published").folder
    again = taken(folder, tmp_path / "runs", choices)
    one, other = run.dictionary(), again.dictionary()
    torch.testing.assert_close(one.atoms, other.atoms)
    object.__setattr__(other, "atoms", one.atoms)  # normalised once more: equal but for rounding
    read = pd.read_parquet(run.directory / "prompts.parquet")["prompt_id"].tolist()
    assert list(other.prompt_ids) == read  # those too short to be read are not in the folder
    object.__setattr__(other, "prompt_ids", one.prompt_ids)
    assert_same_dictionaries(one, other)
    assert one.reading == other.reading
    assert jaccard(one, other) == 1.0
    assert other.n_seed_atoms == one.n_seed_atoms
    assert len(other.pool.counts) == len(read)
    assert len(other.pool) > len(other)
    assert again.about["kind"] == "itda"
    assert again.about["origin"] == "published"
    assert again.metrics["lowest_cosine"] == pytest.approx(1.0, abs=1e-4)
    assert again.config.threshold == pytest.approx(run.config.threshold)
    assert again.metrics["fvu"] is None  # it was made of all the texts there are


def test_an_offset_goes_out_and_comes_back(run, tmp_path, choices, tiny_model):
    folder = export(run, tmp_path / "out", "published").folder
    found = read_published(folder)
    offset = torch.linspace(-0.5, 0.5, run.dictionary().d_model)
    rows = []
    for number, position in found.indices.tolist():
        tokens = tiny_model.tokenize([found.prompts[number]], found.context_length)
        rows.append(tiny_model.capture(tokens, [run.layer], skip_first=False)[run.layer][position])
    atoms = torch.nn.functional.normalize(torch.stack(rows) - offset, dim=1)
    torch.save(atoms, folder / "atoms.pt")
    with pytest.raises(ExchangeError, match="are not the activations"):
        taken(folder, tmp_path / "runs", choices)
    torch.save(offset, folder / "offset.pt")
    dictionary = taken(folder, tmp_path / "runs", choices).dictionary()
    assert torch.equal(dictionary.offset, offset)


# In


def test_sources_are_found_by_text_and_token(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model)
    run = taken(folder, tmp_path / "runs", choices, corpus=str(corpus))
    dictionary = run.dictionary()
    indices = torch.load(folder / "atom_indices.pt", weights_only=True).tolist()
    kept = [(number, position) for number, position in indices if TEXTS[number].strip()]
    assert len(dictionary) == len(kept)
    for source, (number, position) in zip(dictionary.sources.itertuples(), kept, strict=True):
        assert source.prompt_id == prompt_id(TEXTS[number])
        assert source.position == position
        assert TEXTS[number][source.start : source.end] == source.token
    assert dictionary.l0 == 7
    assert dictionary.reading == "32 tokens, with the first"  # the published code reads it
    distinct = dict.fromkeys(text for text in TEXTS if text.strip())
    assert dictionary.prompt_ids == tuple(map(prompt_id, distinct))


def test_held_out_are_only_texts_that_were_not_read(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model)
    many = tmp_path / "many.jsonl"
    more = [f"The senate met on day {number} to ratify the treaty." for number in range(200)]
    many.write_text("\n".join(json.dumps(text) for text in TEXTS + more))
    run = taken(folder, tmp_path / "runs", choices, corpus=str(many))
    held_out = load_corpus(run.config.corpus).held_out()
    unread = [prompt for prompt in held_out if prompt.text not in TEXTS]
    lengths = tiny_model.tokenize([prompt.text for prompt in unread], 32).lengths
    assert run.metrics["held_out_tokens"] == int(lengths.sum())
    assert run.metrics["fvu"] > 0


def test_atoms_without_a_text_are_left_out_and_counted(tmp_path, tiny_model, choices, corpus):
    length = int(tiny_model.tokenize([TEXTS[1]]).lengths[0])
    indices = [(1, 0), (1, length), (1, length + 9), (-1, -1), (2, 0), (0, 3), (4, 1)]
    folder = write_published(tmp_path / "in", tiny_model, indices=indices)
    run = taken(folder, tmp_path / "runs", choices, corpus=str(corpus))
    found = run.dictionary().sources[["prompt_id", "position"]].values.tolist()
    expected = [(1, 0), (0, 3), (4, 1)]
    assert found == [[prompt_id(TEXTS[number]), position] for number, position in expected]
    assert run.metrics["skipped"] == {"atoms without a text": 4}


def test_indices_that_drifted_are_told(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model)
    indices = torch.load(folder / "atom_indices.pt", weights_only=True)
    indices[3:6, 1] = indices[3:6, 1].roll(1)
    torch.save(indices, folder / "atom_indices.pt")
    with pytest.raises(ExchangeError, match="have drifted") as told:
        taken(folder, tmp_path / "runs", choices, corpus=str(corpus))
    assert str(told.value).startswith("3 of ")
    assert not list((tmp_path / "runs").glob("*"))


def test_the_wrong_layer_is_told(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model, layer=2)
    text = (folder / "metadata.yaml").read_text().replace("layer: 2", "layer: 0")
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(ExchangeError, match="Check model, revision, layer"):
        taken(folder, tmp_path / "runs", choices, corpus=str(corpus))


def test_weights_that_were_centred_are_told_apart(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model)
    atoms = torch.load(folder / "atoms.pt", weights_only=True)
    torch.save(
        torch.nn.functional.normalize(atoms - atoms.mean(1, keepdim=True), dim=1),
        folder / "atoms.pt",
    )
    with pytest.raises(ExchangeError, match="TransformerLens"):
        taken(folder, tmp_path / "runs", choices, corpus=str(corpus))


def test_too_few_texts_are_told(tmp_path, tiny_model, choices):
    folder = write_published(tmp_path / "in", tiny_model)
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(json.dumps(text) for text in TEXTS[:3]))
    with pytest.raises(ExchangeError, match=r"comes from text 4 .* there are 3"):
        taken(folder, tmp_path / "runs", choices, corpus=str(short))


def test_where_no_atom_has_a_text_there_is_no_run(tmp_path, tiny_model, choices, corpus):
    folder = write_published(tmp_path / "in", tiny_model, indices=[(-1, -1), (2, 0)])
    with pytest.raises(ExchangeError, match="None of the atoms"):
        taken(folder, tmp_path / "runs", choices, corpus=str(corpus))


@pytest.mark.parametrize("name", ["/etc/passwd", "../texts.jsonl", "tests", "~/x.txt", 7, None])
def test_a_folder_names_no_place_on_this_machine_as_its_texts(tmp_path, tiny_model, choices, name):
    folder = write_published(tmp_path / "in", tiny_model, dataset=name)
    with pytest.raises(InputError, match="--corpus"):
        taken(folder, tmp_path / "runs", choices)


# Damaged and hostile folders


@pytest.mark.parametrize("file", ["atoms.pt", "atom_indices.pt", "offset.pt"])
def test_a_pickle_is_refused_and_not_run(tmp_path, tiny_model, file):
    folder, victim = write_published(tmp_path / "in", tiny_model), tmp_path / "victim"
    torch.save(Exploit(victim), folder / file)
    with pytest.raises(ExchangeError, match="more than a tensor"):
        read_published(folder)
    torch.save(Exploit(victim), folder / file, _use_new_zipfile_serialization=False)
    with pytest.raises(ExchangeError, match="more than a tensor"):
        read_published(folder)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("atoms.pt", torch.zeros(0, 16)),
        ("atoms.pt", torch.zeros(20, 16)),
        ("atoms.pt", torch.full((20, 16), torch.nan)),
        ("atoms.pt", torch.ones(20, dtype=torch.float32)),
        ("atoms.pt", torch.ones(20, 16, dtype=torch.int64)),
        ("atoms.pt", [1.0, 2.0]),
        ("atoms.pt", {"atoms": torch.ones(20, 16)}),
        ("atoms.pt", torch.ones(20, 16).to_sparse()),
        ("atom_indices.pt", torch.zeros(3, 2, dtype=torch.int64)),
        ("atom_indices.pt", list(range(20))),
        ("atom_indices.pt", torch.ones(20, 2)),
        ("offset.pt", torch.zeros(3)),
        ("offset.pt", torch.full((16,), torch.inf)),
    ],
)
def test_tensors_that_are_not_what_they_should_be_are_a_sentence(
    tmp_path, tiny_model, file, content
):
    folder = write_published(tmp_path / "in", tiny_model, indices=[(0, 1)] * 20)
    torch.save(content, folder / file)
    with pytest.raises(ExchangeError, match=file):
        read_published(folder)


@pytest.mark.parametrize("file", ["atoms.pt", "atom_indices.pt", "metadata.yaml"])
def test_a_file_that_lacks_or_is_cut_short_is_a_sentence(tmp_path, tiny_model, file):
    folder = write_published(tmp_path / "in", tiny_model)
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    with pytest.raises(ExchangeError, match=f"it has no {file}"):
        read_published(folder)
    (folder / file).write_bytes(b"\x00" + whole[: len(whole) // 2])
    with pytest.raises(ExchangeError, match=file):
        read_published(folder)


@pytest.mark.parametrize(
    "text",
    [
        "- a list",
        "just words",
        "a: [",
        "!!python/object/apply:os.system ['touch victim']",
        "a: &a [x]\nb: " + "[" * 50_000,
        "k: 1\n" + "#" * (1 << 20),
    ],
)
def test_settings_that_are_none_are_a_sentence(tmp_path, tiny_model, text):
    folder = write_published(tmp_path / "in", tiny_model)
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(ExchangeError, match=r"metadata\.yaml"):
        read_published(folder)


def test_odd_settings_are_taken_for_none(tmp_path, tiny_model):
    folder = write_published(tmp_path / "in", tiny_model)
    odd = {"k": "many", "seq_len": True, "layer": 1e300, "lm_name": [1], "steps": float("nan")}
    (folder / "metadata.yaml").write_text(yaml.dump({**odd, "itda_explorer": [1]}))
    found = read_published(folder)
    assert (found.l0, found.context_length, found.layer, found.model) == (40, 128, None, None)
    assert found.texts_read == 5


def test_prompts_that_are_none_are_a_sentence(tmp_path, tiny_model):
    folder = write_published(tmp_path / "in", tiny_model)
    for content in (b"{", b'{"text": 1}\n', b"\xff", b"[" * 100_000):
        (folder / "prompts.jsonl").write_bytes(content)
        with pytest.raises(ExchangeError, match=r"prompts\.jsonl"):
            read_published(folder)


def test_a_checkpoint_in_half_precision_on_another_device_is_read(tmp_path, tiny_model):
    folder = write_published(tmp_path / "in", tiny_model)
    atoms = torch.load(folder / "atoms.pt", weights_only=True)
    torch.save(torch.nn.Parameter(3 * atoms.half()), folder / "atoms.pt")
    found = read_published(folder).atoms
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.norm(dim=1), 1, rtol=1e-5)
