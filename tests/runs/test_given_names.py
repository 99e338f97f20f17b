"""The names that people give dictionaries: kept whole, refused in a sentence."""

import json

import pytest

from itda_core.errors import InputError, RunError
from itda_core.runs.given_names import LONGEST_NAME, keep_name, names_file, read_names


def test_a_name_is_kept_beside_the_runs_replaced_and_taken_away(tmp_path):
    file = names_file(tmp_path / "runs")
    assert file == tmp_path / "names.json"
    assert read_names(file) == {}
    keep_name(file, "a", "  War \n and peace ")
    keep_name(file, "b", "Ω")
    content = {"version": 1, "names": {"a": "War and peace", "b": "Ω"}}
    assert json.loads(file.read_text("utf-8")) == content
    keep_name(file, "a", " ")
    assert read_names(file) == {"b": "Ω"}
    assert [path.name for path in tmp_path.iterdir()] == ["names.json"]  # no temporary file is left


@pytest.mark.parametrize(
    ("name", "told"), [("x" * (LONGEST_NAME + 1), "at most 60"), ("\ud800", "half a character")]
)
def test_a_name_that_cannot_be_kept_is_refused(tmp_path, name, told):
    with pytest.raises(InputError, match=told):
        keep_name(tmp_path / "names.json", "a", name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "[" * 100_000, '{"version": 2, "names": {}}',
        '{"version": 1, "names": {"a": 1}}', '{"version": 1, "names": {"a": "\\ud800"}}',
    ],
    ids=range(6),
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(tmp_path, content):
    file = tmp_path / "names.json"
    file.write_text(content)
    with pytest.raises(RunError, match=r"names\.json is damaged .*Mend it, or delete it"):
        keep_name(file, "a", "b")
    assert file.read_text() == content
