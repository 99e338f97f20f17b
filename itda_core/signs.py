"""Characters that can't be seen, or that turn the order of others around, as signs."""

import unicodedata

import regex

_SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\x7f": "␡"}
_HIDDEN = regex.compile(
    # What is one picture to the reader stays whole: emoji joined to one, flags, keycaps.
    r"(?P<whole>\p{Extended_Pictographic}[\uFE0F\p{EMod}]*"
    r"(?:\u200D\p{Extended_Pictographic}[\uFE0F\p{EMod}]*)+"
    r"|\U0001F3F4[\U000E0030-\U000E0039\U000E0061-\U000E007A]{3,6}\U000E007F"
    # And so does the one that chooses between two shapes of the character before it.
    r"|[\p{L}\p{N}\p{P}\p{S}][\uFE00-\uFE0F\U000E0100-\U000E01EF])"
    # Arabic signs that enclose a number are of the same kind, and can be seen.
    r"|(?![\u0600-\u0605\u06DD\u070F\u0890\u0891\u08E2\U000110BD\U000110CD])"
    r"[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]"
    r"|(?![ \u3000])\p{Zs}"
)
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


def with_signs(text: str) -> str:
    """The text on one line, with every character to be seen: ↵ for a line break, ⟨U+200B⟩ for a
    character without a sign of its own. The characters of the text alone decide its direction."""
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: found["whole"] or _sign(found[0]), text)


def has_half_character(text: str) -> bool:
    """Whether it holds a lone surrogate, which no file in UTF-8 and no database takes."""
    return any("\ud800" <= one <= "\udfff" for one in text)


def isolated(text: str) -> str:
    """The text so that what stands before and after it keeps its place, whatever its direction."""
    if text.isascii() or not any(
        unicodedata.bidirectional(one) in ("R", "AL", "AN") for one in text
    ):
        return text
    return f"{_ISOLATE}{text}{_END_OF_ISOLATE}"


def _sign(character: str) -> str:
    if ord(character) < 0x20:
        return _SIGNS.get(character, chr(0x2400 + ord(character)))
    return _SIGNS.get(character, f"⟨U+{ord(character):04X}⟩")
