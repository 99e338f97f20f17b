"""Places within the blocks of a model that is read block by block: what the model in memory has
there, to the last bit, in float32 on a CPU."""

import itertools

import pytest
import torch

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model import proved
from itda_core.model.loading import load_model
from itda_core.model.model_info import remembered_sites
from itda_core.model.swept import SweptModel
from itda_core.model.weight_files import StoredTensor
from itda_core.settings import SITES
from tests.support.swept_models import both_kinds, too_little, values_of
from tests.support.tiny_models import TEXTS, save_tiny_model
from tools.model_types.listing import find_types
from tools.model_types.tiny import save_tiny

IN_LINE = {"resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"}
SIDE_BY_SIDE = IN_LINE - {"resid_mid"}
HAS = {
    "llama": IN_LINE,
    "gpt2": IN_LINE,
    "gemma2": IN_LINE,  # norms after attention and MLP, before the sums
    "gpt_neox": SIDE_BY_SIDE,
    "cohere.causal": SIDE_BY_SIDE,
    "bert": {"resid_pre", "resid_post"},  # norms after the sums
}


@pytest.fixture(scope="module", params=HAS)
def kinds(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    if "." in request.param:
        [one] = find_types(request.param)
        save_tiny(one, folder)
    else:
        save_tiny_model(folder, request.param)
    return request.param, *both_kinds(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "llama", n_layers=5)
    return folder, *both_kinds(folder)


def test_every_family_has_the_sites_that_the_resident_model_has(kinds):
    family, resident, model = kinds
    assert {site for site in SITES if not model.sites.why_not(site)} == HAS[family]
    assert model.sites == resident.sites


def test_every_site_of_every_layer_is_the_resident_ones(kinds):
    family, resident, model = kinds
    tokens, layers = resident.tokenize(TEXTS), range(resident.n_layers)
    for site in HAS[family]:
        expected, found = (one.capture(tokens, layers, site=site) for one in (resident, model))
        for layer in layers:
            assert torch.equal(found[layer], expected[layer]), (site, layer)
        last = layers[-1]
        expected, found = (one.at(site).hidden(tokens, last) for one in (resident, model))
        assert torch.equal(found, expected), site


def test_what_is_put_at_a_site_gives_the_logits_of_the_resident_model(kinds):
    family, resident, model = kinds
    if not resident.can_be_spliced:
        return
    tokens = resident.tokenize(TEXTS)
    for site, layer in itertools.product(HAS[family], (0, 1, resident.n_layers - 1)):
        others = 1.5 * resident.hidden(tokens, layer, site).roll(1, dims=1)
        expected, found = (
            one.logits_after(tokens, layer, others, site) for one in (resident, model)
        )
        assert torch.equal(found, expected), (site, layer)


def test_a_site_that_the_blocks_lack_is_refused_with_the_reason(kinds):
    family, _, model = kinds
    for site in {*SITES} - HAS[family]:
        with pytest.raises(ModelError, match=f"has no {site} to read: .* Choose resid_post"):
            model.capture(model.tokenize(TEXTS), [0], site=site)


# Many texts in one call


def counted_reads(monkeypatch):
    found, read = [], StoredTensor.read

    def counted(self, *where):
        found.append(self.start)
        return read(self, *where)

    monkeypatch.setattr(StoredTensor, "read", counted)
    return found


def test_a_call_at_a_site_reads_each_weight_once(llama, monkeypatch):
    _, resident, model = llama
    batches = [resident.tokenize(texts) for texts in (TEXTS[:2], TEXTS[2:])]
    expected = [resident.capture(tokens, [1, 3], site="mlp_out") for tokens in batches]
    model = model.at("mlp_out")
    read = counted_reads(monkeypatch)
    for number, rows in values_of(model.capture_each(batches, [1, 3])):
        [(layer, x)] = rows.items()
        assert torch.equal(x, expected[number][layer])
    assert len(read) == len(set(read))


def test_several_streams_of_a_text_read_the_blocks_below_once(llama, monkeypatch):
    _, resident, model = llama
    batches = [resident.tokenize(texts) for texts in (TEXTS[:2], TEXTS[2:])]
    hidden = [resident.hidden(tokens, 2, "attn_out") for tokens in batches]
    streams = [
        (tokens, factor * x)
        for tokens, x in zip(batches, hidden, strict=True)
        for factor in (1.0, 0.0, 2.0)
    ]
    expected = [resident.logits_after(tokens, 2, x, "attn_out") for tokens, x in streams]
    model = model.at("attn_out")
    read = counted_reads(monkeypatch)
    found = dict(values_of(model.logits_after_each(2, iter(streams))))
    assert [*found] == [*range(6)]
    for number, logits in found.items():
        assert torch.equal(logits, expected[number]), number
    assert len(read) == len(set(read))


def test_without_room_in_memory_they_go_through_a_file(llama, monkeypatch):
    _, resident, model = llama
    tokens = resident.tokenize(TEXTS)
    monkeypatch.setattr(SweptModel, "new_states", _without_room(SweptModel.new_states))
    others = 1.5 * resident.hidden(tokens, 3, "mlp_out")
    found = model.logits_after(tokens, 3, others, "mlp_out")
    assert torch.equal(found, resident.logits_after(tokens, 3, others, "mlp_out"))


def _without_room(new_states):
    def made(self, folder):
        states = new_states(self, folder)
        states._room = 0
        return states

    return made


def test_full_memory_halves_a_pass_at_a_site(llama, monkeypatch):
    _, resident, model = llama
    tokens = resident.tokenize(TEXTS)
    model = model.at("resid_mid")
    whole = model._hidden

    def hidden(some, *where):
        if len(some) > 1:
            raise MemoryError
        return whole(some, *where)

    monkeypatch.setattr(model, "_hidden", hidden)
    expected = resident.capture(tokens, [3], site="resid_mid")[3]
    torch.testing.assert_close(model.capture(tokens, [3])[3], expected, rtol=1e-4, atol=1e-4)
    others = 1.5 * resident.hidden(tokens, 3, "resid_mid")
    expected = resident.logits_after(tokens, 3, others, "resid_mid")
    found = model.logits_after(tokens, 3, others)
    torch.testing.assert_close(found[tokens.mask], expected[tokens.mask], rtol=1e-4, atol=1e-4)


# What was not proved


@pytest.fixture
def unremembered(llama, monkeypatch):
    monkeypatch.setattr(proved, "_file", lambda _identity: None)
    return load_model(str(llama[0]), device="cpu", memory=too_little(llama[0]))


def test_a_later_block_that_is_made_otherwise_has_no_proved_sites(unremembered):
    class Other(type(unremembered.blocks[3].mlp)):
        pass

    unremembered.blocks[3].mlp.__class__ = Other
    for site in ("attn_out", "resid_mid", "mlp_out"):
        reason = unremembered.sites.why_not(site)
        assert "the first 2 blocks prove it, and block 3 is made of other modules" in reason
    assert not unremembered.sites.why_not("resid_pre")


def test_a_later_block_that_adds_up_otherwise_is_found_out(unremembered):
    unremembered.blocks[3].register_forward_hook(lambda _module, _inputs, output: 2 * output)
    tokens = unremembered.tokenize(TEXTS)
    assert len(unremembered.capture(tokens, [2], site="mlp_out")[2])
    with pytest.raises(ModelError, match=r"In block 3 of .* resid_mid \+ mlp_out differs by"):
        unremembered.capture(tokens, [3], site="mlp_out")


def test_what_was_proved_is_remembered_beside_what_the_resident_model_proved(tmp_path, monkeypatch):
    folder = save_tiny_model(tmp_path, n_layers=5)
    spec, memory = ModelSpec(str(folder), dtype="float32"), too_little(folder)
    model = load_model(spec, device="cpu", memory=memory)
    assert remembered_sites(spec, "cpu", memory) is None
    found = model.sites
    assert remembered_sites(spec, "cpu", memory) == found
    assert remembered_sites(spec, "cpu") is None
    monkeypatch.setattr(proved, "prove_swept_sites", None)
    assert load_model(spec, device="cpu", memory=memory).sites == found
