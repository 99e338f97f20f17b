"""Files that are uploaded: the page shows how each is read, and it can be changed there."""

import ast
import gzip
import json

import pytest
from streamlit.testing.v1 import AppTest

from pages.components.file_reading import on_the_page
from pages.components.upload import as_uploaded, corpus_name
from tests.support.app import REPOSITORY, button, close_explorer


def script():
    import streamlit as st

    from pages.components.upload import upload_texts

    upload = upload_texts("Texts", key="upload")
    if upload:
        st.json({"texts": upload.texts, "spec": upload.spec.to_dict()})


def script_with_another_page():
    import streamlit as st

    from pages.components.upload import upload_texts
    from pages.components.url import restore_kept

    restore_kept()
    if not st.toggle("another page"):
        upload = upload_texts("Texts", key="upload")
        if upload:
            st.json({"texts": upload.texts, "spec": upload.spec.to_dict()})


@pytest.fixture
def uploaded(data_folder):
    """Opens the upload with a file."""

    def run(name, content, shown=script):
        app = AppTest.from_function(shown, default_timeout=60).run()
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
        assert word in caption.replace("`", "")


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


def test_a_file_stays_chosen_while_another_page_is_looked_at(uploaded):
    app = uploaded("my.csv", b"id;text\n1;Hello, world\n2;Good bye\n", script_with_another_page)
    box(app, "The first row").set_value(False).run()
    box(app, "Column").set_value("column 1").run()
    before = content_of(app)
    assert before["texts"] == ["id", "1", "2"]
    app.toggle[0].set_value(True).run()
    assert not app.json
    app.toggle[0].set_value(False).run()
    assert content_of(app) == before
    assert "my.csv" in app.markdown[0].value
    assert "still chosen" in app.markdown[0].value
    button(app, "Choose no file").click().run()
    assert not app.json
    assert not app.exception


def test_a_file_that_is_gone_is_no_longer_chosen(uploaded, data_folder):
    app = uploaded("my.txt", b"Hello, world", script_with_another_page)
    app.toggle[0].set_value(True).run()
    [kept] = (data_folder / "corpora").iterdir()
    kept.unlink()
    app.toggle[0].set_value(False).run()
    assert not app.json
    assert not app.exception


def test_what_is_unclear_is_asked_for_and_read_once_it_is_said(uploaded):
    app = uploaded("words.csv", b"apple\nbanana\n")
    assert "names the columns" in app.error[0].value
    box(app, "The first row").set_value(False).run()
    assert not app.error
    assert content_of(app)["texts"] == ["apple", "banana"]


def test_another_encoding_is_chosen_on_the_page(uploaded):
    sentence = "Сенат собрался и принял новый закон."
    app = uploaded("a.txt", "\n".join([sentence] * 9).encode("cp1251"))
    assert "Windows-1251" in app.error[0].value.replace("`", "")
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
    warning = app.warning[0].value.replace("`", "")
    assert warning.startswith(
        "5 rows of a.csv were left out: the row of lines 97 to 101 is not CSV"
    )
    assert len(content_of(app)["texts"]) == 95


def test_rows_that_are_left_out_are_named(uploaded):
    app = uploaded("a.jsonl", b'{"text": "One."}\n{"text": ["a"]}\n')
    assert "line 2 has a list" in app.warning[0].value.replace("`", "")
    assert content_of(app)["texts"] == ["One."]


@pytest.mark.parametrize(
    ("content", "chosen", "words"),
    [
        ("text\nUn café.\nUn thé.\n".encode("latin-1"), "utf-16", "is not UTF-16 text"),
        ("text\nOne.\nTwo.\n".encode("utf-16-le"), "utf-16", "mark of the byte order"),
        ("text\nOne.\nTwo.\n".encode("utf-16-le"), None, "zero bytes"),
        (b"apple\nbanana\n", None, "names the columns"),
    ],
)
def test_a_wrong_way_of_reading_is_said_in_the_page_s_words_beside_its_open_fields(
    uploaded, content, chosen, words
):
    app = uploaded("My fruits.csv", content)
    if chosen:
        box(app, "Encoding").set_value(chosen).run()
    message = app.error[0].value.replace("`", "")
    assert words in message
    assert "My fruits.csv" in message
    assert "under “How the file is read”" in message
    assert "--" not in message
    assert app.expander[0].proto.expanded


def test_utf16_without_a_mark_is_read_once_it_is_chosen(uploaded):
    app = uploaded("a.csv", "text\nOne.\nTwo.\n".encode("utf-16-le"))
    box(app, "Encoding").set_value("utf-16-le").run()
    assert content_of(app)["texts"] == ["One.", "Two."]


def test_every_option_that_a_message_about_a_file_names_has_its_words_on_the_page():
    """The messages' own text, joined as Python joins it."""
    found = []
    for file in (REPOSITORY / "itda_core" / "corpus").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "") for part in node.values]
                found.append("".join(part if isinstance(part, str) else "utf-16" for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    named = [text for text in found if "with --" in text and "the page" in text]
    assert len(named) >= 3
    assert not [text for text in named if "--" in on_the_page(text)]


def test_an_uploaded_file_is_named_as_it_was_wherever_its_job_is(uploaded, data_folder):
    uploaded("My texts.csv", b"text\nOne.\nTwo.\n")
    [kept] = (data_folder / "corpora").iterdir()
    assert kept.name.startswith("my-texts-")
    assert as_uploaded(f"gpt2 on {kept.name}, layer 1") == "gpt2 on my-texts.csv, layer 1"
    other = "run-0123456789ab.csv"  # no upload of this name
    assert as_uploaded(other) == other
    assert corpus_name(str(kept)) == "my-texts.csv"
    assert corpus_name("/data/texts/war.txt") == "war.txt"
    assert corpus_name("owner/name") == "owner/name"
    assert corpus_name("sotu") == "sotu"
