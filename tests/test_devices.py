"""Which devices there are, and what is said where two differ or one is full."""

import re
from contextlib import nullcontext

import pytest
import torch

from itda_core.devices import (
    best_device,
    check_same_device,
    checked_device,
    device_names,
    devices,
    free_memory,
    halving,
    has_float64,
    in_float64,
    is_out_of_memory,
    kind_of,
    numbered,
    to_device,
    to_host,
    working_on,
)
from itda_core.errors import InputError
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.matching import matching_pursuit
from tests.support.pretend_device import PretendDevice


def test_the_cpu_is_there_with_its_memory():
    cpu = devices()[-1]
    assert cpu.name == "cpu"
    assert 0 < cpu.free <= cpu.total
    assert free_memory(torch.device("cpu")) <= cpu.total


def test_the_gpus_come_first_and_the_cpu_last(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_names() == ["cuda:0", "cuda:1", "cpu"]
    assert [kind_of(name) for name in (*device_names(), "mps")] == ["cuda", "cuda", "cpu", "mps"]
    assert [numbered(name) for name in ("cuda", "cuda:1", "mps:0")] == ["cuda:0", "cuda:1", "mps"]


def test_the_setting_decides_what_computes(monkeypatch):
    monkeypatch.setenv("ITDA_DEVICE", "cpu")
    assert best_device() == "cpu"
    monkeypatch.setenv("ITDA_DEVICE", "cuda:7")
    told = r"There is no device 'cuda:7' here. There is: .*cpu\..* ITDA_DEVICE names it: change"
    with pytest.raises(InputError, match=told):
        best_device()


def test_a_torch_without_cuda_is_named_where_a_gpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        InputError, match=re.escape(f"This torch, {torch.__version__}, is built without CUDA.")
    ):
        checked_device("cuda")


@pytest.mark.parametrize("name", ["cuda:7", "toaster", "", "cpu:x", "meta"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(InputError, match=r"There is: .*cpu"):
        checked_device(name)


def busy(*_about, **_more):
    raise RuntimeError("CUDA error: all devices are busy\nCompile with")


def test_a_device_that_cannot_be_opened_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", busy)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(InputError) as refused:
            checked_device(name)
        told = f"The device {name!r} can't be opened: CUDA error: all devices are busy"
        assert str(refused.value) == told


def test_a_device_that_cannot_be_opened_is_listed_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", busy)
    gpu, cpu = devices()
    assert (gpu.name, gpu.total, gpu.free) == ("cuda:0", 0, 0)
    assert gpu.trouble.endswith("devices are busy")
    assert not cpu.trouble


def test_a_gram_matrix_elsewhere_is_to_be_made_anew_and_that_does_it():
    """Its numbers are others on a CPU, so one that was moved would be refused."""
    atoms = torch.eye(4, dtype=torch.float32)
    with PretendDevice():
        there = atoms.to("pretend")
        with pytest.raises(InputError, match=r"Make it on pretend:0: gram_matrix\(atoms\)\."):
            matching_pursuit(there, there, 2, gram=gram_matrix(atoms))
        matching_pursuit(there, there, 2, gram=gram_matrix(there))


def test_tensors_on_two_devices_are_named():
    with PretendDevice():
        atoms = torch.zeros(2, 3, dtype=torch.float32).to("pretend")
        check_same_device(atoms=atoms, more=atoms)
        with pytest.raises(InputError) as refused:
            check_same_device(activations=torch.zeros(2, 3), atoms=atoms)
    assert "activations are on the device cpu, the atoms on pretend:0" in str(refused.value)
    assert 'atoms.to("cpu")' in str(refused.value)


def test_only_a_gpu_is_a_threads_current_device(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(chosen.append(device)))
    for name in ("cpu", "mps", "cuda:1"):
        with working_on(torch.device(name)):
            pass
    assert chosen == [torch.device("cuda:1")]


def test_sums_are_kept_in_float64_where_the_device_has_it():
    x = torch.tensor([1.0, 2.0], dtype=torch.float32)
    with PretendDevice():
        there = in_float64(x.to("pretend"))
        assert (there.dtype, there.device.type) == (torch.float64, "pretend")
    assert in_float64(x).dtype == torch.float64
    assert [has_float64(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_full_memory_is_told_from_other_errors(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def in_a_memory_of(rows, done):
    """Work that fails where more than `rows` are asked for at once."""

    def work(first, last):
        if last - first > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nMore.")
        done.append((first, last))
        return list(range(first, last))

    return work


def test_where_memory_is_full_the_work_is_halved_and_goes_on():
    done = []
    found = [row for part in halving(in_a_memory_of(3, done), 21, 10, "No.") for row in part]
    assert found == list(range(21))
    assert {last - first for first, last in done} == {2, 1}  # 10, 5, then 2 and the rest
    assert list(halving(in_a_memory_of(3, done), 0, 10, "No.")) == []


def test_where_not_even_one_fits_it_is_said_and_what_is_done_stands():
    def work(first, last):
        if last > 4:
            raise MemoryError
        return last

    results = []
    with pytest.raises(InputError, match=r"One token does not fit: take fewer atoms. \(memory"):
        for last in halving(work, 8, 4, "One token does not fit: take fewer atoms."):
            results.append(last)
    assert results == [4]


def test_what_does_not_fit_beside_a_large_part_is_tried_beside_smaller_ones():
    """A memory of five: a part of the outer work takes one for each row, and so does what it does
    row by row meanwhile. A part of four and one row are the most."""

    def outer(first, last):
        inner = in_a_memory_of(5 - (last - first), [])
        return list(halving(inner, last - first, last - first, "Not one row: take fewer."))

    parts = list(halving(outer, 16, 16, "No."))
    assert [len(part) for part in parts] == [4, 4, 4, 4]
    with pytest.raises(InputError, match=r"Nothing: buy more. \(Not one row: take fewer. \(CUDA"):
        list(halving(lambda a, b: outer(a, b + 4), 16, 16, "Nothing: buy more."))


def test_other_errors_are_not_tried_again():
    tries = []

    def work(first, last):
        tries.append((first, last))
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(halving(work, 8, 4, "No."))
    assert tries == [(0, 4)]


def test_tensors_come_to_the_host_as_they_are_by_one_transfer():
    given = [
        torch.tensor([True, False, True]),
        torch.tensor([[1, 2], [3, 2**40]], dtype=torch.int64),
        torch.zeros(0, 4, dtype=torch.float32),
        torch.tensor([0.1, float("nan"), float("-inf")], dtype=torch.float32),
        torch.arange(6, dtype=torch.float32).view(2, 3).T,
        torch.tensor(2.5, dtype=torch.float64),
    ]
    with PretendDevice() as seen:
        there = [to_device(tensor, "pretend") for tensor in given]
        assert not seen.waits
        back = to_host(*there)
        assert seen.waits == {"to the CPU": 1}
    for found, tensor in zip(back, given, strict=True):
        assert found.device.type == "cpu"
        assert found.dtype == tensor.dtype
        assert found.shape == tensor.shape
        assert torch.equal(found.nan_to_num(), tensor.nan_to_num())
    assert to_host(given[0])[0] is given[0]
