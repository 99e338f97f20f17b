"""Where no cluster answers a sentence says so at once, and workers are as many as there is room."""

import socket
import sys
import threading

import pytest

from itda_core.cluster import connection
from itda_core.cluster.connection import Size, size_of, together
from itda_core.cluster.training import train_on_cluster
from itda_core.errors import InputError
from tests.support.trained_runs import tiny_config


@pytest.fixture
def begun(tmp_path):
    """What a training on a cluster at an address says, which needs neither model nor texts."""
    return lambda address, **options: list(
        train_on_cluster(tiny_config("model", "corpus"), tmp_path / "runs", address, **options)
    )


def test_an_address_where_nothing_answers_is_told_with_what_to_do(begun):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"No cluster answers at {address}.*ray start --head"):
            begun(address)


@pytest.mark.parametrize(
    "answer, why", [(b"", "timed out"), (b"HTTP/1.1 400 Bad", "something else")]
)
def test_where_something_else_answers_or_nothing_is_said_it_is_told_too(
    begun, monkeypatch, answer, why
):
    monkeypatch.setattr(connection, "_PATIENCE", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        kept = []  # what nobody holds is closed

        def serve():
            kept.append(server.accept()[0])
            kept[0].sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"No cluster answers at {address} \(.*{why}"):
            begun(address)
        thread.join()
        kept[0].close()


@pytest.mark.parametrize(
    "address, told",
    [
        ("nowhere", "is HOST:PORT, or auto"),
        ("127.0.0.1:many", "is HOST:PORT, or auto"),
        ("ray://127.0.0.1:10001", "address of a Ray client"),
    ],
)
def test_what_is_no_address_is_refused(begun, address, told):
    with pytest.raises(InputError, match=told):
        begun(address)


def test_without_a_cluster_on_this_machine_auto_says_how_to_start_one(begun, monkeypatch):
    monkeypatch.setattr(connection, "_found_here", lambda: None)
    told = r"No cluster runs on this machine.*ray start --head.*--temp-dir.*HOST:PORT.*RAY_ADDRESS"
    with pytest.raises(InputError, match=told):
        begun("auto")


@pytest.mark.parametrize("address", ["local", "nowhere", "host:many"])
def test_what_ray_address_says_wrongly_is_told_by_its_name(begun, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=rf"^RAY_ADDRESS says '{address}', which is no .*Unset"):
        begun("auto")


def test_without_ray_it_is_said_how_to_install_it(begun, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "itda-explorer\[ray\]"'):
        begun("auto")


def machines(*each):
    names = ("CPU", "GPU")
    found = [dict(zip(names, one, strict=False)) for one in each]
    return [{"Alive": True, "Resources": {k: float(v) for k, v in one.items()}} for one in found]


@pytest.mark.parametrize(
    "each, workers, size",
    [
        ([(16,), (16,)], None, Size(2, 16, 0)),  # one a machine, with all its CPUs
        ([(16,), (4,)], None, Size(2, 8, 0)),
        ([(0,), (2,), (2,)], None, Size(2, 2, 0)),
        ([(2,)], 2, Size(2, 1, 0)),
        ([(16,), (4,)], 3, Size(3, 5, 0)),
        ([(2,), (2,)], 99, Size(4, 1, 0)),  # no more than there are CPUs
        ([(16, 8), (16, 8)], None, Size(16, 2, 1)),
        ([(16, 8), (64,)], 3, Size(3, 2, 1)),  # where there are GPUs, they alone work
    ],
)
def test_workers_are_as_many_as_asked_for_or_one_for_each_gpu_or_machine(each, workers, size):
    assert size_of(machines(*each), workers) == size


@pytest.mark.parametrize(
    "each, workers, count",
    [
        ([(16,), (16,)], None, 1),
        ([(0,), (2,), (2,)], 2, 1),
        ([(2,)], 2, 2),
        ([(16,), (4,)], 3, 3),  # the small machine has no room for five CPUs
        ([(8,), (8,)], 99, 8),
        ([(16, 8), (16, 8)], None, 1),  # each has a GPU of its own
    ],
)
def test_workers_of_one_machine_share_its_memory(each, workers, count):
    assert together(machines(*each), size_of(machines(*each), workers)) == count


def test_a_machine_that_is_gone_does_not_count():
    gone = machines((8,))
    gone[0]["Alive"] = False
    with pytest.raises(InputError, match="No machine of the cluster has a CPU"):
        size_of(gone, None)
    assert size_of(gone + machines((2,)), None) == Size(1, 2, 0)


def test_no_workers_is_no_number_of_workers():
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        size_of(machines((2,)), 0)
