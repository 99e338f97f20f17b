"""Measures of likeness on a device: the CPU's values, of the models' own device.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import numpy as np
import pytest
import torch

from itda_core.errors import InputError
from itda_core.runs.run import list_runs
from itda_core.similarity import layers as comparing
from itda_core.similarity import measures
from itda_core.similarity.layers import compare_runs
from itda_core.similarity.measures import MEASURES, measure_matrix, prepare
from tests.support.alike import related
from tests.support.pretend_device import PretendDevice
from tests.support.trained_runs import shared_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[:2]


def layers():
    """Two layers that are alike, one of fewer dimensions, and one that says nothing."""
    a, b = related(n_tokens=100)
    return [a.float(), b.float(), a[:, :3].float(), torch.ones(100, 4, dtype=torch.float32)]


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_gives_what_the_cpu_gives(name):
    expected = measure_matrix(name, layers())
    with PretendDevice() as seen:
        there = [x.to("pretend") for x in layers()]
        found = measure_matrix(name, there)
        across = measure_matrix(name, there[:1], there[1:])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(across, expected[:1, 1:], rtol=1e-4, atol=1e-6)
    # A few for each matrix and one or two for each of the 16 + 3 pairs.
    assert sum(seen.waits.values()) <= 8 * 8 + 3 * 19


def test_matrices_on_two_devices_are_refused_by_name():
    a, b, *_ = layers()
    said = "rows are on the device cpu, the others on pretend:0"
    with PretendDevice(), pytest.raises(InputError, match=said):
        measure_matrix("cka", [a], [b.to("pretend")])


@pytest.mark.parametrize("name", MEASURES)
def test_where_a_device_lacks_what_measures_need_the_host_computes(name, monkeypatch):
    monkeypatch.setattr(measures, "has_float64", lambda device: device.type == "cpu")
    x = layers()[0]
    with PretendDevice() as seen:
        form = prepare(name, x.to("pretend"))
    assert seen.waits["to the CPU"] == 1
    assert MEASURES[name].compare(form, prepare(name, x)) == pytest.approx(1, abs=1e-3)


def values(steps):
    *_, last = steps
    return [(one["measure"], one["a"], one["b"]) for one in last.results], [
        one["value"] for one in last.results
    ]


@pytest.mark.parametrize("free", [10**9, 1_000], ids=["device", "host"])
def test_layers_compared_on_a_device_have_the_values_of_the_cpu(runs, monkeypatch, free):
    """free: what the device has; where the layers would fill it they are compared on the host."""
    names, expected = values(compare_runs(runs, list(MEASURES), 200))
    devices = set()

    def spying(name, x):
        devices.add(x.device.type)
        return prepare(name, x)

    monkeypatch.setattr(comparing, "prepare", spying)
    monkeypatch.setattr(comparing, "free_memory", lambda _device: free)
    monkeypatch.setenv("ITDA_DEVICE", "pretend")
    with PretendDevice():
        found = values(compare_runs(runs, list(MEASURES), 200))
    assert devices == {"pretend" if free > 1_000 else "cpu"}
    assert found[0] == names
    assert found[1] == pytest.approx(expected, rel=1e-4, abs=1e-6)
