"""What a page keeps of its work: made once, and nothing of what was stopped."""

import pytest

from itda_core.model.steps_of_work import Step
from pages.components import computed
from pages.components.computed import Kept


class Swept:
    is_swept = True


class Stopped(Exception):
    """What Streamlit raises where a click elsewhere ends a page's run."""


@pytest.fixture
def bar(monkeypatch):
    """Stands for Streamlit's; `stops` lets it end the run."""

    class Bar:
        stops, shown = False, []

        def progress(self, fraction, text):
            self.shown.append((fraction, text))
            if self.stops and fraction > 0:
                raise Stopped

        def empty(self):
            self.shown.append(None)

    made = Bar()
    monkeypatch.setattr(computed.st, "progress", lambda *_: made)
    return made


def test_work_that_is_stopped_is_closed_at_once_and_made_anew_later(bar):
    kept, ended = Kept("a text"), []

    def steps():
        try:
            yield Step(0.0)
            yield Step(0.5)
            yield Step(1.0, 0, "result")
        finally:
            ended.append(True)

    bar.stops = True
    with pytest.raises(Stopped) as stopped:
        computed.computed(kept, Swept, steps, range(4))
    assert stopped.traceback, "it is held here, as Streamlit may hold it"
    assert ended == [True]
    assert kept.value is None
    bar.stops = False
    for _ in range(2):
        assert computed.computed(kept, Swept, steps, range(4)) == "result"
    assert ended == [True, True]
    assert bar.shown[-1] is None
    assert (0.5, "Reading block 3 of 4 from the disk …") in bar.shown
