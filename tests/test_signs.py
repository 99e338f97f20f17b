"""Characters that can't be seen are shown, and those that can stay as they are."""

import sys
import unicodedata

import pytest

from itda_core.signs import isolated, with_signs


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("a\u202etxt.exe", "a⟨U+202E⟩txt.exe"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("\ufeffx", "⟨U+FEFF⟩x"),
        ("co\u00adop", "co⟨U+00AD⟩op"),
        ("\x1b[31m\x07\x7f", "␛[31m␇␡"),
        ("a\u00a0b", "a⍽b"),
        ("a\u2003b", "a⟨U+2003⟩b"),
        ("\u3164\u2800\u034f", "⟨U+3164⟩⟨U+2800⟩⟨U+034F⟩"),
        ("hi\U000e0068\U000e0069", "hi⟨U+E0068⟩⟨U+E0069⟩"),
        ("a\ufe0f\ufe0f", "a\ufe0f⟨U+FE0F⟩"),
        ("one\ntwo\r\tthree", "one↵two␍⇥three"),
    ],
)
def test_what_can_not_be_seen_is_a_sign(text, seen):
    assert with_signs(text) == seen


@pytest.mark.parametrize(
    "text",
    ["plain", "naïve e\u0301", "👩\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👍🏽", "1\ufe0f\u20e3",
     "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🇫🇷", "葛\U000e0100",
     "שלום", "مرحبا", "\u0600\u0661", "日本\u3000語", "हिन्दी"],
)  # fmt: skip
def test_what_can_be_seen_stays(text):
    assert with_signs(text) == text


def test_no_character_that_python_can_not_print_stays():
    """Of those that have a meaning: letters of private use are drawn as boxes."""
    kept = []
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Zl", "Zp", "Cs") and with_signs(character) == character:
            kept.append(number)
    # Arabic and Kaithi signs that enclose a number, which are drawn.
    assert {unicodedata.name(chr(number)).split()[0] for number in kept} <= {
        "ARABIC", "SYRIAC", "KAITHI"
    }  # fmt: skip


def test_text_that_runs_from_right_to_left_is_isolated_and_no_other():
    assert isolated("שלום") == "\u2068שלום\u2069"
    assert isolated("naïve 1") == "naïve 1"
