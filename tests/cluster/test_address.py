"""How a cluster is called."""

import pytest

from itda_core.cluster.address import checked_address
from itda_core.errors import InputError


@pytest.mark.parametrize(
    "address", ["auto", " auto ", "10.0.0.1:6379", "gpu-1.lab:6379", "[::1]:6379"]
)
def test_a_cluster_is_auto_or_a_host_with_its_port(address):
    assert checked_address(address) == address.strip()


@pytest.mark.parametrize(
    "address", ["", "AUTO", "host", "host:", ":6379", "host:0", "host:65536", "ray://host:10001",
                "a b:1", "host:6379/x"]
)  # fmt: skip
def test_other_addresses_are_refused_with_what_one_looks_like(address):
    with pytest.raises(InputError, match=r"host:port, such as 10\.0\.0\.1:6379; got '"):
        checked_address(address)
