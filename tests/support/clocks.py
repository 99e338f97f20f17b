"""A clock that is put back or forward while the explorer runs."""

import datetime as dates
import sys
import time

_TIME = time.time
_DATE = dates.datetime


def put_clock(patch, hours):
    """Have the explorer's own modules find it so many hours later than it is, until the patch
    ends."""
    seconds = 3_600.0 * hours

    class Put(_DATE):
        @classmethod
        def now(cls, tz=None):
            return _DATE.now(tz) + dates.timedelta(seconds=seconds)

    patch.setattr(time, "time", lambda: _TIME() + seconds)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("itda_core", "pages") and hasattr(module, "datetime"):
            patch.setattr(module, "datetime", Put)
