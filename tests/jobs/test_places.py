"""Which device a job gets: hand-worked cases."""

from dataclasses import replace

import pytest

from itda_core import devices
from itda_core.jobs import places as places_module
from itda_core.jobs.job import Job
from itda_core.jobs.places import Places, again, free_bytes, places_here
from tests.support.fake_devices import GIB, pretend_gpus

JOB = Job("00001", "queued", "A title", 0.0)
TWO = Places(("cuda:0", "cuda:1", "cpu"))
MEMORY = {"cuda:0": 20, "cuda:1": 22, "cuda:2": 21, "cpu": 60}.get


def place(places, busy=(), **fields):
    return places.free(replace(JOB, **fields), busy, MEMORY)


def test_a_job_that_names_no_device_gets_the_gpu_with_most_free_memory():
    assert place(TWO) == "cuda:1"
    assert place(TWO, ["cuda:1"]) == "cuda:0"
    assert place(Places(("cuda:0", "cuda:1", "cuda:2", "cpu")), ["cuda:1"]) == "cuda:2"
    assert place(Places(("mps", "cpu"))) == "mps"
    assert place(Places()) == "cpu"


@pytest.mark.parametrize(
    ("places", "busy"),
    [(TWO, ["cuda:0", "cuda:1"]), (Places(("mps", "cpu")), ["mps"]), (Places(), ["cpu"])],
)
def test_it_waits_while_all_of_the_fastest_kind_are_taken(places, busy):
    assert place(places, busy) is None


def test_a_job_gets_the_device_it_names_or_waits_for_it():
    assert place(TWO, device="cuda:0") == "cuda:0"
    assert place(TWO, ["cuda:0"], device="cuda:0") is None
    assert place(TWO, ["cuda:0", "cuda:1"], device="cpu") == "cpu"
    assert place(TWO, ["cuda:1"], device="cuda") == "cuda:0"


def test_a_device_that_is_not_there_is_allowed_nowhere():
    job = replace(JOB, device="cuda:7")
    assert TWO.allowed(job) == ()
    assert TWO.missing(job) == "There is no device 'cuda:7' here. There is: cuda:0, cuda:1, cpu."


def test_the_setting_is_where_jobs_run_that_name_none():
    set_to = replace(TWO, setting="cuda:0")
    assert place(set_to) == "cuda:0"
    assert place(set_to, ["cuda:0"]) is None
    assert place(set_to, ["cuda:0"], device="cuda:1") == "cuda:1"
    assert set_to.of(JOB) == "cuda:0"


def test_what_was_started_before_takes_its_device_else_one_of_its_kind():
    resumed = again(replace(JOB, place="cuda:0"))
    assert TWO.free(resumed, [], MEMORY) == "cuda:0"
    assert TWO.free(resumed, ["cuda:0"], MEMORY) == "cuda:1"
    assert TWO.free(resumed, ["cuda:0", "cuda:1"], MEMORY) is None
    assert Places().free(resumed, [], MEMORY) == "cpu"  # the GPUs have gone
    on_the_cpu = again(replace(JOB, place="cpu"))
    assert TWO.free(on_the_cpu, [], MEMORY) == "cpu"
    assert again(replace(JOB, device="cuda:1")).device == "cuda:1"


def test_the_machine_is_asked_for_its_devices_and_what_is_free(monkeypatch):
    pretend_gpus(monkeypatch, free=(3, 5))
    assert places_here() == TWO
    assert free_bytes("cuda:1") == 5 * GIB
    monkeypatch.setenv("ITDA_DEVICE", "cuda")
    assert places_here().setting == "cuda:0"

    def refuse(name):
        raise RuntimeError("the driver says no")

    monkeypatch.setattr(devices, "described", refuse)
    assert free_bytes("cuda:1") == 0


def test_the_kind_is_what_the_devices_say():
    for name in ("cpu", "mps", "cuda", "cuda:1"):
        assert places_module._kind(name) == devices.kind_of(name)
