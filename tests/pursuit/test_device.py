"""Pursuits on a device that is not the CPU: the CPU's numbers, few waits, and a full memory."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp_gram

from itda_core.dictionary import growing
from itda_core.dictionary.encoders import PursuitEncoder
from itda_core.dictionary.sae_encoder import SaeEncoder
from itda_core.errors import InputError
from itda_core.pursuit import blocks, gram, matching, orthogonal, orthogonal_torch, products
from itda_core.pursuit.codes import direction_errors, residual_norms
from itda_core.pursuit.gram import affordable_gram, gram_matrix
from itda_core.pursuit.orthogonal import PURSUITS, orthogonal_matching_pursuit, refit
from itda_core.pursuit.products import Proposed, products_in_parts
from itda_core.selection import coverage
from tests.pursuit.test_orthogonal import random_problem, slow_orthogonal
from tests.support.pretend_device import PretendDevice
from tests.support.reference import slow_pursuit, unit_rows

WAYS = ["products", "proposals", "gram"]
pursuits = pytest.mark.parametrize("pursuit", list(PURSUITS.values()), ids=list(PURSUITS))


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each of the ways that there are on a device."""
    monkeypatch.setattr(blocks, "gram_pays", lambda *_: request.param == "gram")
    monkeypatch.setattr(blocks, "halves_propose", lambda _: request.param == "proposals")
    return request.param


def elsewhere(*tensors):
    return [tensor.to("pretend") for tensor in tensors]


# The CPU's numbers


@pursuits
def test_gives_the_numbers_of_the_cpu(pursuit, way):
    x, atoms = random_problem(150, 200, 32)
    expected = pursuit(x, atoms, 8)
    with PretendDevice():
        codes = pursuit(*elsewhere(x, atoms), 8)
        assert codes.latents.device.type == codes.coefficients.device.type == "pretend"
        xhat = codes.reconstruct(atoms.to("pretend")).cpu()
        norms = residual_norms(x.to("pretend"), codes).cpu()
        errors = direction_errors(x.to("pretend"), codes.reconstruct(atoms.to("pretend"))).cpu()
        fewer = codes.prefix(3).coefficients.cpu()
        found = codes.to("cpu")
    assert torch.equal(found.latents, expected.latents)
    scale = x.norm(dim=1, keepdim=True)
    close = {"rtol": 0, "atol": 2e-5}
    torch.testing.assert_close(found.coefficients / scale, expected.coefficients / scale, **close)
    torch.testing.assert_close(xhat / scale, expected.reconstruct(atoms) / scale, **close)
    torch.testing.assert_close(errors, direction_errors(x, expected.reconstruct(atoms)), **close)
    torch.testing.assert_close(fewer / scale, expected.prefix(3).coefficients / scale, **close)
    torch.testing.assert_close(
        norms / scale, residual_norms(x, expected) / scale, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", WAYS)
def test_the_latents_are_those_of_float64_on_activations_of_a_language_model(
    name, monkeypatch, smollm2_activations
):
    x = smollm2_activations - smollm2_activations.mean(0)
    atoms, x = torch.nn.functional.normalize(x[:1_500], dim=1), x[2_200:]
    take(name, monkeypatch)
    codes = orthogonal_matching_pursuit(x, atoms, 32, gram=atoms @ atoms.T)
    d64, x64 = atoms.double().numpy(), x.double().numpy()
    peer = orthogonal_mp_gram(d64 @ d64.T, d64 @ x64.T, n_nonzero_coefs=32).T
    pairs = zip(codes.latents.tolist(), peer, strict=True)
    same = [set(row) == set(np.flatnonzero(of_peer)) for row, of_peer in pairs]
    assert np.mean(same) >= 0.995


def test_a_gram_matrix_on_the_device_has_every_product():
    _, atoms = random_problem(1, 50, 16)
    with PretendDevice():
        gram = gram_matrix(atoms.to("pretend")).cpu()
    torch.testing.assert_close(gram, (atoms.double() @ atoms.double().T).float())


def test_a_gram_matrix_that_fills_memory_is_done_without(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("itda_core.pursuit.gram.gram_matrix", full)
    assert affordable_gram(torch.eye(4), memory=10**6) is None


# Waits


def waits_of(pursuit, n_tokens, l0, **more):
    x, atoms = random_problem(n_tokens, 100, 24)
    with PretendDevice() as seen:
        pursuit(*elsewhere(x, atoms), l0, **more)
    assert seen.calls["aten::mm"] or seen.calls["aten::bmm"]
    return sum(seen.waits.values())


@pursuits
def test_the_host_waits_a_few_times_a_block_and_never_in_a_step(pursuit, way):
    few = waits_of(pursuit, 60, 2)
    assert few <= 4
    assert waits_of(pursuit, 60, 20) == few


def test_more_blocks_wait_more_often_by_the_same(way, monkeypatch):
    token = 4 * (2 * 100 + 24 * (4 + 12)) if way != "gram" else 4 * (3 * 100 + 4 * 24 + 2 * 16)
    gram = 4 * 100**2 if way == "gram" else 0
    blocks_so_far, waits = full_above(90, monkeypatch), []
    for memory, n_blocks in ((90 * token + gram, 1), (30 * token + 4 * gram // 3, 3)):
        blocks_so_far.clear()
        waits.append(waits_of(orthogonal_matching_pursuit, 90, 4, memory=memory))
        assert len(blocks_so_far) == n_blocks
    one, three = waits
    assert one <= 3
    assert three <= 3 * one


# What the fast ways can't tell


def unclear_tokens(monkeypatch, module):
    """How many tokens each block pursues anew, from now on."""
    counts, anew = [], blocks.pursue_anew

    def spy(unclear, *rest):
        counts.append(int(unclear.sum()))
        anew(unclear, *rest)

    monkeypatch.setattr(module, "pursue_anew", spy)
    return counts


def crowded_problem():
    """Twenty atoms close to each of eight directions: closer than 16 bits can tell."""
    draw = np.random.default_rng(5)
    centres = np.repeat(unit_rows(draw.normal(size=(8, 24))), 20, axis=0)
    atoms = unit_rows(centres + 2e-4 * draw.normal(size=centres.shape))
    x = draw.normal(size=(60, 8)) @ centres[::20] + 0.01 * draw.normal(size=(60, 24))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(atoms, dtype=torch.float32)


def take(name, monkeypatch):
    monkeypatch.setattr(orthogonal, "_pursue_compiled", getattr(orthogonal, f"pursue_by_{name}"))
    monkeypatch.setattr(blocks, "gram_type", lambda _: torch.float32)


def test_tokens_for_which_proposals_are_unclear_are_pursued_by_products(monkeypatch):
    x, atoms = crowded_problem()
    latents, _ = slow_orthogonal(x, atoms, 6)
    counts = unclear_tokens(monkeypatch, orthogonal_torch)
    take("proposals", monkeypatch)
    codes = orthogonal_matching_pursuit(x, atoms, 6, gram=atoms @ atoms.T)
    assert counts[0] > 0
    # Of atoms so close, float32 itself may take another one for a token.
    assert (codes.latents.numpy() == latents).all(1).mean() > 0.98


def test_tokens_for_which_products_of_atoms_are_unclear_are_pursued_by_products(monkeypatch):
    x, atoms = random_problem(40, 30, 16)
    near = torch.nn.functional.normalize(atoms + 1e-3 * torch.randn(30, 16), dim=1)
    atoms = torch.cat([atoms, near])
    counts = unclear_tokens(monkeypatch, orthogonal_torch)
    take("gram", monkeypatch)
    codes = orthogonal_matching_pursuit(x, atoms, 16, gram=atoms @ atoms.T)
    assert counts[0] > 0
    # 16 independent atoms span the space, so that nothing need be left
    assert (x - codes.reconstruct(atoms)).norm() < 0.01 * x.norm()


def test_plain_tokens_that_are_unclear_are_pursued_directly(monkeypatch):
    x, atoms = crowded_problem()
    counts = unclear_tokens(monkeypatch, matching)
    expected = matching.matching_pursuit(x, atoms, 6)
    ways = dataclasses.replace(matching._ways(), compiled=matching._pursue_by_proposals)
    monkeypatch.setattr(matching, "_ways", lambda: ways)
    codes = matching.matching_pursuit(x, atoms, 6)
    assert counts[0] > 0
    assert torch.equal(codes.latents, expected.latents)


@pytest.mark.parametrize("n_atoms", [1, 7, 8, 9, 63, 64, 65, 700])
def test_what_is_proposed_and_sure_is_the_largest(n_atoms):
    x, atoms = random_problem(300, n_atoms, 24, seed=n_atoms)
    best, is_sure = Proposed(atoms)(x)
    correlations = (x.double() @ atoms.double().T).abs()
    expected = correlations.argmax(1)
    assert torch.equal(best[is_sure], expected[is_sure])
    assert is_sure.double().mean() > 0.95


def test_proposals_are_not_sure_where_more_atoms_are_equal_than_are_looked_at():
    x, atoms = random_problem(20, 5, 24)
    best, is_sure = Proposed(atoms.repeat(9, 1))(x)
    assert not is_sure.any()
    best, is_sure = Proposed(atoms.repeat(3, 1))(x)
    assert is_sure.any()
    assert (best[is_sure] < 5).all()


# TF32


def as_tf32(x):
    """float32 rounded to the ten bits of TF32, to the nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def test_products_in_parts_are_exact_where_torch_multiplies_in_tf32(monkeypatch):
    x, atoms = random_problem(40, 60, 128)
    x = torch.nn.functional.normalize(x, dim=1)
    exact = x.double() @ atoms.double().T
    rounded = lambda a, b: torch.matmul(as_tf32(a), as_tf32(b))  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert ((x @ atoms.T).double() - exact).abs().max() > 5e-5
    assert (products_in_parts(x, atoms.T).double() - exact).abs().max() < 1e-6


class AsOnCuda:
    """A matrix that says it is on a CUDA device, and which products were asked of it."""

    device = torch.device("cuda")

    def __matmul__(self, other):
        return "one product"


@pytest.mark.parametrize(
    ("setting", "made"), [("tf32", "three parts"), ("ieee", "one product"), ("none", "one product")]
)
def test_only_where_torch_may_use_tf32_products_on_cuda_are_made_in_parts(
    setting, made, monkeypatch
):
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=setting))
    monkeypatch.setattr(products, "products_in_parts", lambda *_: "three parts")
    monkeypatch.setattr(torch, "matmul", lambda a, b, out: a @ b)
    assert products.products(AsOnCuda(), AsOnCuda()) == made


@pytest.fixture
def bfloat16_products(monkeypatch):
    """torch set to multiply float32 in bfloat16, and doing so on any CPU."""

    multiply = torch.matmul

    def rounded(a, b, out=None):
        if a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return multiply(a, b, out=out)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    for name in ("mm", "matmul"):
        monkeypatch.setattr(torch, name, rounded)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    yield
    torch.set_float32_matmul_precision(before)


@pursuits
@pytest.mark.parametrize("n_tokens", [3, 60])  # by products, by the Gram matrix
def test_pursuits_on_a_cpu_are_exact_where_torch_multiplies_in_bfloat16(
    pursuit, n_tokens, bfloat16_products
):
    x, atoms = random_problem(n_tokens, 200, 64)
    assert (torch.mm(x, atoms.T).double() - x.double() @ atoms.double().T).abs().max() > 1e-3
    slow = slow_orthogonal if pursuit is orthogonal_matching_pursuit else slow_pursuit
    assert np.array_equal(pursuit(x, atoms, 6).latents.numpy(), slow(x, atoms, 6)[0])
    assert torch.get_float32_matmul_precision() == "medium"


def test_an_autoencoder_and_the_nearest_centres_are_exact_there_too(bfloat16_products):
    x, atoms = random_problem(300, 200, 160)
    x = torch.nn.functional.normalize(x, dim=1)
    exact = x.double() @ atoms.double().T
    zeros, ones = torch.zeros(200), torch.ones(200)
    encoder = SaeEncoder("topk", atoms.T.contiguous(), zeros, torch.zeros(160), ones, k=4)
    torch.testing.assert_close(encoder.pre_activations(x).double(), exact, rtol=0, atol=1e-6)
    assert torch.equal(coverage._nearest(x, atoms), exact.argmax(1))


# Memory


def full_above(tokens, monkeypatch):
    """Let memory be full wherever a block has more tokens; gives the blocks that were tried."""
    tried, scaled = [], blocks._scaled

    def scale(x):
        tried.append(len(x))
        if len(x) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return scaled(x)

    monkeypatch.setattr(blocks, "_scaled", scale)
    return tried


@pursuits
def test_where_memory_is_full_blocks_are_halved_and_the_codes_are_the_same(
    pursuit, way, monkeypatch
):
    x, atoms = random_problem(50, 80, 24)
    expected = pursuit(x, atoms, 5)
    tried = full_above(8, monkeypatch)
    with PretendDevice():
        codes = pursuit(*elsewhere(x, atoms), 5).to("cpu")
    assert tried[:4] == [50, 25, 12, 6]
    assert sum(tried[3:]) == 50
    assert torch.equal(codes.latents, expected.latents)


def test_where_not_even_one_token_fits_it_is_said_what_to_change(monkeypatch):
    x, atoms = random_problem(5, 80, 24)
    full_above(0, monkeypatch)
    with PretendDevice(), pytest.raises(InputError) as refused:
        orthogonal_matching_pursuit(*elsewhere(x, atoms), 3)
    assert "80 atoms with L0 3 on the device pretend:0" in str(refused.value)
    assert "take fewer atoms" in str(refused.value)


def test_other_errors_of_a_pursuit_are_passed_on(monkeypatch):
    def broken(_):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(blocks, "_scaled", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        orthogonal_matching_pursuit(torch.ones(3, 4), torch.eye(4), 1)


# Which way


def planned(n_tokens, n_atoms, d_model, l0, memory, halves, monkeypatch):
    for module in (blocks, products):
        monkeypatch.setattr(module, "halves_propose", lambda _: halves)
    monkeypatch.setattr(blocks, "affordable_gram", lambda atoms, memory: (
        torch.empty(len(atoms), len(atoms), dtype=torch.float32, device="meta")
        if 4 * len(atoms) ** 2 <= memory else None
    ))  # fmt: skip
    ways = orthogonal._ways(0.0, l0)
    x, atoms = (
        torch.empty(n_tokens, d_model, device="meta"),
        torch.empty(n_atoms, d_model, device="meta"),
    )
    pursue, gram, rows = blocks._plan_on_device(ways, x, atoms, l0, None, memory)
    names = {id(getattr(ways, name)): name for name in ("by_gram", "by_products", "by_proposals")}
    return names[id(pursue)], gram is not None, rows


@pytest.mark.parametrize(
    ("n_atoms", "d_model", "l0", "halves", "takes"),
    [
        (16_384, 576, 32, True, "by_proposals"),
        (16_384, 4_096, 32, True, "by_proposals"),
        (16_384, 8_192, 32, True, "by_gram"),
        (2_048, 576, 32, False, "by_products"),
        (2_048, 2_048, 32, False, "by_gram"),
        (100_000, 8_192, 32, True, "by_proposals"),  # no room for a Gram matrix of 37 GiB
        (100_000, 8_192, 32, False, "by_products"),
    ],
)
def test_the_gram_matrix_is_taken_where_it_moves_less(
    n_atoms, d_model, l0, halves, takes, monkeypatch
):
    memory = 10 * 2**30
    name, has_gram, rows = planned(10**6, n_atoms, d_model, l0, memory, halves, monkeypatch)
    assert name == takes
    assert has_gram == (takes == "by_gram")
    # Each way holds at least its correlations, and those by products a basis.
    holds = 4 * n_atoms * 2 if has_gram else 2 * n_atoms + 4 * l0 * d_model
    assert rows * holds <= memory
    # Most of the memory is used, or one array is as large as any need be.
    assert rows * holds > memory // 8 or rows * max(n_atoms, l0 * d_model) > 2**28


def test_pursuits_that_would_not_take_a_gram_matrix_are_given_none(monkeypatch):
    atoms = torch.eye(8, 6)
    for pays in (True, False):
        monkeypatch.setattr("itda_core.pursuit.gram.gram_pays", lambda *_, pays=pays: pays)
        assert (affordable_gram(atoms, traffic=8.0) is not None) == pays
    assert affordable_gram(atoms) is not None


def grams_made(monkeypatch):
    """The sizes of the Gram matrices that are made from now on."""
    sizes, empty = [], gram.empty_gram

    def spy(n_atoms, device):
        sizes.append(n_atoms)
        return empty(n_atoms, device)

    for module in (gram, growing):
        monkeypatch.setattr(module, "empty_gram", spy)
    return sizes


@pursuits
def test_one_step_on_a_device_makes_no_gram_matrix(pursuit, monkeypatch):
    monkeypatch.setattr(blocks, "gram_pays", lambda *_: True)
    x, atoms = random_problem(90, 40, 24)
    expected, sizes = pursuit(x, atoms, 1), grams_made(monkeypatch)
    with PretendDevice():
        found = pursuit(*elsewhere(x, atoms), 1).to("cpu")
        assert sizes == []
        pursuit(*elsewhere(x, atoms), 2)
    assert sizes == [40]
    assert torch.equal(found.latents, expected.latents)


# For each atom a step moves 32 bytes in matching pursuit, in an orthogonal one of L0 8
# 4 · (8 / 2 + 7) = 44.
@pytest.mark.parametrize(
    ("pursuit", "affords", "taken"),
    [
        ("matching", 31, False), ("matching", 33, True), ("refit", 33, True),
        ("orthogonal", 43, False), ("orthogonal", 45, True),
    ],
)  # fmt: skip
def test_a_dictionary_asks_by_its_own_pursuit(pursuit, affords, taken, monkeypatch):
    monkeypatch.setattr(gram, "product_traffic", lambda *_: affords)
    _, atoms = random_problem(1, 40, 24)
    with PretendDevice():
        atoms = atoms.to("pretend")
        encoder = PursuitEncoder(atoms, torch.zeros(24).to("pretend"), pursuit, 8, 0.0)
        assert (encoder.gram() is not None) == taken


@pytest.mark.parametrize(("affords", "taken"), [(31, False), (33, True)])
def test_a_growing_dictionary_has_a_gram_matrix_where_its_pursuit_takes_it(
    affords, taken, monkeypatch
):
    monkeypatch.setattr(gram, "product_traffic", lambda *_: affords)
    x, atoms = random_problem(90, 40, 24)
    sizes, sources = grams_made(monkeypatch), [("p", 0, 0, 1, "t", 0)] * 40
    with PretendDevice():
        grown = growing.GrowingDictionary(24, 40, "pretend")
        grown.append(atoms.to("pretend"), sources)
        codes = grown.encode(x.to("pretend"), 3).to("cpu")
    assert sizes == ([0, 40] if taken else [])
    assert torch.equal(codes.latents, matching.matching_pursuit(x, atoms, 3).latents)


# Two devices


@pursuits
def test_activations_and_atoms_on_two_devices_are_refused(pursuit):
    x, atoms = random_problem(5, 80, 24)
    with PretendDevice():
        with pytest.raises(InputError, match="activations are on the device cpu, the atoms on pre"):
            pursuit(x, atoms.to("pretend"), 3)
        with pytest.raises(InputError, match="activations are on the device pretend:0, the gram"):
            pursuit(*elsewhere(x, atoms), 3, gram=gram_matrix(atoms))


def test_codes_and_what_they_meet_on_two_devices_are_refused():
    x, atoms = random_problem(5, 80, 24)
    with PretendDevice():
        codes = orthogonal_matching_pursuit(*elsewhere(x, atoms), 3)
        with pytest.raises(InputError, match="codes are on the device pretend:0, the atoms on cpu"):
            codes.reconstruct(atoms)
        with pytest.raises(InputError, match="activations are on the device cpu, the codes"):
            residual_norms(x, codes)
        with pytest.raises(InputError, match="activations are on the device cpu, the reconstr"):
            direction_errors(x, x.to("pretend"))
        with pytest.raises(InputError, match="activations are on the device cpu, the atoms"):
            refit(x, atoms.to("pretend"), codes.latents, codes.coefficients != 0)


def test_codes_move_whole_and_stay_where_they_are():
    x, atoms = random_problem(5, 80, 24)
    codes = orthogonal_matching_pursuit(x, atoms, 3)
    assert codes.to("cpu") is codes
    with PretendDevice():
        moved = codes.to("pretend")
        for field in dataclasses.fields(codes):
            there = getattr(moved, field.name)
            assert there.device.type == "pretend"
            assert torch.equal(there.cpu(), getattr(codes, field.name))
    plain = matching.matching_pursuit(x, atoms, 3)
    with PretendDevice():
        assert plain.to("pretend").factor is None
