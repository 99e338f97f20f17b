"""Text made safe and short for showing. Pure functions."""

import html
import re
from collections.abc import Sequence

import regex

from itda_core.errors import ItdaError, SettingError
from itda_core.signs import isolated, with_signs

_MANY_CHARACTERS = re.compile("[^\x00-\u02ff\u2010-\u2027\u2030-\u205e]|\r\n")
"""Where a sign may be more than one character: not in European text with its quotes and dashes"""
_ICON = re.compile("(?<=:material)/")
"""Streamlit rewrites this before it reads Markdown, in code spans too"""


def literal(text: str) -> str:
    """Markdown that shows `text` as it is, on one line."""
    return escaped(shown(text))


def escaped(text: str) -> str:
    """Markdown that shows text as it is that is made to be shown already.

    It is a code span, which the frame of the pages styles as the text around it: backslashes do
    not keep Streamlit from making links of addresses, arrows of "->" and emoji of ":smile:", which
    it looks for when they are gone. Two of these need something between them.
    """
    return "/".join(_code_span(part) for part in _ICON.split(text)) if text else ""


def _code_span(text: str) -> str:
    """CommonMark, 6.1: as many backticks as the text nowhere has in a row; one space at each end
    is dropped where there is one at both and something between."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    if text.strip(" ") and (text[0] in " `" or text[-1] in " `"):
        text = f" {text} "
    return f"{fence}{text}{fence}" if text else ""


def last_part(name: str) -> str:
    """Of a path, or a name of the hub, what comes after its owner or folders."""
    return name.rstrip("/").split("/")[-1]


def visible(text: str) -> str:
    """Line breaks, tabs and all that can't be seen as signs, so that text stays on one line."""
    return with_signs(text)


def shown(text: str) -> str:
    """The same among other words, which keep their place whatever the text's direction."""
    return isolated(visible(text))


def in_chart(text: str) -> str:
    """What Plotly, which takes text for a kind of HTML, shows as text that is made to be shown
    already. It has no name for quotation marks."""
    return html.escape(text, quote=False)


def quoted(text: str) -> str:
    """Text as Python writes it, for what a hover says of a token."""
    return shown(repr(text))


def sentence(error: ItdaError) -> str:
    """What went wrong, as Markdown; settings by their names on the page."""
    return literal(error.named("label") if isinstance(error, SettingError) else str(error))


def token_label(token: str) -> str:
    """A token for lists: without the space it begins with, and white space alone as signs."""
    if not token.strip(" "):
        return "␣" * len(token)
    return shown(token.removeprefix(" ")).replace(
        "\u3000", "⟨U+3000⟩" if token.isspace() else "\u3000"
    )


def snippet(text: str, start: int, end: int, around: int = 40, before: int | None = None) -> str:
    """A source in its context, as one line: "…ratify the ⟦treaty⟧ with Spain…".

    around: characters on each side, `before` on the left where it is given. A special token has
    no characters and gets the beginning of its text.
    """
    if start == end:
        return shown(text[: 2 * around]) + ("…" if len(text) > 2 * around else "")
    left = max(0, start - (around if before is None else before))
    right = min(len(text), end + around)
    # The space that many tokens begin with stands better outside of the box.
    while start < end - 1 and text[start] == " ":
        start += 1
    marked = f"{text[left:start]}⟦{text[start:end]}⟧{text[end:right]}"
    return shown(f"{'…' if left else ''}{marked}{'…' if right < len(text) else ''}")


def row_context(text: str, start: int, end: int) -> str:
    """`snippet` for a row, which is cut on its right: what it is of has to be seen."""
    return snippet(text, start, end, before=10)


def context(text: str, start: int, end: int, around: int = 40) -> str:
    """The same characters as they stand in the text, for a file: without signs, box and dots."""
    if start == end:
        return text[: 2 * around]
    return text[max(0, start - around) : end + around]


def pieces(text: str, spans: list[tuple[int, int]]) -> list[tuple[str, str]]:
    """What to print for each token: the characters before it that no token has, and its own.

    The pieces joined are the text. What is one sign to the reader (an emoji of several code
    points, a letter with its accent) is printed whole with the first token that has a part of
    it; tokens that are left without a character, as special tokens are, get "".
    """
    ends = _sign_ends(text)
    printed, out = 0, []
    for start, end in spans:
        if start == end or end <= printed:
            out.append(("", ""))
            continue
        before = text[printed:start] if start > printed else ""
        whole = ends[end - 1]
        out.append((before, text[max(start, printed) : whole]))
        printed = whole
    return out


def _sign_ends(text: str) -> Sequence[int]:
    """For each character the end of the sign (grapheme cluster) that it belongs to."""
    if not _MANY_CHARACTERS.search(text):
        return range(1, len(text) + 1)
    ends: list[int] = []
    for sign in regex.finditer(r"\X", text):
        ends += [sign.end()] * (sign.end() - sign.start())
    return ends


def seconds_text(seconds: float) -> str:
    """A duration for people: "45 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


def bytes_text(count: float) -> str:
    """A size for people: "12 MB", "1.5 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def ordinal(number: int) -> str:
    """ "first", "2nd", "3rd", "11th"."""
    if number == 1:
        return "first"
    ending = (
        "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    )
    return f"{number:,}{ending}"
