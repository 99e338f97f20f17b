"""Choosing on a device: the rows that the CPU chooses, and how often the host waits for them.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import numpy as np
import pytest
import torch

from itda_core.activations import centre
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.selection import coverage
from itda_core.selection.coverage import (
    centre_of,
    choose,
    choose_on_average,
    cover,
    least_projection,
)
from itda_core.selection.threshold import ThresholdSelection
from tests.support.pretend_device import PretendDevice

MAX_WAITS = 40
"""Of a whole choice: k-means, judging and massive activations, each a few times"""


@pytest.fixture(scope="module")
def activations():
    """1,500 activations around 60 directions, with a mean, some of them massive."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(60, 24, generator=generator)
    which = torch.randint(60, (1_500,), generator=generator)
    x = centres[which] + 0.3 * torch.randn(1_500, 24, generator=generator) + 2
    x[torch.arange(7, 1_500, 300)] *= 60
    return x


@pytest.fixture
def without_float64(monkeypatch):
    """As on MPS."""
    for module in (centre, coverage):
        monkeypatch.setattr(module, "has_float64", lambda device: device.type == "cpu")
    return monkeypatch


def same(choice, expected):
    assert choice.rows.tolist() == expected.rows.tolist()
    assert choice.rows.device.type == "cpu"
    torch.testing.assert_close(choice.atoms.cpu(), expected.atoms)
    torch.testing.assert_close(choice.offset.cpu(), expected.offset)
    assert choice.centre.median_norm == pytest.approx(expected.centre.median_norm)


@pytest.mark.parametrize("offset", ["mean", "zero"])
def test_the_coverage_chooses_the_same_rows(activations, offset):
    expected = choose(activations, 50, 6, seed=3, offset=offset)
    with PretendDevice() as seen:
        choice = choose(activations.to("pretend"), 50, 6, seed=3, offset=offset)
        assert choice.atoms.device.type == choice.offset.device.type == "pretend"
        assert 0 < seen.waits.total() < MAX_WAITS
        same(choice, expected)


def test_a_wide_model_is_reduced_to_principal_components_there_too(activations, monkeypatch):
    monkeypatch.setattr(coverage, "COMPONENTS", 12)
    expected = choose(activations, 50, 6, seed=3)
    with PretendDevice():
        same(choose(activations.to("pretend"), 50, 6, seed=3), expected)


def test_an_l0_on_average_has_the_same_price(activations):
    choice, least = choose_on_average(activations, 50, 4, 8, seed=1)
    with PretendDevice() as seen:
        other, found = choose_on_average(activations.to("pretend"), 50, 4, 8, seed=1)
        assert seen.waits.total() < MAX_WAITS
        same(other, choice)
    assert found == pytest.approx(least, rel=1e-4)
    assert least > 0


def test_more_steps_do_not_make_the_host_wait_more(activations):
    waits = []
    with PretendDevice() as seen:
        x = activations.to("pretend")
        for l0 in (2, 16):
            seen.waits.clear()
            cover(torch.nn.functional.normalize(x - x.mean(0), dim=1), 40, l0, 0)
            waits.append(seen.waits.total())
    assert waits[0] == waits[1]


def test_few_activations_become_atoms_as_they_are(activations):
    few = torch.cat([activations[:9], activations[:9]])
    with PretendDevice():
        rows = cover(torch.nn.functional.normalize(few, dim=1).to("pretend"), 30, 4, 0)
    assert rows.tolist() == list(range(9))


def test_sums_over_groups_are_those_of_a_loop(activations):
    numbers = torch.randint(17, (len(activations),), generator=torch.Generator().manual_seed(0))
    expected = np.stack(
        [activations.double().numpy()[numbers == group].sum(0) for group in range(17)]
    )
    on_cpu = coverage._sums(activations, numbers, 17)
    with PretendDevice():
        found = coverage._sums(activations.to("pretend"), numbers.to("pretend"), 17).cpu()
    for sums in (on_cpu, found):
        np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-4, atol=1e-3)


def test_a_mean_is_summed_in_parts_where_there_is_no_float64(activations, without_float64):
    without_float64.setattr(centre, "_SUMMED", 100)
    expected = activations[activations.norm(dim=1) < 200].double().mean(0).float()
    with PretendDevice(has_float64=False):
        found = centre_of(activations.to("pretend"))
        torch.testing.assert_close(found.mean.cpu(), expected, rtol=1e-5, atol=1e-6)
    assert found.median_norm == float(activations.norm(dim=1).median())


def test_the_same_rows_are_chosen_where_there_is_no_float64(activations, without_float64):
    without_float64.setattr(coverage, "COMPONENTS", 12)
    expected, least = choose_on_average(activations, 50, 4, 8, seed=1)
    with PretendDevice(has_float64=False):
        with pytest.raises(TypeError, match="float64"):
            activations.to("pretend").double()
        choice, found = choose_on_average(activations.to("pretend"), 50, 4, 8, seed=1)
        same(choice, expected)
    assert found == pytest.approx(least, rel=1e-4)


def test_the_threshold_takes_the_same_tokens_and_waits_once_a_step(activations):
    taken, waits = {}, []
    for device in ("cpu", "pretend"):
        with PretendDevice() as seen:
            dictionary = GrowingDictionary(24, 300, device)
            selection = ThresholdSelection(dictionary, 6, 0.2)
            x = activations.to(device)
            for first in range(0, 1_500, 250):
                seen.waits.clear()
                part = [(str(row), 0, 0, 0, "", 0) for row in range(first, first + 250)]
                selection.offer(x[first : first + 250], part)
                waits.append(seen.waits.total())
            assert dictionary.atoms.device.type == device
            taken[device] = [name for name, *_ in dictionary.sources]
            atoms = dictionary.atoms.cpu()
    assert taken["pretend"] == taken["cpu"]
    assert len(taken["cpu"]) > 40  # beyond the seeds, 24
    assert atoms.norm(dim=1).tolist() == pytest.approx([1.0] * len(atoms))
    assert max(waits[6:]) <= 4


def test_nothing_to_measure_a_budget_on_leaves_no_smallest_projection(activations):
    with PretendDevice():
        x = activations.to("pretend")
        choice = choose(x, 20, 4, seed=0)
        assert least_projection(x[:0], choice, 4, 8) == 0.0
