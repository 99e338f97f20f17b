"""A command that joins a cluster can still be stopped, and prints its results alone."""

import signal

from itda_core.cluster.connection import connected
from tests.support.command_line import signal_handlers_kept


def test_a_cluster_leaves_signals_as_they_were(cluster):
    with signal_handlers_kept():
        signal.signal(signal.SIGTERM, mine := lambda *_: None)
        with connected(cluster.address) as ray:
            assert ray.is_initialized()
            assert signal.getsignal(signal.SIGTERM) is mine
        assert not ray.is_initialized()
        assert signal.getsignal(signal.SIGTERM) is mine
