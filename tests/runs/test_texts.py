"""Texts that are too long for a link are found again by their digest, and nothing else is."""

import errno
import os

import pytest

from itda_core.errors import InputError
from itda_core.runs import texts as texts_module
from itda_core.runs.texts import keep_text, kept_text, texts_folder


@pytest.mark.parametrize("text", ["a" * 1_001, "naïve 👩‍👩‍👧\r\n\tשלום\u2028\0 ", "half \ud800"])
def test_a_text_is_found_as_it_was(tmp_path, text):
    folder = texts_folder(tmp_path / "runs")
    name = keep_text(folder, text)
    assert keep_text(folder, text) == name
    assert kept_text(folder, name) == text
    assert [path.name for path in folder.iterdir()] == [f"{name}.txt"]


@pytest.mark.parametrize(
    "name", ["", "../labels", "../../etc/passwd", "0" * 31, "0" * 32, "G" * 32, "0" * 32 + "\n"]
)
def test_nothing_else_is_read(tmp_path, name):
    (tmp_path / "labels.txt").write_text("secret")
    assert kept_text(tmp_path / "texts", name) is None


def test_a_file_that_was_changed_is_not_taken_for_the_text(tmp_path):
    name = keep_text(tmp_path, "as it was written")
    (tmp_path / f"{name}.txt").write_text("as it was not")
    assert kept_text(tmp_path, name) is None


def test_there_is_an_end_to_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "MOST_TEXTS", 3)
    names = []
    for number in range(3):
        names.append(keep_text(tmp_path, f"text {number}"))
        os.utime(tmp_path / f"{names[-1]}.txt", (number, number))
    assert kept_text(tmp_path, names[0]) == "text 0"  # which makes it the one used last
    names.append(keep_text(tmp_path, "text 3"))
    assert [kept_text(tmp_path, name) for name in names] == ["text 0", None, "text 2", "text 3"]
    with pytest.raises(InputError, match="is not kept for links"):
        keep_text(tmp_path, "é" * 500_001)


def test_a_text_in_a_folder_that_can_only_be_read_is_found(tmp_path, monkeypatch):
    name = keep_text(tmp_path, "some text")

    def refused(*_args, **_named):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.utime", refused)
    assert kept_text(tmp_path, name) == "some text"
    assert keep_text(tmp_path, "some text") == name
