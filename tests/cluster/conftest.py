"""A cluster of three machines on this one, all of whose folders are shared."""

import contextlib
import io

import pytest

_SOON_MISSED = {"health_check_period_ms": 500, "health_check_initial_delay_ms": 500}
"""A machine that is gone is noticed in some three seconds; a slow one has as long as ever"""


@pytest.fixture
def cluster(started):
    """Once it knows of each machine that was taken away before: it is told of for some
    seconds as if it were there."""
    started.wait_for_nodes(timeout=60)
    return started


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """A head that computes nothing and two machines of one CPU. A test that takes one away puts
    another there."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITDA_DATA", str(tmp_path_factory.mktemp("cluster") / "data"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**machine(), "num_cpus": 0, "_system_config": _SOON_MISSED}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.machines = [cluster.add_node(**machine(), wait=False) for _ in range(2)]
        cluster.wait_for_nodes()
    yield cluster
    with contextlib.redirect_stdout(io.StringIO()):
        cluster.shutdown()


def machine():
    return {
        "num_cpus": 1,
        "num_gpus": 0,
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
    }
