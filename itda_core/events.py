"""What happens, one line an event, for those who run the explorer.

2026-11-29T19:40:12Z INFO job-running job=00003 command=train
2026-11-29T19:41:30Z INFO run-taken-in run=smollm2-135m-L07-1bcc60e9

Time (UTC), level, what happens, and what it is of. No text of a prompt, a label or a file is among
it: an error that nobody foresaw comes with its kind and its place in the code, since its message
may quote one. Nothing is written before `write_events`, so that a command prints its result alone.
"""

import json
import logging
import re
import sys
import time
import traceback
from typing import Any, TextIO

_LOG = logging.getLogger("itda")
_LOG.addHandler(logging.NullHandler())
_PLAIN = re.compile(r"[\w./:+@%-]+")
_MOST_CHARACTERS = 2_000
"""Of one value"""


def tell(event: str, level: int = logging.INFO, **of: Any) -> None:
    """Note an event. event: a few words with hyphens; of: ids, counts and seconds, nothing that a
    person wrote."""
    _LOG.log(level, event, extra={"of": of})


def tell_error(event: str, error: BaseException) -> None:
    """Note an error that nobody foresaw, without its message."""
    places = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{place.filename}:{place.lineno} {place.name}" for place in places[::-1])
    tell(event, logging.ERROR, error=type(error).__name__, where=where)


def write_events(stream: TextIO | None = None) -> None:
    """Write events from now on. stream: by default standard error; the last one that was asked for
    counts."""
    for handler in _LOG.handlers[1:]:
        _LOG.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Line())
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False


class _Line(logging.Formatter):
    """One line of an event, whatever its values hold."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        of = {name: one for name, one in getattr(record, "of", {}).items() if one not in ("", None)}
        values = (f"{name}={_value(value)}" for name, value in of.items())
        return " ".join([when, record.levelname, record.msg, *values])


def _value(value: Any) -> str:
    """As it is where it is one word, else as JSON has it, in which no line ends."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    text = text[:_MOST_CHARACTERS]
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
