"""Autoencoders as dictionaries: their encoder, their file, and the run that an import makes."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.torch
import torch

from itda_core.analysis.decomposition import decompose
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary import sae_encoder as sae
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.sae_encoder import ARCHITECTURES, SaeEncoder
from itda_core.errors import ComparisonError, ExchangeError, InputError, RunError
from itda_core.evaluation.by_l0 import evaluate
from itda_core.exchange.import_saelens import import_sae
from itda_core.exchange.importing import ImportOptions
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs, read_run
from itda_core.similarity.dictionaries import SourceSet, compare_all, jaccard
from itda_core.store.store import Store
from itda_core.training.trainer import train
from tests.support.foreign import (
    D_MODEL,
    N_LATENTS,
    activations,
    dense,
    random_encoder,
    sae_dictionary,
    token_dictionary,
    write_saelens,
)

# The encoder


def slow_coefficients(encoder, x):
    """What each architecture is defined to give, token by token, in float64."""
    rows = []
    for one in x.double().numpy():
        pre = (one - encoder.center.numpy()) @ encoder.weight.double().numpy()
        pre = pre + encoder.bias.numpy()
        active = pre > 0
        if encoder.architecture == "topk":
            active[np.argsort(-pre)[encoder.k :]] = False
        if encoder.architecture == "jumprelu":
            active &= pre > encoder.threshold.numpy()
        rows.append(np.where(active, pre, 0) * encoder.norms.numpy())
    return torch.tensor(np.array(rows), dtype=torch.float32)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_are_what_the_architecture_defines_largest_first(architecture, centred, monkeypatch):
    encoder, x = random_encoder(architecture, centred=centred), activations(200)
    expected = slow_coefficients(encoder, x)
    for values in (sae.DENSE_VALUES, 7 * N_LATENTS, 1):  # in one block, in several, token by token
        monkeypatch.setattr(sae, "DENSE_VALUES", values)
        codes = encoder.encode(x)
        torch.testing.assert_close(dense(codes, N_LATENTS), expected, rtol=1e-4, atol=1e-5)
        assert codes.l0 == int((expected > 0).sum(1).max())
        assert (codes.coefficients.diff(dim=1) <= 0).all()
        assert (codes.coefficients >= 0).all()
        assert (codes.latents[codes.coefficients == 0] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fewer_terms_are_the_first_ones(architecture):
    encoder, x = random_encoder(architecture), activations(50)
    codes = encoder.encode(x)
    for l0 in (1, 3, 5):
        fewer = encoder.encode(x, l0)
        assert torch.equal(fewer.latents, codes.prefix(l0).latents)
        assert torch.equal(fewer.coefficients, codes.prefix(l0).coefficients)


def test_tokens_that_no_latent_is_active_on_are_the_offset():
    dictionary = sae_dictionary("standard")
    silent = dictionary.encoder
    silent.bias.fill_(-1e6)
    codes = dictionary.encode(activations(3))
    assert codes.latents.tolist() == [[0]] * 3
    assert torch.equal(dictionary.decode(codes), dictionary.offset.expand(3, -1))
    assert len(dictionary.encode(activations(3)[:0])) == 0


def test_what_an_encoder_does_not_take_is_a_sentence():
    encoder = random_encoder("topk")
    with pytest.raises(InputError, match=r"\[n_tokens, 16\], got \[2, 3\]"):
        encoder.encode(torch.zeros(2, 3))
    with pytest.raises(InputError, match="not finite"):
        encoder.encode(torch.full((1, D_MODEL), torch.nan))
    with pytest.raises(InputError, match="at least 1"):
        encoder.encode(torch.zeros(1, D_MODEL), l0=-1)


# The file


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_dictionary_file_gives_the_autoencoder_back(tmp_path, architecture):
    dictionary = sae_dictionary(architecture)
    loaded = Dictionary.load(dictionary.save(tmp_path / "run"))
    assert loaded.kind == "sae"
    assert loaded.encoder.architecture == architecture
    one, other = dictionary.encode(activations()), loaded.encode(activations())
    assert torch.equal(one.latents, other.latents)
    assert torch.equal(dictionary.decode(one), loaded.decode(other))
    pd.testing.assert_frame_equal(loaded.sources, dictionary.sources)
    assert Dictionary.load(loaded.save(tmp_path / "again")).kind == "sae"


def rewritten(dictionary, path, change):
    """The dictionary's file with its header and tensors changed by `change(header, tensors)`."""
    path.write_bytes(dictionary.to_bytes())
    with safetensors.safe_open(path, "pt") as opened:
        header = json.loads(opened.metadata()["itda"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(header, tensors)
    safetensors.torch.save_file(tensors, path, {"itda": json.dumps(header)})
    return path


def test_files_of_version_1_are_dictionaries_of_tokens(tmp_path):
    def to_version_1(header, _tensors):
        header["version"] = 1
        del header["kind"]

    path = rewritten(token_dictionary(), tmp_path / "old.safetensors", to_version_1)
    assert Dictionary.load(path).kind == "itda"


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: tensors.pop("encoder.weight"),
        lambda header, tensors: header.pop("architecture"),
        lambda header, tensors: header.update(architecture="gated"),
        lambda header, tensors: header.update(k="many"),
        lambda header, tensors: header.update(k=0),
        lambda header, tensors: tensors.update({"encoder.bias": torch.zeros(3)}),
        lambda header, tensors: tensors.update({"encoder.norms": torch.zeros(3)}),
    ],
)
def test_a_damaged_encoder_is_a_sentence(tmp_path, change):
    path = rewritten(sae_dictionary("topk"), tmp_path / "x.safetensors", change)
    with pytest.raises(RunError, match="damaged"):
        Dictionary.load(path)


# The run


@pytest.fixture(scope="module")
def choices(tiny_model_folder, tiny_corpus_file):
    return ImportOptions(
        model=str(tiny_model_folder), corpus=str(tiny_corpus_file), max_tokens=900, dtype="float32"
    )


SILENT = 7
"""A latent that no token comes near to."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory, choices):
    """The run of a standard autoencoder in which one latent is silent."""
    bias = torch.zeros(N_LATENTS)
    bias[SILENT] = -1e4
    folder = tmp_path_factory.mktemp("imported")
    write_saelens(folder / "sae", weights={"b_enc": bias})
    progress = [one.stage for one in import_sae(folder / "sae", folder / "runs", choices)]
    assert [progress[0], progress[1], progress[-1]] == ["loading", "reading", "done"]
    [run] = list_runs(folder / "runs")
    return run


def test_an_import_is_a_run_that_says_what_it_is(imported):
    assert imported.about["kind"] == "sae"
    assert imported.about["origin"] == "saelens"
    assert imported.about["architecture"] == "standard"
    assert "-sae-" in imported.run_id
    assert imported.layer == 1
    assert imported.config.selection == "imported"
    assert imported.config.context_length == 32  # what the folder says
    assert imported.metrics["tokens"] == imported.metrics["explored_tokens"] == 900
    assert imported.dictionary().kind == "sae"
    assert not interrupted_trainings(imported.directory.parent)
    assert [path.name for path in imported.directory.parent.iterdir()] == [imported.run_id]


def test_each_latent_is_named_by_the_token_where_it_is_strongest(
    imported, tiny_model, tiny_corpus_file
):
    """Against the plainest way there is: every training prompt by itself, in order."""
    dictionary = imported.dictionary()
    corpus = load_corpus(imported.config.corpus)
    texts = {prompt.prompt_id: prompt.text for prompt in corpus.prompts}
    rows, places = [], []
    for prompt in corpus.training(0):
        tokens = tiny_model.tokenize([prompt.text], 32)
        captured = tiny_model.capture(tokens, [1])
        rows.append(captured[1])
        places += [(prompt.prompt_id, position) for position in captured.positions.tolist()]
    coefficients = slow_coefficients(dictionary.encoder, torch.cat(rows)[:900])
    for source in dictionary.sources.itertuples():
        column = coefficients[:, source.latent]
        if source.latent == SILENT:
            assert not column.any()
        else:
            row = places.index((source.prompt_id, source.position))
            assert float(column[row]) == pytest.approx(float(column.max()), rel=1e-4)
        assert texts[source.prompt_id][source.start : source.end] == source.token
    mean = float((coefficients > 0).sum(1).float().mean())
    assert imported.metrics["mean_l0"] == pytest.approx(mean, rel=1e-3)
    assert dictionary.l0 == int((coefficients > 0).sum(1).max())


def test_a_silent_latent_is_counted_and_named_by_the_token_nearest_to_it(imported, tiny_model):
    dictionary = imported.dictionary()
    assert imported.metrics["silent_latents"] == 1
    codes = pd.read_parquet(imported.directory / "codes.parquet")
    assert SILENT not in set(codes["latent"])
    source = dictionary.sources.iloc[SILENT]
    prompts = pd.read_parquet(imported.directory / "prompts.parquet")
    pre = {}
    for text in prompts["text"]:
        tokens = tiny_model.tokenize([text], 32)
        captured = tiny_model.capture(tokens, [1])
        own = dictionary.encoder.pre_activations(captured[1])[:, SILENT]
        pre |= {
            (text, position): float(value)
            for position, value in zip(captured.positions, own, strict=True)
        }
    text = prompts.set_index("prompt_id")["text"][source.prompt_id]
    best = max(pre.values())
    assert pre[text, source.position] == pytest.approx(best, rel=1e-4)


def test_the_explorer_takes_an_import_in_and_shows_the_source_as_the_strongest_use(imported):
    store = Store()
    assert store.import_run(imported)
    [row] = store.runs.table().itertuples()
    assert (row.l0, row.mean_l0) == (imported.dictionary().l0, imported.metrics["mean_l0"])
    assert (row.kind, row.method) == ("sae", "Standard SAE")
    assert pd.isna([row.offset, row.pursuit, row.budget]).all()  # it has an encoder instead
    sources = imported.dictionary().sources
    for latent in (0, 3, N_LATENTS - 1):
        use = store.uses.strongest(imported.run_id, latent).iloc[0]
        source = sources.iloc[latent]
        assert (use.prompt_id, use.position) == (source.prompt_id, source.position)
    assert int(store.latents.table(imported.run_id, [SILENT])["tokens"][0]) == 0
    store.close()


def test_an_import_that_is_there_is_not_made_again(imported, choices, tmp_path):
    runs = imported.directory.parent
    folder = imported.directory.parent.parent / "sae"
    stages = [one.stage for one in import_sae(folder, runs, choices)]
    assert "encoding" not in stages
    assert len(list_runs(runs)) == 1


def test_a_stopped_import_leaves_nothing(tmp_path, choices):
    write_saelens(tmp_path / "sae")
    steps = import_sae(tmp_path / "sae", tmp_path / "runs", choices)
    while next(steps).stage != "encoding":
        pass
    steps.close()
    assert list((tmp_path / "runs").iterdir()) == []


def test_other_weights_texts_or_settings_are_another_run(tmp_path, choices):
    runs = tmp_path / "runs"
    plain = write_saelens(tmp_path / "one")
    other = write_saelens(tmp_path / "two", weights={"b_dec": torch.full((D_MODEL,), 0.1)})
    topk = [write_saelens(tmp_path / f"k{k}", {"architecture": "topk", "k": k}) for k in (3, 4)]
    for folder in (plain, other, *topk):
        list(import_sae(folder, runs, choices))
    assert len(list_runs(runs)) == 4


def test_a_decomposition_by_an_autoencoder_leaves_what_it_leaves(imported, tiny_model):
    dictionary = imported.dictionary()
    result = decompose(dictionary, tiny_model, "The senate met to ratify it.", imported.config)
    x = tiny_model.capture(result.tokens, [1])[1]
    for l0 in (1, 2, result.codes.l0):
        left = (x - dictionary.decode(result.codes.prefix(l0))).norm(dim=1)
        np.testing.assert_allclose(result.residuals[:, l0], left, rtol=1e-4)
    np.testing.assert_allclose(result.residuals[:, 0], (x - dictionary.offset).norm(dim=1))
    assert len(result.table()) == int((result.codes.coefficients > 0).sum())


def test_an_autoencoder_is_evaluated_like_a_dictionary(imported, tiny_model):
    corpus = load_corpus(imported.config.corpus)
    *_, last = evaluate(
        imported.dictionary(), tiny_model, corpus.held_out(), imported.config, 10_000
    )
    assert last.by_l0()[-1]["fvu"] == pytest.approx(imported.metrics["fvu"], rel=1e-3)


def test_autoencoders_are_not_compared_by_their_sources(imported, runs_folder):
    ours = list_runs(runs_folder)[1].dictionary()
    with pytest.raises(ComparisonError, match="no tokens"):
        jaccard(ours, imported.dictionary())
    sides = [{1: SourceSet.of(one)} for one in (ours, imported.dictionary())]
    matrix = compare_all(sides, sides)
    assert matrix.reasons[0, 0] == ""
    assert all("no tokens" in matrix.reasons[cell] for cell in ((0, 1), (1, 0), (1, 1)))


def test_an_import_can_not_be_trained(imported, tmp_path):
    with pytest.raises(InputError, match="imported"):
        next(train(imported.config, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": 2}, "layer 1, not of layer 2"),
        ({"model": None}, "Name it with --model"),
        ({"corpus": "nothing.txt"}, "no file"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_choices_that_do_not_fit_are_a_sentence(tmp_path, choices, change, message):
    fields = {**vars(choices), **change}
    with pytest.raises(InputError, match=message):
        list(
            import_sae(write_saelens(tmp_path / "sae"), tmp_path / "runs", ImportOptions(**fields))
        )


def test_a_folder_names_no_place_on_this_machine_as_its_model(tmp_path, tiny_model_folder):
    for name in (str(tiny_model_folder), "../model", "tests", "~/model", "a/b/c", ""):
        metadata = {"model_name": name, "hook_name": "blocks.1.hook_resid_post"}
        folder = write_saelens(tmp_path / "sae", {"metadata": metadata})
        with pytest.raises(InputError, match="--model"):
            list(import_sae(folder, tmp_path / "runs", ImportOptions()))


def test_a_layer_that_nothing_names_has_to_be_given(tmp_path, choices):
    folder = write_saelens(tmp_path / "sae", {"metadata": {}})
    with pytest.raises(InputError, match="--layer"):
        list(import_sae(folder, tmp_path / "runs", choices))
    *_, last = import_sae(folder, tmp_path / "runs", ImportOptions(**{**vars(choices), "layer": 2}))
    assert read_run(tmp_path / "runs" / last.finished[0]).layer == 2


def test_an_autoencoder_of_another_place_in_a_block_encodes_what_stands_there(
    tmp_path, choices, tiny_model
):
    """The MLP's output by a hook of this test."""
    folder = write_saelens(tmp_path / "sae", {"metadata": {"hook_name": "blocks.2.hook_mlp_out"}})
    *_, last = import_sae(folder, tmp_path / "runs", choices)
    run = read_run(tmp_path / "runs" / last.finished[0])
    assert (run.layer, run.site, run.dictionary().hook_point.site) == (2, "mlp_out", "mlp_out")
    text, given = "The senate met to ratify the treaty.", []
    handle = tiny_model.blocks[2].mlp.register_forward_hook(
        lambda _module, _inputs, output: given.append(output[0, 1:])
    )
    tiny_model.logits(tiny_model.tokenize([text]))
    handle.remove()
    expected = slow_coefficients(run.dictionary().encoder, given[0])
    found = decompose(run.dictionary(), tiny_model, text, run.config).codes
    torch.testing.assert_close(dense(found, N_LATENTS), expected, rtol=1e-4, atol=1e-5)


def test_a_dictionary_of_another_width_is_refused(tmp_path, choices):
    weights = {
        "W_enc": torch.zeros(8, 4),
        "W_dec": torch.zeros(4, 8),
        "b_enc": torch.zeros(4),
        "b_dec": torch.zeros(8),
    }
    with pytest.raises(ExchangeError, match="8 components, and those of"):
        list(import_sae(write_saelens(tmp_path / "sae", weights=weights), tmp_path, choices))


def test_encoders_of_any_kind_have_a_name_for_it():
    with pytest.raises(ValueError, match="no encoder"):
        SaeEncoder.of_tensors("transcoder", None, {})
