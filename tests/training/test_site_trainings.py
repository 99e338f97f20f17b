"""A dictionary of another place in a block, from its training to what is done with it."""

import math

import numpy as np
import pytest
import torch

from itda_core.activations.plan import make_plan
from itda_core.analysis.decomposition import decompose
from itda_core.analysis.steering import Writing, write_on
from itda_core.analysis.what_if import Edit, what_if
from itda_core.config import HookPoint
from itda_core.corpus.corpus import load_corpus
from itda_core.errors import ModelError
from itda_core.evaluation.batch import held_out_prompts
from itda_core.evaluation.by_l0 import evaluate
from itda_core.evaluation.splicing import SplicedPrompts
from itda_core.exchange.model_card import model_card
from itda_core.exchange.published import published_files
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from itda_core.store.store import Store
from tests.support.command_line import one_json, table
from tests.support.tiny_models import TEXTS, close, save_tiny_model
from tests.support.trained_runs import tiny_config, trained

LAYER, SITE = 2, "mlp_out"


@pytest.fixture(scope="module")
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(
        tiny_model_folder, tiny_corpus_file, layers=(1, LAYER), site=SITE, max_tokens=600,
        max_atoms=60, explored_tokens=300, selection="coverage",
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("site") / "runs"
    trained(config, folder)
    return folder


@pytest.fixture(scope="module")
def run(runs):
    return list_runs(runs)[-1]


def test_measures_of_several_places_in_a_block_say_which_is_which(cli, runs, run, runs_folder, ids):
    options = ["--l0s", 1, "--max-tokens", 60]
    both = ["evaluate", run.directory, runs_folder / ids[0], *options]
    head, *rows = table(cli(*both))
    assert head[:2] == ["run_id", "site"]
    assert [row[:2] for row in rows] == [[run.run_id, SITE], [ids[0], "resid_post"]]
    assert [one["site"] for one in one_json(cli(*both, "--json"))["runs"]] == [SITE, "resid_post"]
    usual = ["evaluate", runs_folder / ids[0], *options]
    assert "site" not in table(cli(*usual))[0]
    assert "site" not in one_json(cli(*usual, "--json"))["runs"][0]


def mlp_outputs(model, tokens, layer=LAYER):
    """What the MLP gives, [n_texts, longest, d_model], in transformers' own pass."""
    found = []
    handle = model.blocks[layer].mlp.register_forward_hook(
        lambda _module, _inputs, output: found.append(output)
    )
    with torch.no_grad():
        model.module(input_ids=tokens.ids, attention_mask=tokens.mask.long())
    handle.remove()
    return found[0]


def logits_with(model, tokens, rows, layer=LAYER):
    """Logits with these rows in place of what the MLP gives, by a hook on it."""
    handle = model.blocks[layer].mlp.register_forward_hook(lambda *_: rows)
    with torch.no_grad():
        logits = model.module(input_ids=tokens.ids, attention_mask=tokens.mask.long()).logits
    handle.remove()
    return logits


# The training


def test_atoms_are_the_sites_activations_of_their_sources(run, tiny_model, config):
    dictionary = run.dictionary()
    assert dictionary.hook_point == HookPoint(config.model.name, LAYER, SITE)
    assert (run.site, run.config.site) == (SITE, SITE)
    texts = {p.prompt_id: p.text for p in load_corpus(config.corpus).prompts}
    for source in dictionary.sources.head(12).itertuples():
        tokens = tiny_model.tokenize([texts[source.prompt_id]], config.context_length)
        x = mlp_outputs(tiny_model, tokens)[0, source.position] - dictionary.offset
        close(dictionary.atoms[source.latent], x / x.norm())


def test_each_site_is_a_training_of_its_own(run, config):
    usual = config.but(site="resid_post")
    ids = [one.training_id("model", "corpus") for one in (config, usual)]
    assert ids[0] != ids[1]
    assert run.about["config"]["site"] == SITE
    other = {**run.about, "config": usual.to_dict()}
    assert run.activations_id != type(run)(run.directory, other, run.metrics).activations_id


def test_a_model_without_the_site_is_refused_before_anything_is_read(tmp_path, tiny_corpus_file):
    folder = save_tiny_model(tmp_path / "neox", "gpt_neox")
    with pytest.raises(ModelError, match="no resid_mid to read: attention and MLP read the same"):
        trained(tiny_config(folder, tiny_corpus_file, site="resid_mid"), tmp_path / "runs")
    assert not [*tmp_path.glob("runs/*")]


# What is done with it


def test_a_decomposition_is_of_what_stands_at_the_site(run, tiny_model):
    result = decompose(run.dictionary(), tiny_model, TEXTS[0], run.config)
    x = mlp_outputs(tiny_model, tiny_model.tokenize([TEXTS[0]]))[0, 1:]
    norms = (x - run.dictionary().offset).norm(dim=1)
    np.testing.assert_allclose(result.residuals[:, 0], norms.numpy(), rtol=1e-4)


def test_what_a_dictionary_costs_is_measured_by_adding_its_reconstruction(run, tiny_model, config):
    """By hooks of this file, prompt by prompt."""
    prompts, dictionary = held_out_prompts(run), run.dictionary()
    [*_, result] = evaluate(dictionary, tiny_model, prompts, config, max_tokens=200, l0s=[4])
    plan = make_plan(tiny_model, prompts, config, 200)
    sums = dict.fromkeys(("plain", "zeroed", "rebuilt"), 0.0)
    for number in range(len(plan.prompts)):
        tokens = plan.tokens(number, number + 1)
        own = mlp_outputs(tiny_model, tokens)
        rows = {"plain": own, "zeroed": own.clone(), "rebuilt": own.clone()}
        rows["zeroed"][:, 1:] = 0
        rows["rebuilt"][0, 1:] = dictionary.decode(dictionary.encode(own[0, 1:]))
        for name, hidden in rows.items():
            likely = logits_with(tiny_model, tokens, hidden)[0, 1:-1].log_softmax(1)
            sums[name] -= float(likely.gather(1, tokens.ids[0, 2:, None]).sum())
    expected = (sums["zeroed"] - sums["rebuilt"]) / (sums["zeroed"] - sums["plain"])
    [found] = result.by_l0()
    assert math.isclose(found["ce_loss_score"], expected, rel_tol=1e-3)
    for model, layer in ((tiny_model.at(SITE), LAYER), (tiny_model, dictionary.hook_point)):
        spliced = SplicedPrompts(model, layer, prompts, config, 200)
        rebuilt = dictionary.decode(dictionary.encode(spliced.activations))
        assert math.isclose(spliced.score(rebuilt)["ce_loss_score"], expected, rel_tol=1e-3)


def test_an_edit_changes_what_is_added(run, tiny_model):
    dictionary = run.dictionary()
    result = decompose(dictionary, tiny_model, TEXTS[0], run.config)
    latent = int(result.codes.latents[3, 0])
    found = what_if(tiny_model, dictionary, result, [Edit(latent)], position=6)
    rows = mlp_outputs(tiny_model, result.tokens).clone()
    uses = (result.codes.coefficients * (result.codes.latents == latent)).sum(1)
    rows[0, 1:] -= torch.outer(uses, dictionary.atoms[latent])
    likely = logits_with(tiny_model, result.tokens, rows)[0, 6].softmax(0)
    table = found.next_tokens
    np.testing.assert_allclose(table["edited"], likely[table["token_id"].tolist()], rtol=1e-3)


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "resid_mid", "mlp_out"])
def test_steering_at_a_site_writes_what_whole_passes_write(tiny_model, site):
    """Step by step from what the model keeps, against the whole text at each step."""
    vector = 4 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    model = tiny_model.at(site)
    written = [one.token_id for one in write_on(model, TEXTS[0], Writing(5), (1, vector))]
    ids = model.tokenize([TEXTS[0]]).ids

    def shifted(was):
        return torch.cat([was[:, :1], was[:, 1:] + vector], 1)

    for token in written:
        with model.output_changed(1, shifted):
            logits = model.run(ids, torch.ones_like(ids), use_cache=False).logits
        assert int(logits[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]], dtype=torch.int64)], 1)


def test_files_for_others_name_the_site(run):
    card = model_card(run, "someone/tiny")
    assert "what the MLP adds to the residual stream" in card
    assert "| site | mlp_out |" in card
    with pytest.raises(Exception, match="is of mlp_out, and the published layout has no name"):
        published_files(run)


# Where it is listed


def test_the_database_knows_the_site(runs, runs_folder):
    store = Store()
    store.import_new(runs)
    assert set(store.runs.table()["site"]) == {SITE}
    store.import_new(runs_folder)
    assert set(store.runs.table()["site"]) == {SITE, "resid_post"}
    store.close()


def test_the_command_line_trains_and_compares_at_a_site(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file, run, runs
):
    options = (
        "--model", tiny_model_folder, "--dtype", "float32", "--corpus", tiny_corpus_file,
        "--layers", "1", "--max-tokens", "200", "--max-atoms", "20", "--l0", "3",
        "--explored-tokens", "50", "--context-length", "32", "--runs", tmp_path,
    )  # fmt: skip
    [told] = one_json(cli("train", *options, "--site", "attn_out", "--json"))["runs"]
    [made] = list_runs(tmp_path)
    assert (told["site"], made.site, made.layer) == ("attn_out", "attn_out", 1)
    pair = [str(run.directory), str(list_runs(runs)[0].directory)]
    assert one_json(cli("similarity", *pair, "--json"))["jaccard"][0][0] == 1
    rows = one_json(cli("measure", *pair, "--measures", "cka", "--max-tokens", 200, "--json"))
    assert {row["reason"] for row in rows["pairs"]} == {""}


def test_layers_of_two_sites_of_one_model_are_compared_where_they_are_named(
    cli, tmp_path, run, config, tiny_model
):
    trained(config.but(site="resid_post", layers=(LAYER,)), tmp_path)
    [usual] = list_runs(tmp_path)
    pair = (str(run.directory), str(usual.directory), "--measures", "cka", "--max-tokens", 200)
    rows = one_json(cli("measure", *pair, "--json"))["pairs"]
    [value] = [row["value"] for row in rows if row["run_a"] != row["run_b"]]
    assert 0 < value < 0.999
    model = load_model(config.model)
    assert model.site == "resid_post"
