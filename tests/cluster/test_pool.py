"""Calls are given to workers, and made again where a worker is lost or its disk is full."""

import os
import types

import pytest

from itda_core.cluster import pool as pool_module
from itda_core.cluster.connection import Size
from itda_core.cluster.machine import packages
from itda_core.cluster.messages import Arrival, Failure, Greeting
from itda_core.cluster.pool import Call, Pool
from itda_core.errors import InputError, ItdaError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class LostError(RayError):
    pass


class Actor:
    """A worker of this process, in the place of one of Ray's."""

    def __init__(self, worker):
        self.worker = worker
        self.work = types.SimpleNamespace(options=lambda **_: self)

    def options(self, **options):
        return self

    def remote(self, call, arguments):
        return iter(self.worker.work(call, arguments))


class RayHere:
    """What the pool uses of Ray, without processes: streams are ready in turn."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self):
        self.killed, self.options, self.turn = [], [], -1

    def remote(self, kind):
        started = types.SimpleNamespace(remote=lambda orders: Actor(kind(orders)))

        def options(**said):
            self.options.append(said)
            return started

        return types.SimpleNamespace(options=options)

    def wait(self, streams, timeout):
        self.turn += 1
        return [streams[self.turn % len(streams)]], []

    def get(self, event):
        if isinstance(event, RayError):
            raise event
        return event

    def kill(self, actor):
        self.killed.append(actor.worker.number)

    def put(self, what):
        return what


@pytest.fixture
def workers(monkeypatch):
    """Gives a pool of workers that do what `answers` says: by the worker's number, counted from 0
    in the order in which they are started, what each call yields."""

    def make(answers, count=2, greetings=()):
        started = []

        class Scripted:
            def __init__(self, orders):
                self.number = len(started)
                started.append(self)

            def work(self, call, arguments):
                if call == "greet":
                    yield Arrival()
                    changed = dict(greetings).get(self.number, {})
                    usual = {"machine": f"m{self.number}", "identity": "model float32"}
                    usual |= {"tokenizer": "t", "device_type": "cpu", "is_swept": False}
                    usual |= {"packages": packages()}
                    yield Greeting(**usual | changed)
                    return
                yield from answers(self.number, *arguments)

        monkeypatch.setattr(pool_module, "Worker", Scripted)
        pool = Pool(RayHere(), None, Size(count, 1, 0))
        pool.enlist(None)
        return pool

    return make


def events(pool, count, ahead=1):
    calls = {Call("do", (number,)): number for number in range(count)}
    return [(calls[heard[0]], heard[1]) for heard in pool.run(calls, ahead) if heard is not None]


@pytest.mark.parametrize("ahead", [1, 2])
def test_each_call_is_made_once_and_by_all_workers(workers, ahead):
    pool = workers(lambda worker, call: [worker, "end"], count=3)
    found = events(pool, 20, ahead)
    assert sorted(call for call, what in found if what == "end") == list(range(20))
    assert {what for _, what in found} == {0, 1, 2, "end"}


def test_the_calls_of_a_worker_that_is_lost_are_made_again_by_others(workers):
    def answers(worker, call):
        yield ("begun", worker)
        if worker == 0:
            yield LostError("the node has died")
        yield ("end", worker)

    pool = workers(answers)
    ends = [call for call, what in events(pool, 7, ahead=2) if what[0] == "end"]
    assert sorted(ends) == list(range(7))
    assert pool._ray.killed == [0]
    assert pool.lost == {"m0": 1}
    assert pool.machines.total() == 2, "another one has come in its place"
    assert ["machine m0 was lost" in note for note in pool.notes] == [True]


def test_a_call_that_ends_every_worker_is_given_up_with_the_reason(workers):
    def answers(worker, call):
        yield LostError("killed for want of memory") if call == 3 else "end"

    with pytest.raises(ItdaError, match=r"Workers end .* killed for want of memory.*stays"):
        events(workers(answers), 7)


def test_workers_that_the_cluster_has_no_room_for_are_told_until_they_arrive(workers, monkeypatch):
    pool = workers(lambda worker, call: ["end"])
    assert pool.without_room == [], "not at once"
    monkeypatch.setattr(pool_module, "_ROOM_SECONDS", -1.0)
    [told] = pool.without_room
    assert "has no room yet for 2 of 2 workers of 1 CPU each" in told
    events(pool, 20)
    assert pool.without_room == []


FULL = Failure("m1", "There is no space left on the disk of /shared/runs", is_disk=True)


def test_what_a_machine_with_a_full_disk_had_to_do_is_done_by_the_others(workers):
    pool = workers(lambda worker, call: [FULL if worker == 1 else "end"], count=3)
    assert sorted(call for call, _ in events(pool, 9)) == list(range(9))
    assert pool._ray.killed == [1]
    assert pool.notes == [f"The machine m1 works no more: {FULL.sentence}."]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_where_the_disk_of_all_is_full_the_sentence_names_machine_and_folder(workers, count):
    pool = workers(lambda worker, call: [FULL], count=count)
    with pytest.raises(ItdaError, match=r"no space left on the disk of /shared/runs \(on .* m\d"):
        events(pool, 9)


@pytest.mark.parametrize("is_input, kind", [(True, InputError), (False, ItdaError)])
def test_what_else_a_worker_says_ends_the_work_with_its_machine(workers, is_input, kind):
    failure = Failure("m7", "No such layer.", is_input)
    pool = workers(lambda worker, call: [failure], count=1)
    with pytest.raises(kind, match=r"^The machine m7 says: No such layer\.$") as error:
        events(pool, 2)
    assert type(error.value) is kind


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"identity": "other float32"}, "model on the machine m1 is another one"),
        ({"tokenizer": "u"}, "model on the machine m1 is another one"),
        ({"device_type": "cuda"}, "m1 computes on cuda, m0 on cpu"),
        ({"is_swept": True}, "m1 has to read the model block by block, and m0 loads it"),
        ({"packages": {"torch": "1.0"}}, r"m1 has another torch \(1.0\)"),
        ({"packages": {"itda-explorer": "0"}}, "m1 has another itda-explorer"),
    ],
)
def test_a_worker_whose_numbers_could_differ_is_refused_by_name(workers, changed, told):
    pool = workers(lambda worker, call: ["end"], greetings=[(1, changed)])
    with pytest.raises(InputError, match=told):
        events(pool, 50)


def test_closing_ends_the_workers_whatever_they_do(workers):
    pool = workers(lambda worker, call: iter(int, 1))  # without an end
    running = pool.run([Call("do", (0,)), Call("do", (1,))])
    for _ in range(5):
        next(running)
    running.close()
    pool.close()
    assert sorted(pool._ray.killed) == [0, 1]


def test_what_is_said_to_the_command_holds_on_the_machines(workers, tmp_path, monkeypatch):
    """But for the device, which each machine has of its own."""
    monkeypatch.chdir(tmp_path)
    said = {"ITDA_MEMORY": "3GiB", "HF_HUB_OFFLINE": "1", "ITDA_DATA": "data", "PYTHONPATH": "/x"}
    for name, value in {**said, "ITDA_DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)
    [passed] = {
        str(one["runtime_env"]): one for one in workers(lambda *_: [])._ray.options
    }.values()
    found = passed["runtime_env"]["env_vars"]
    assert found.pop("PYTHONPATH").endswith(f"{os.pathsep}/x")
    expected = {"ITDA_MEMORY": "3GiB", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    assert found == {**expected, "ITDA_DATA": str(tmp_path / "data")}
