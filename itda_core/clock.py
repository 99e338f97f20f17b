"""The time, as it is written into files."""

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta


def now(later_than: Iterable[str] = ()) -> str:
    """UTC in ISO 8601 with microseconds. later_than: when what it takes the place of was written,
    as files say it: of that the newest counts, so that what is written now must be newer, also
    where the clock was put back."""
    time = datetime.now(UTC)
    for told in later_than:
        with contextlib.suppress(ValueError, OverflowError):  # whatever a file says
            before = datetime.fromisoformat(told)
            before = before.replace(tzinfo=UTC) if before.tzinfo is None else before
            time = max(time, before + timedelta(microseconds=1))
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def when_written(read: Callable[[], object]) -> list[str]:
    """For `now`: the time that `read` finds in a file that is to be replaced; none where it finds
    none, or the file can't be read, whatever it holds."""
    with contextlib.suppress(Exception):
        told = read()
        return [told] if isinstance(told, str) else []
    return []
