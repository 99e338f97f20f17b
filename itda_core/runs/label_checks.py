"""What the fields of a label may be; each check raises InputError where one can't be kept."""

from datetime import UTC, datetime

from itda_core.errors import InputError
from itda_core.signs import has_half_character

LONGEST_ID = 1_000
LONGEST_LABEL = 200
LONGEST_NOTE = 10_000
MOST_LISTS = 1_000
_LARGEST_NUMBER = 2**31 - 1
"""What the database's INTEGER holds"""


def check_text(name: str, value: object, longest: int) -> None:
    """At most so many characters, none of them half of one."""
    if not isinstance(value, str):
        raise InputError(f"{name} of a label must be text.")
    if len(value) > longest:
        raise InputError(f"The {name} of a latent has at most {longest:,} characters.")
    if has_half_character(value):
        raise InputError(f"{name} of a label holds half a character (a lone surrogate).")


def check_number(name: str, value: object) -> None:
    """A whole number that the database holds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} of a label must be a whole number.")
    if not 0 <= value <= _LARGEST_NUMBER:
        raise InputError(f"{name} of a label must be from 0 to {_LARGEST_NUMBER:,}.")


def checked_span(span: object) -> tuple[int, int] | tuple[()] | None:
    """A file gives it as a list; None where it does not say it."""
    if span is None or span == []:
        return None if span is None else ()
    if not isinstance(span, list) or len(span) != 2:
        raise InputError("span of a label must be two whole numbers, or none at all.")
    for number in span:
        check_number("span", number)
    if span[0] > span[1]:
        raise InputError("span of a label must not end before it begins.")
    return span[0], span[1]


def checked_closes(closes: object) -> bool | None:
    """None where a file does not say it."""
    if not isinstance(closes, bool | None):
        raise InputError("closes of a label must be true or false.")
    return closes


def checked_origin(origin: object) -> tuple[str, int] | tuple[str, int, str] | None:
    """A run, a latent's number there and, where it is said, the digest of its dictionary; None
    where a file does not say it."""
    if origin is None:
        return None
    if not isinstance(origin, list) or len(origin) not in (2, 3):
        raise InputError("origin of a label must be a run, a whole number and a digest.")
    run_id, number, *digests = origin
    for text in (run_id, *digests):
        check_text("origin", text, LONGEST_ID)
    check_number("origin", number)
    return run_id, number, *digests


def list_names(names: object) -> tuple[str, ...]:
    """Names without repeats, as a tuple; a file gives them as a list."""
    if not isinstance(names, list | tuple):
        raise InputError("lists of a label must be a list of names.")
    for name in names:
        check_text("lists", name, LONGEST_LABEL)
    distinct = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if len(distinct) > MOST_LISTS:
        raise InputError(f"A latent is in at most {MOST_LISTS:,} lists.")
    return distinct


def checked_time(changed: object) -> str:
    """A date in UTC and in the one form in which later ones are greater; "" for none."""
    if not isinstance(changed, str):
        raise InputError("changed of a label must be a date.")
    if not changed:
        return ""
    try:
        time = datetime.fromisoformat(changed)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError("changed of a label must be a date, in ISO 8601") from error
    return time.isoformat(timespec="microseconds")
