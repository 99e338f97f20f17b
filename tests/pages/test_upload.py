"""Files that are uploaded: the page shows how each is read, and it can be changed there."""

import gzip
import json

import pytest
from streamlit.testing.v1 import AppTest

from tests.support.app import close_explorer


def script():
    import streamlit as st

    from pages.components.upload import upload_texts

    upload = upload_texts("Texts", key="upload")
    if upload:
        st.json({"texts": upload.texts, "spec": upload.spec.to_dict()})


@pytest.fixture
def uploaded(data_folder):
    """Opens the upload with a file."""

    def run(name, content):
        app = AppTest.from_function(script, default_timeout=60).run()
        app.file_uploader[0].upload(name, content, "text/plain").run()
        assert not app.exception
        return app

    yield run
    close_explorer()


def content_of(app):
    return json.loads(app.json[0].value)


def box(app, label):
    return next(one for one in app.selectbox if one.label.startswith(label))


def test_what_was_taken_is_shown(uploaded):
    app = uploaded("a.csv", b"id;text\n1;Hello, world\n2;Good bye\n")
    assert content_of(app)["texts"] == ["Hello, world", "Good bye"]
    [caption] = [one.value for one in app.caption]
    for word in ("semicolon", "names the columns", "UTF", "column text"):
        assert word in caption.replace("\\", "")


def test_what_was_taken_can_be_changed_and_is_part_of_the_corpus(uploaded):
    app = uploaded("a.csv", b"id;text\n1;Hello, world\n2;Good, bye\n")
    box(app, "Separator").set_value(",").run()
    assert "has one column" in app.error[0].value
    box(app, "Separator").set_value(None).run()
    box(app, "The first row").set_value(False).run()
    box(app, "Column").set_value("column 2").run()
    content = content_of(app)
    assert content["texts"] == ["text", "Hello, world", "Good, bye"]
    assert content["spec"]["header"] is False
    assert content["spec"]["column"] == "column 2"


def test_what_is_unclear_is_asked_for_and_read_once_it_is_said(uploaded):
    app = uploaded("words.csv", b"apple\nbanana\n")
    assert "names the columns" in app.error[0].value
    box(app, "The first row").set_value(False).run()
    assert not app.error
    assert content_of(app)["texts"] == ["apple", "banana"]


def test_another_encoding_is_chosen_on_the_page(uploaded):
    sentence = "Сенат собрался и принял новый закон."
    app = uploaded("a.txt", "\n".join([sentence] * 9).encode("cp1251"))
    assert "Windows-1251" in app.error[0].value.replace("\\", "")
    box(app, "Encoding").set_value("cp1251").run()
    assert not app.error
    assert content_of(app)["texts"] == [sentence] * 9


def test_a_packed_file_keeps_its_format(uploaded):
    app = uploaded("My texts.CSV.GZ", gzip.compress(b"id,text\n1,One.\n"))
    content = content_of(app)
    assert content["texts"] == ["One."]
    assert content["spec"]["name"].endswith(".csv.gz")


def test_lines_that_a_quotation_mark_takes_in_are_counted_one_by_one(uploaded):
    rows = [f"{n},text {n}" for n in range(1, 101)]
    rows[95] = '96,"text 96'
    app = uploaded("a.csv", "\n".join(["id,text", *rows]).encode())
    warning = app.warning[0].value.replace("\\", "")
    assert warning.startswith("5 rows were left out: the row of lines 97 to 101 is not CSV")
    assert len(content_of(app)["texts"]) == 95


def test_rows_that_are_left_out_are_named(uploaded):
    app = uploaded("a.jsonl", b'{"text": "One."}\n{"text": ["a"]}\n')
    assert "line 2 has a list" in app.warning[0].value.replace("\\", "")
    assert content_of(app)["texts"] == ["One."]
