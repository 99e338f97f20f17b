"""The explored tokens of a finished dictionary, encoded by the workers of a cluster."""

from collections.abc import Iterator

from itda_core.cluster.capturing import ClusterCapture
from itda_core.cluster.kept_parts import PartRows
from itda_core.cluster.pool import Call, Pool
from itda_core.dictionary.dictionary import Dictionary
from itda_core.training.encoding import Block, Written, block_size

_AHEAD = 2
"""Blocks that a worker is given at a time"""


class ClusterEncoder:
    """Has the blocks of one dictionary encoded, and gives them in their order."""

    def __init__(self, layer: int, dictionary: Dictionary, capture: ClusterCapture, pool: Pool):
        self._layer, self._capture, self._pool = layer, capture, pool
        self._size, self._dictionary = block_size(dictionary), pool.share(dictionary)

    def blocks(self, explored: PartRows) -> Iterator[Block | None]:
        """As one machine encodes them: as many tokens together, one block after another; None while
        none comes."""
        calls = {
            Call("encode", (self._layer, self._dictionary, explored, first, last)): first
            for first in range(0, len(explored), self._size)
            for last in [min(len(explored), first + self._size)]
        }
        early: dict[int, list[Block]] = {}
        awaited = 0
        for heard in self._pool.run(calls, _AHEAD):
            if heard is None:
                yield None
                continue
            call, blocks = heard
            early[calls[call]] = blocks
            while awaited in early:
                yield from early.pop(awaited)
                awaited += self._size

    def held_out(self) -> Written:
        rows = self._capture.held_out_rows(self._layer)
        call = Call("measure", (self._layer, self._dictionary, rows))
        measures = {}
        for heard in self._pool.run([call]):
            yield
            if heard is not None:  # twice where a worker is lost after its answer
                measures = heard[1]
        return measures
