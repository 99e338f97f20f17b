"""Files as people have them: what is read of each is what its writer meant, or a sentence."""

import contextlib
import csv
import encodings
import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itda_core.config import CorpusSpec
from itda_core.corpus import reading as reading_module
from itda_core.corpus.corpus import load_corpus, make_corpus
from itda_core.corpus.files import read_texts, text_columns
from itda_core.corpus.reading import Reading, whole_characters
from itda_core.corpus.tables import parquet_texts
from itda_core.errors import CorpusError, InputError
from tests.corpus.test_corpus import write

TEXTS = ["Hello, world; it is late.", 'She said "no"\nand left.', "one\ttwo | three", "café 🎉"]


def refused(path, *arguments):
    with pytest.raises(CorpusError) as caught:
        read_texts(path, *arguments)
    return str(caught.value)


def written(separator, quote='"', header=("id", "text")):
    """A table as Python's own writer writes it."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, quotechar=quote, quoting=csv.QUOTE_ALL)
    writer.writerows([header] if header else [])
    writer.writerows([str(number), text] for number, text in enumerate(TEXTS))
    return file.getvalue()


# Separators, quotation marks, header


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_table_gives_its_texts_whatever_its_separator_and_quotes(tmp_path, separator, quote):
    content = read_texts(write(tmp_path, "a.csv", written(separator, quote)))
    assert content.texts == TEXTS
    assert content.reading == Reading(separator, quote, True, "utf-8")
    assert content.column == "text"


@pytest.mark.parametrize("separator", [",", ";"])
def test_one_row_may_be_nearly_the_whole_file(tmp_path, separator, monkeypatch):
    monkeypatch.setattr("itda_core.corpus.csv_files._SAMPLE_CHARACTERS", 100)
    text = "so, and on; " * 100
    content = f'id{separator}text\n1{separator}"{text}"\n2{separator}short\n'
    assert read_texts(write(tmp_path, "a.csv", content)).texts == [text, "short"]


def test_a_file_of_one_long_line_is_parsed_whole_once(tmp_path, monkeypatch):
    from itda_core.corpus import csv_files

    parsed = []

    def noted(lines, *more):
        parsed.append(sum(map(len, lines)))
        return numbered_rows(lines, *more)

    numbered_rows = csv_files.numbered_rows
    monkeypatch.setattr(csv_files, "_SAMPLE_CHARACTERS", 100)
    monkeypatch.setattr(csv_files, "numbered_rows", noted)
    content = ",".join(f"column {number}" for number in range(500))
    found = csv_files.csv_format(write(tmp_path, "a.csv", content), Reading())
    assert (found.reading.separator, len(found.columns)) == (",", 500)
    assert len([n for n in parsed if n > 100]) == 1


@pytest.mark.parametrize(
    "rows",
    ["1;Hallo, Welt\n2;Gut, gut\n", "1;a, b, c\n2;d\n3;e, f\n"],
)
def test_commas_in_a_semicolon_file_are_text(tmp_path, rows):
    content = read_texts(write(tmp_path, "a.csv", f"id;text\n{rows}"))
    assert content.texts == [line.split(";")[1] for line in rows.splitlines()]


def test_a_first_line_that_names_the_separator_is_followed_and_lines_count_from_the_file(tmp_path):
    path = write(tmp_path, "a.csv", "sep=;\r\nid;text\r\n1;Hallo, Welt\r\n2;a;b\r\n")
    content = read_texts(path)
    assert content.texts == ["Hallo, Welt"]
    assert [str(row) for row in content.bad_rows] == ["line 4 has 3 fields, the header 2"]


@pytest.mark.parametrize(
    "content",
    ["Report 2024\nid;text\n1;One\n2;Two\n", "text\nHello; world\nGood; bye\n", "a;b|c\n1|2;3\n"],
    ids=["a title above", "one column", "two fit"],
)
def test_a_separator_that_is_unclear_is_asked_for(tmp_path, content):
    assert "--separator" in refused(write(tmp_path, "a.csv", content))


def test_a_separator_quote_and_header_that_are_said_are_taken(tmp_path):
    path = write(tmp_path, "a.csv", 'text\n"Hello"; world\nGood; bye\n')
    assert read_texts(path, None, Reading(separator=",", quote="")).texts == [
        '"Hello"; world',
        "Good; bye",
    ]
    assert read_texts(path, "column 1", Reading(",", "", False)).texts[0] == "text"


@pytest.mark.parametrize(
    ("content", "column", "texts"),
    [
        ("One.\nTwo.\nThree.\n", None, ["One.", "Two.", "Three."]),
        ("1,One.\n2,Two.\n", "column 2", ["One.", "Two."]),
        ("Le chat dort.;0\nIl pleut.;1\n", "column 1", ["Le chat dort.", "Il pleut."]),
        ("good;I liked it\nbad;I did not\ngood;Fine\n", "column 2",
         ["I liked it", "I did not", "Fine"]),
        ("id;body\n1;One.\n", "body", ["One."]),
        ("Timestamp,What did you like?\n1/2/2024 9:00,The food\n", "What did you like?",
         ["The food"]),
        ("\n\nid,text\n\n1,One.\n\n", None, ["One."]),
    ],
)  # fmt: skip
def test_a_first_row_is_kept_where_it_is_no_header(tmp_path, content, column, texts):
    assert read_texts(write(tmp_path, "a.csv", content), column).texts == texts


@pytest.mark.parametrize(
    "content", ["apple\nbanana\ncherry\n", "Hello\nHow are you?\n", ",0\n0,One here.\n"]
)
def test_a_header_that_is_unclear_is_asked_for(tmp_path, content):
    assert "--header" in refused(write(tmp_path, "a.csv", content))


@pytest.mark.parametrize("column", [None, "Hello", "column 1"])
def test_columns_of_an_unclear_header_are_told_by_number_and_none_of_them_decides_it(
    tmp_path, column
):
    path = write(tmp_path, "a.csv", "Hello,fine day\nHow,are you\nI,am well\n")
    message = refused(path, column)
    assert "column 1, column 2 (first row: Hello, fine day)" in message
    assert "--header" in message
    said = read_texts(path, "column 1", Reading(header=False))
    assert said.texts == ["Hello", "How", "I"]
    assert read_texts(path, "Hello", Reading(header=True)).texts == ["How", "I"]


def test_a_value_of_the_first_row_is_no_column_and_loses_no_text(tmp_path):
    path = write(tmp_path, "a.csv", "I love it,0\nMe too,1\nNo way,0\n")
    assert "no text column 'I love it'. It has: column 1, column 2" in refused(path, "I love it")
    assert read_texts(path, "column 1").texts == ["I love it", "Me too", "No way"]
    alone = write(tmp_path, "b.csv", "Hello\nHow are you?\n")
    assert "--header" in refused(alone, "Hello")


def test_two_columns_of_one_name_are_refused_where_one_is_to_be_read(tmp_path):
    assert "two columns called 'text'" in refused(write(tmp_path, "a.csv", "text,text\na,b\n"))
    assert read_texts(write(tmp_path, "b.csv", "id,id,text\n1,2,One.\n")).texts == ["One."]
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "two columns" in refused(tmp_path / "a.parquet", "text")
    path = write(tmp_path, "a.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}\n')
    assert [str(row) for row in read_texts(path).bad_rows] == ["line 1 has 'text' twice"]


def test_a_tsv_is_cut_at_tabs_alone(tmp_path):
    assert read_texts(write(tmp_path, "a.tsv", "id\ttext\n1\tHello, you; there\n")).texts == [
        "Hello, you; there"
    ]


def test_a_space_before_a_quotation_mark_costs_its_row(tmp_path):
    content = read_texts(write(tmp_path, "a.csv", 'id,text\n1, "One."\n2,Two.\n'))
    assert content.texts == ["Two."]
    assert "line 2 has a space before a quotation mark" in str(content.bad_rows[0])


# A quotation mark that stays open


def numbered(n_rows, opens, closes=None, before=""):
    """A table of rows of one line each, row n in line n + 1: one opens a quotation mark, and one
    further down ends with one."""
    rows = [f"{n},text {n}" for n in range(1, n_rows + 1)]
    rows[opens - 1] = f'{opens},"text {opens}'
    if closes is not None:
        rows[closes - 1] += '"'
    return before + "\n".join(["id,text", *rows]) + "\n"


@pytest.mark.parametrize("closes", [None, 52], ids=["never", "in the last row"])
@pytest.mark.parametrize("opens", [1, 2, 31])
def test_a_quotation_mark_that_takes_in_a_good_part_of_a_file_is_refused_where_it_opens(
    tmp_path, opens, closes
):
    path = write(tmp_path, "a.csv", numbered(52, opens, closes))
    message = refused(path)
    assert f"the row that begins in line {opens + 1}, and takes in what follows up to line 53" in (
        message
    )
    assert "--quote none" in message
    texts = read_texts(path, None, Reading(quote="")).texts
    assert len(texts) == 52
    assert texts[opens - 1] == f'"text {opens}'


@pytest.mark.parametrize("header", [None, True, False])
def test_a_quotation_mark_that_opens_in_the_first_row_is_refused_there(tmp_path, header):
    rows = [f"{n},text {n}" for n in range(1, 53)]
    rows[39] += '"'
    path = write(tmp_path, "a.csv", "\n".join(['id,"text', *rows]))
    message = refused(path, None, Reading(header=header))
    assert "begins in line 1, and takes in what follows up to line 41" in message


@pytest.mark.parametrize(
    ("before", "closes", "reason"),
    [
        ("", None, "the row of lines 571 to 601 is not CSV"),
        ("", 600, "the row of lines 571 to 601 is one text of lines that look like rows"),
        ("sep=,\n", None, "the row of lines 572 to 602 is not CSV"),
    ],
)
def test_a_quotation_mark_that_takes_in_little_costs_each_of_its_lines(
    tmp_path, before, closes, reason
):
    path = write(tmp_path, "a.csv", numbered(600, 570, closes, before))
    content = read_texts(path)
    assert content.texts == [f"text {n}" for n in range(1, 570)]
    [row] = content.bad_rows
    assert str(row).startswith(reason)
    assert row.n_rows == 31  # 570 to 600


def test_a_quotation_mark_that_a_field_further_down_closes_costs_all_between(tmp_path):
    rows = numbered(52, 2).splitlines()
    rows[40] = '40,"text, quoted"'
    assert "begins in line 3, and takes in what follows up to line 41" in refused(
        write(tmp_path, "a.csv", "\n".join(rows))
    )


def test_one_text_of_many_lines_is_one_where_they_are_no_rows_or_the_mark_is_said(tmp_path):
    poem = "\n".join(f"verse {n}" for n in range(40))
    others = "".join(f"{n},text {n}\n" for n in range(30))
    path = write(tmp_path, "a.csv", f'id,text\n{others}30,"{poem}"\n')
    assert read_texts(path).texts[30] == poem
    alone = write(tmp_path, "b.csv", f'text\nOne.\n"{poem}"\n')  # its verses may be rows
    assert "begins in line 3" in refused(alone)
    assert read_texts(alone, None, Reading(quote='"')).texts == ["One.", poem]
    many = write(tmp_path, "c.csv", "text\n" + f'"{poem}"\n' * 3)
    assert read_texts(many).texts == [poem] * 3


# Bytes


def test_a_byte_that_is_not_utf8_costs_its_row_named_by_line(tmp_path):
    path = write(tmp_path, "a.csv", b'id,text\n1,One.\n2,"caf\xe9\nnext"\n3,Three.\n')
    content = read_texts(path)
    assert content.texts == ["One.", "Three."]
    assert [str(row) for row in content.bad_rows] == ["line 4 is not UTF-8 text"]
    content = read_texts(write(tmp_path, "a.txt", b"One.\n\nbad\n\xff here\n\nTwo.\n"))
    assert content.texts == ["One.", "Two."]
    assert [str(row) for row in content.bad_rows] == ["line 4 is not UTF-8 text"]


@pytest.mark.parametrize(
    ("encoding", "sentence", "offered"),
    [
        ("cp1250", "Zażółć gęślą jaźń. Senat zebrał się wczoraj", "cp1250"),
        ("cp1251", "Сенат собрался и принял новый закон.", "cp1251"),
        ("utf-16", "Żółć.", "utf-16"),
        ("cp1252", "Déjà vu à Noël.", None),  # several encodings fit it
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_another_encoding_is_offered_where_it_is_sure_and_taken_where_it_is_said(
    tmp_path, name, encoding, sentence, offered
):
    texts = [f"{sentence} {number}" for number in range(40)]
    lines = {
        "a.txt": texts,
        "a.csv": ["text", *(f'"{text}"' for text in texts)],
        "a.jsonl": [json.dumps({"text": text}, ensure_ascii=False) for text in texts],
    }[name]
    path = write(tmp_path, name, "\n".join(lines).encode(encoding))
    message = refused(path)
    assert "--encoding" in message
    if offered:
        assert f"--encoding {offered}" in message
    assert read_texts(path, None, Reading(encoding=encoding)).texts == texts


def test_many_rows_of_another_encoding_are_refused_since_the_others_would_be_a_biased_part(
    tmp_path,
):
    rows = ["text", *(f"plain {n}" for n in range(100)), *(f"Noël {n}" for n in range(30))]
    message = refused(write(tmp_path, "a.csv", "\n".join(rows).encode("cp1252")))
    assert "30 of 130 rows" in message


@pytest.mark.parametrize(
    ("text", "whole"),
    [("café 🎉", "café 🎉"), ("a\ud83d", "a?"), ("\udcff\udcfeb", "??b"), ("", "")],
)
def test_each_half_of_a_character_becomes_a_question_mark_and_whole_ones_stay(text, whole):
    assert whole_characters(text) == whole


@pytest.mark.parametrize(
    ("n_plain", "n_foreign", "is_refused"),
    [(2, 20, True), (17, 2, True), (18, 2, False), (2, 1, False), (0, 1, True)],
    ids=["20 of 22", "2 of 19, over a tenth", "2 of 20, a tenth", "one alone", "all"],
)
def test_of_few_rows_more_than_a_tenth_and_more_than_one_of_another_encoding_are_refused(
    tmp_path, n_plain, n_foreign, is_refused
):
    texts = [*(f"plain {n}" for n in range(n_plain)), *(f"Noël {n}" for n in range(n_foreign))]
    path = write(tmp_path, "a.csv", "\n".join(["text", *texts]).encode("cp1252"))
    if is_refused:
        assert f"{n_foreign} of {n_plain + n_foreign} rows" in refused(path)
    else:
        content = read_texts(path)
        assert (len(content.texts), len(content.bad_rows)) == (n_plain, n_foreign)


# What is no text


def test_a_list_an_object_or_a_number_in_the_text_column_costs_its_row(tmp_path):
    rows = ["One.", ["b", "c"], {"a": 1}, 5, 1e3, True, None, "Two."]
    lines = [json.dumps({"text": row}) for row in rows]
    content = read_texts(write(tmp_path, "a.jsonl", "\n".join(lines)))
    assert content.texts == ["One.", "", "Two."]
    assert [row.line for row in content.bad_rows] == [2, 3, 4, 5, 6]
    assert "line 2 has a list in 'text'" in str(content.bad_rows[0])


def test_indentation_and_characters_that_are_no_line_ends_stay(tmp_path):
    code = "def f():\n    return 1\n\n\tx = 2\x0b\x0c\u2028 \n    y\rz"
    content = read_texts(write(tmp_path, "a.txt", code))
    assert content.texts == ["def f():\n    return 1", "\tx = 2\x0b\x0c\u2028 \n    y\rz"]
    assert read_texts(write(tmp_path, "b.txt", "def f():\n    x\n")).texts == ["def f():", "    x"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n  \n", "\n \t", "\r\n\r\n"])
@pytest.mark.parametrize("start", ["", "\n", "\n \n\n", "\r\n\r\n"])
def test_blank_lines_around_the_lines_of_a_txt_make_no_paragraphs(tmp_path, start, end):
    lines = write(tmp_path, "a.txt", f"{start}One.\n  Two.\nThree.{end}")
    assert read_texts(lines).texts == ["One.", "  Two.", "Three."]
    paragraphs = write(tmp_path, "b.txt", f"{start}One.\n  Two.\n \nThree.{end}")
    assert read_texts(paragraphs).texts == ["One.\n  Two.", "Three."]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_lines_that_end_with_cr_alone_are_refused(tmp_path, name):
    assert "CR" in refused(write(tmp_path, name, b"text\rOne.\rTwo.\r")) or name == "a.jsonl"


def test_a_lone_cr_in_a_csv_costs_its_row_and_stays_between_quotes(tmp_path):
    content = read_texts(write(tmp_path, "a.csv", b'id,text\n1,a\rb\n2,"c\rd"\n3,ok\n'))
    assert content.texts == ["c\rd", "ok"]
    assert [row.line for row in content.bad_rows] == [2]


# Packed files


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_files_give_what_they_hold(tmp_path, name, ending):
    content = {
        "a.txt": "One.\nTwo.\n",
        "a.csv": "text\nOne.\nTwo.\n",
        "a.jsonl": '"One."\n"Two."\n',
    }
    half = len(content[name]) // 2
    parts = [content[name][:half].encode(), content[name][half:].encode()]
    pack = gzip.compress if ending == ".gz" else zst
    packed = b"".join(map(pack, parts))  # of several members, as parallel packers write them
    assert read_texts(write(tmp_path, name + ending, packed)).texts == ["One.", "Two."]
    for damaged in (packed[: len(packed) - 5], b"no such thing", b"x" + packed):
        assert "damaged" in refused(write(tmp_path, f"b{name}{ending}", damaged))
    assert "is empty" in refused(write(tmp_path, f"c{name}{ending}", pack(b"")))


def zst(content):
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zst)])
def test_a_small_file_that_unpacks_to_more_than_can_be_held_is_refused(
    tmp_path, monkeypatch, ending, pack
):
    monkeypatch.setattr(reading_module, "MAX_UNPACKED_BYTES", 1_000_000)
    packed = pack(b"word " * 1_000_000)
    assert len(packed) < 10_000
    assert "more than" in refused(write(tmp_path, f"a.txt{ending}", packed))
    table = pa.table({"text": ["word " * 100_000] * 50})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert "more than" in refused(tmp_path / "a.parquet")


# Parquet


def test_parquet_texts_of_every_kind_are_read(tmp_path):
    texts = ["One.", None, "café"]
    for kind in (pa.string(), pa.large_string(), pa.string_view(),
                 pa.dictionary(pa.int32(), pa.string())):  # fmt: skip
        values = pa.array(texts, pa.string()).cast(kind)
        pq.write_table(pa.table({"n": [1, 2, 3], "text": values}), tmp_path / "a.parquet")
        assert read_texts(tmp_path / "a.parquet").texts == ["One.", "", "café"]
        assert list(text_columns(tmp_path / "a.parquet")) == ["text"]


@pytest.mark.parametrize(
    ("values", "held"),
    [([["a"], ["b"]], "lists"), ([{"a": 1}] * 2, "objects"), ([b"a", b"b"], "bytes"),
     ([1, 2], "int64")],
)  # fmt: skip
def test_a_parquet_column_that_holds_no_text_is_refused_by_name(tmp_path, values, held):
    pq.write_table(pa.table({"text": values, "other": ["x", "y"]}), tmp_path / "a.parquet")
    message = refused(tmp_path / "a.parquet", "text")
    assert "'text'" in message
    assert held in message


@pytest.mark.parametrize("names", [("a", "a.text"), ("a.text", "a")])
def test_a_column_is_not_mistaken_for_a_part_of_a_structure(tmp_path, names):
    columns = {"a": [{"text": "x"}, {"text": "y"}], "a.text": ["One.", None]}
    pq.write_table(pa.table({name: columns[name] for name in names}), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet", "a.text").texts == ["One.", ""]
    assert "objects" in refused(tmp_path / "a.parquet", "a")


def test_parquet_values_that_are_no_text_after_all_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [[1], [2]]}), path)
    assert "'text' of a.parquet can't be read as text: it holds lists" in sentence(path, "text")


def sentence(path, column):
    """With which a column is refused that was taken for one of text."""
    with pytest.raises(CorpusError) as caught:
        list(parquet_texts(path, column))
    return str(caught.value)


def test_other_columns_of_a_parquet_file_do_no_harm(tmp_path):
    times = pa.array([10**17, 2**62], pa.timestamp("us", "Mars/Phobos"))
    later = pa.array([2**62, 1], pa.timestamp("us"))
    table = pa.table({"when": times, "late": later, "text": ["One.", "Two."]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet").texts == ["One.", "Two."]


def test_a_damaged_column_that_is_not_read_does_no_harm(tmp_path):
    path = tmp_path / "a.parquet"
    noise = pa.array([[float(n)] * 50 for n in range(2_000)])
    pq.write_table(pa.table({"vector": noise, "text": ["One."] * 2_000}), path)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(OSError):
        pq.read_table(path)
    assert read_texts(path).texts == ["One."] * 2_000


def test_a_parquet_text_that_is_not_utf8_costs_its_row(tmp_path):
    _, offsets = pa.array(["abc", "def", "ghi"]).buffers()[:2]
    broken = pa.py_buffer(b"abc\xff\xfe\xfdghi")
    values = pa.Array.from_buffers(pa.string(), 3, [None, offsets, broken])
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    content = read_texts(tmp_path / "a.parquet")
    assert content.texts == ["abc", "ghi"]
    assert [str(row) for row in content.bad_rows] == ["row 2 is not UTF-8 text"]


# What was taken is part of the corpus


def test_a_txt_is_read_as_before_for_runs_of_before(tmp_path):
    corpus = load_corpus(CorpusSpec(str(write(tmp_path, "a.txt", "  One. \n\nTwo.\n\n Two.\n"))))
    before = make_corpus("a", ["One.", "Two.", "Two."])
    assert corpus.as_before(before.digest).held_out() == before.held_out()
    assert corpus.as_before(corpus.digest) is corpus
    assert corpus.as_before("another").digest == corpus.digest


@pytest.mark.parametrize("text", ["  One. \nTwo.", "One.\nTwo."])
def test_lines_that_were_read_as_one_text_are_found_for_runs_of_before(tmp_path, text):
    path = write(tmp_path, "a.txt", f"{text}\nTwo.\n\n")
    corpus = load_corpus(CorpusSpec(str(path)))
    assert len(corpus.prompts) == 2
    for before in (f"{text}\nTwo.", f"{text}\nTwo.".strip()):
        digest = make_corpus("a", [before]).digest
        assert [prompt.text for prompt in corpus.as_before(digest).prompts] == [before]


def test_the_spec_of_a_corpus_says_what_is_not_usual_and_nothing_else(tmp_path):
    plain = CorpusSpec(str(write(tmp_path, "a.csv", "id,text\n1,One.\n2,Two.\n")))
    assert load_corpus(plain).spec == plain
    assert plain.to_dict() == {"name": plain.name, "column": None}
    other = CorpusSpec(str(write(tmp_path, "b.csv", "id;text\n1;One.\n2;Two.\n")))
    spec = load_corpus(other).spec
    assert (spec.separator, spec.quote, spec.header, spec.encoding) == (";", None, None, None)
    assert load_corpus(spec) == load_corpus(other)


@pytest.mark.parametrize(
    "field",
    [{"separator": ";;"}, {"separator": 5}, {"quote": "ab"}, {"header": "yes"}, {"header": 1},
     {"encoding": "klingon"}, {"encoding": "rot13"}, {"encoding": 5}, {"encoding": "idna"},
     {"separator": "'", "quote": "'"}],
    ids=str,
)  # fmt: skip
def test_a_way_of_reading_that_there_is_not_is_refused_by_name(field):
    with pytest.raises(InputError, match=next(iter(field))):
        CorpusSpec("a.csv", **field)


def test_pandas_files_give_back_what_was_put_in(tmp_path):
    table = pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    for separator in (",", ";", "\t", "|"):
        table.to_csv(tmp_path / "a.csv", sep=separator, index=False)
        assert read_texts(tmp_path / "a.csv").texts == TEXTS
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    assert read_texts(tmp_path / "a.csv.gz").texts == TEXTS


# Encodings that are not the file's


SENTENCES = "text\nIt was late, and it rained.\nShe said café and left.\n"


def content_as(ending, encoding):
    """The same two sentences in the format that the ending names."""
    text = SENTENCES
    if ending.startswith(".jsonl"):
        lines = SENTENCES.splitlines()[1:]
        text = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines)
    content = text.encode(encoding)
    if ending.endswith(".gz"):
        return gzip.compress(content)
    if ending.endswith(".zst"):
        return pa.compress(content, codec="zstd", asbytes=True)
    return content


def all_codecs():
    """Every encoding of text that this Python has, by the name that it is found by."""
    names = set()
    for name in sorted(set(encodings.aliases.aliases.values())):
        with contextlib.suppress(InputError):
            names.add(CorpusSpec("a.txt", encoding=name).encoding)
    return sorted(names)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl", ".csv.gz", ".txt.zst"])
@pytest.mark.parametrize("written_as", ["latin-1", "utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_is_read_or_refused_in_a_sentence_whatever_encoding_is_said(
    tmp_path, ending, written_as
):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content_as(ending, written_as))
    assert len(all_codecs()) > 80
    for encoding in [None, *all_codecs(), "klingon", "hex"]:
        for read in (read_texts, lambda path, _column, how: text_columns(path, how)):
            if read is not read_texts and ending.startswith(".txt"):
                continue
            with contextlib.suppress(CorpusError):
                read(path, None, Reading(encoding=encoding))


@pytest.mark.parametrize("ending", [".txt", ".csv", ".jsonl", ".txt.gz"])
@pytest.mark.parametrize(
    ("written_as", "said", "words"),
    [
        ("utf-16-le", "utf-16", ["not UTF-16 text", "mark of the byte order", "utf-16-le"]),
        ("utf-16-be", "utf-16", ["not UTF-16 text", "mark of the byte order", "utf-16-be"]),
        ("latin-1", "utf-16", ["not UTF-16 text", "--encoding"]),
        ("utf-8", "utf-16", ["not UTF-16 text", "UTF-8"]),
        ("utf-16-le", None, ["utf-16-le"]),
        ("utf-16-be", None, ["utf-16-be"]),
        ("utf-32", None, ["utf-32"]),
    ],
)
def test_a_file_in_another_encoding_than_was_said_is_refused_with_the_right_one(
    tmp_path, ending, written_as, said, words
):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content_as(ending, written_as))
    message = refused(path, None, Reading(encoding=said))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_of_several_bytes_is_read_where_it_is_said(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(content_as(".csv", encoding))
    expected = SENTENCES.splitlines()[1:]
    assert read_texts(path, None, Reading("\t", encoding=encoding)).texts == expected


def test_a_zero_byte_is_named_by_its_line(tmp_path):
    message = refused(write(tmp_path, "a.txt", "One.\nTw\x00o.\nThree is longer.\n"))
    assert "zero bytes, the first in line 2" in message
    assert "encoding" not in message


@pytest.mark.parametrize(
    ("content", "line"), [(b"a\r\nb\rc\nd\n", 2), (b"One.\nTwo.\rThree.\rFour.\n", 2)]
)
def test_mixed_line_ends_are_refused_where_cr_alone_is_one(tmp_path, content, line):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert f"mixed ends: line {line} has a lone CR" in refused(path)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("rows", [[{"text": "One."}, {"text": "Two."}], ["One.", "Two."]])
def test_a_json_array_is_told_from_lines_of_json(tmp_path, rows, indent):
    message = refused(write(tmp_path, "a.jsonl", json.dumps(rows, indent=indent)))
    assert "is one JSON array" in message
    one_a_line = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    assert "is one JSON array" in refused(write(tmp_path, "b.jsonl", one_a_line))
