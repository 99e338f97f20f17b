"""The autoencoders of the comparison are sae-lens' own: checked against sae-lens itself."""

import contextlib

import pytest
import torch

pytest.importorskip("sae_lens", reason="sae-lens is in requirements-dev.txt")

from benchmarks.versus_sae.sae_training import SaeSettings, _trainer, train_sae
from benchmarks.versus_sae.sparse_products import sparse_products
from itda_core.config import HookPoint

D_MODEL, N_LATENTS, L0 = 24, 96, 3
HERE = HookPoint("tiny", 1)


@pytest.fixture(scope="module")
def activations():
    """[640, 24]: sparse sums of directions around a mean far from zero, of uneven size."""
    draw = torch.Generator().manual_seed(3)
    directions = torch.randn(60, D_MODEL, generator=draw)
    weights = torch.rand(640, 60, generator=draw)
    weights[weights < 0.95] = 0
    return 5 * (weights @ directions) + 4 + torch.randn(640, D_MODEL, generator=draw) / 10


def settings(variant, **fields):
    sizes = {"batch": 32, "n_latents": N_LATENTS, "l0": L0, "dead_after": 96}
    return SaeSettings(variant, 5e-3, **{**sizes, **fields})


def trained(variant, x, products):
    """sae-lens' weights after 20 steps, the last ones with dead latents in the loss."""
    torch.manual_seed(0)
    trainer = _trainer(x, settings(variant))
    losses = []
    with products:
        for step in range(20):
            if step == 10:
                trainer.n_forward_passes_since_fired[:40] = 1_000
            losses.append(trainer.step(x[32 * step % 600 :][:32]).losses)
            trainer.n_training_steps += 1
    assert any(float(one["auxiliary_reconstruction_loss"]) > 0 for one in losses)
    return {name: weight.detach().clone() for name, weight in trainer.sae.named_parameters()}


@pytest.mark.parametrize("variant", ["topk", "batchtopk"])
def test_sparse_products_train_the_same_autoencoder_as_sae_lens_alone(variant, activations):
    stock = trained(variant, activations, contextlib.nullcontext())
    sparse = trained(variant, activations, sparse_products())
    start = dict(_trainer(activations, settings(variant)).sae.named_parameters())
    for name, weight in stock.items():
        assert torch.allclose(sparse[name], weight, atol=2e-4), name
        assert (weight - start[name]).abs().max() > 0.01, f"{name} was not trained"


def test_products_are_sae_lens_own_again_afterwards():
    from sae_lens.saes import topk_sae

    before = topk_sae.act_times_W_dec, topk_sae.TopKTrainingSAE.encode_with_hidden_pre
    with sparse_products():
        assert topk_sae.act_times_W_dec is not before[0]
    after = topk_sae.act_times_W_dec, topk_sae.TopKTrainingSAE.encode_with_hidden_pre
    assert after == before


def test_a_folded_autoencoder_reconstructs_what_sae_lens_reconstructs(activations, tmp_path):
    from sae_lens import SAE

    torch.manual_seed(0)
    trainer = _trainer(activations, settings("topk"))
    for step in range(15):
        trainer.step(activations[32 * step :][:32])
    folded = fold(trainer, activations)
    trainer.sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.sae.save_inference_model(str(tmp_path))
    published = SAE.load_from_disk(str(tmp_path))
    codes = folded.encode(activations)
    with torch.no_grad():
        dense = published.encode(activations)
        expected = published.decode(dense)
    assert torch.allclose(folded.decode(codes), expected, atol=1e-3)
    assert codes.latents.shape == (len(activations), L0)
    on = [set(row.nonzero()[:, 0].tolist()) for row in dense]
    mine = zip(codes.latents, codes.coefficients, strict=True)
    assert [set(latents[values > 0].tolist()) for latents, values in mine] == on


def fold(trainer, validation):
    from benchmarks.versus_sae.sae_training import _folded

    return _folded(trainer, validation, HERE)


def test_a_threshold_gives_the_wanted_mean_l0_on_validation_tokens(activations):
    validation = activations[:128]
    *_, last = train_sae(activations[128:], validation, settings("batchtopk", epochs=3), HERE, [])
    codes = last.autoencoder.encode(validation)
    used = (codes.coefficients > 0).sum(1)
    assert abs(float(used.float().mean()) - L0) < 0.05
    assert used.min() < used.max(), "every token has the same number of terms"


@pytest.mark.parametrize("variant", ["topk", "batchtopk"])
def test_training_explains_tokens_it_was_not_trained_on(variant, activations):
    held_out, rest = activations[:128], activations[128:]
    steps = train_sae(rest, held_out, settings(variant, epochs=30), HERE, [1_000, 4_000])
    errors = []
    for step in steps:
        codes = step.autoencoder.encode(held_out)
        errors.append(float((held_out - step.autoencoder.decode(codes)).square().sum()))
    variance = float((held_out - held_out.mean(0)).square().sum())
    assert len(errors) == 3
    assert errors[-1] < errors[0]
    assert errors[-1] < 0.5 * variance


def test_checkpoints_come_at_the_tokens_asked_for_and_time_only_grows(activations):
    found = list(train_sae(activations, activations[:64], settings("topk"), HERE, [64, 200]))
    assert [step.tokens for step in found] == [64, 224, 640]
    seconds = [step.seconds for step in found]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_atoms_are_unit_rows_and_codes_are_largest_first(activations):
    *_, last = train_sae(activations, activations[:64], settings("topk"), HERE, [])
    autoencoder = last.autoencoder
    assert torch.allclose(autoencoder.atoms.norm(dim=1), torch.ones(N_LATENTS), atol=1e-5)
    coefficients = autoencoder.encode(activations).coefficients
    assert (coefficients[:, :-1] >= coefficients[:, 1:]).all()
    assert (len(autoencoder), autoencoder.d_model) == (N_LATENTS, D_MODEL)
