"""How many tokens an uploaded file has, by the tokenizer of the model that is chosen, and how many
of them a training reads."""

import contextlib
from collections.abc import Sequence

import numpy as np
import streamlit as st

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import SettingError
from itda_core.model.model_info import weights_folder
from itda_core.settings import SETTINGS
from pages.components.upload import Upload

_COUNTED_CHARACTERS = 2_000_000
"""Of longer files the rest is taken to have as many tokens a character"""
_HELD_OUT = 0.1
_MARKS = 2
"""Tokens that stand for no byte, of a text"""


def say_tokens(upload: Upload, model: ModelSpec | None) -> None:
    """ "200 texts, 9,949 tokens"; the texts alone where the model is not on this machine yet. Of
    those that are the same one counts, as one is read."""
    read = list(dict.fromkeys(upload.texts))
    texts = "1 text" if len(read) == 1 else f"{len(read):,} texts"
    folder = weights_folder(model) if model else None  # which may be unpacked at any moment
    counts = _counts(read, upload.spec, str(folder)) if folder else None
    st.session_state["_counted"] = (upload.spec, model, counts)
    most = sum(len(text.encode()) for text in read)
    st.session_state["_bytes"] = (upload.spec, most, _MARKS * len(read))
    again = len(upload.texts) - len(read)
    repeated = f" ({again:,} more {'is a repetition' if again == 1 else 'are repetitions'})"
    texts += repeated if again else ""
    if counts is None:
        st.caption(texts)
        return
    lengths, is_whole = counts
    about = "" if is_whole else "about "
    st.caption(f"{texts}, {about}{int(lengths.sum()):,} tokens")
    if told := _cut_in_words(lengths, _context_length()):
        st.caption(f"{about.capitalize()}{told}")


def _context_length() -> int:
    """What stands in its field, which is drawn further down; the usual where that is wrong, which
    is told there."""
    with contextlib.suppress(SettingError):
        setting = SETTINGS["context_length"]
        return int(setting.read(st.session_state.get("train_context_length", "")))
    return TrainConfig.__dataclass_fields__["context_length"].default


def _cut_in_words(lengths: np.ndarray, context_length: int) -> str:
    """A sentence on texts that are longer than what is read of each; "" where none is."""
    longer = lengths[lengths > context_length]
    if not len(longer):
        return ""
    are = "text is" if len(longer) == 1 else "texts are"
    left_out = int((longer - context_length).sum())
    return (
        f"{len(longer):,} {are} longer than the context length of {context_length:,} tokens: what "
        f"comes after is not read, {left_out:,} tokens. More settings has the context length."
    )


def fewer_in_words(config: TrainConfig) -> str:
    """A sentence on an upload with fewer tokens than are asked for; "" where it has them, or that
    is not known."""
    read = as_far_as_there_are(config).max_tokens
    if read == config.max_tokens:
        return ""
    return (
        f"About {read:,} tokens will be read, all that the file has beside those held out: fewer "
        f"than the {config.max_tokens:,} asked for."
    )


def as_far_as_there_are(config: TrainConfig) -> TrainConfig:
    """The settings with as many tokens as the upload has for them, so that the estimate is of
    those: each text cut to the context length, and a tenth of them held out."""
    spec, model, counts = st.session_state.get("_counted", (None, None, None))
    if counts is None or (spec, model) != (config.corpus, config.model):
        return config
    read = int(np.minimum(counts[0], config.context_length).sum() * (1 - _HELD_OUT))
    return config.but(max_tokens=min(config.max_tokens, max(config.max_atoms, read)))


def check_has_tokens(config: TrainConfig) -> None:
    """Raises InputError where the upload can't have a token for each atom: fewer than the tokenizer
    counts in all of it, or than it has bytes where that is not known."""
    spec, most, marks = st.session_state.get("_bytes", (None, 0, 0))
    if spec != config.corpus or config.activations:
        return
    spec, model, counts = st.session_state["_counted"]
    what = "bytes, so no more tokens"
    if counts is not None and counts[1] and model == config.model:
        what, marks = "tokens", 0
        most = int(np.minimum(counts[0], config.context_length).sum())
    if most + marks < config.max_atoms:
        some = what if most != 1 else what.replace("s", "", 1)
        raise SettingError(
            f"{{0}} ({config.max_atoms:,}) is more than the uploaded file has: {most:,} {some}. "
            "Every atom is a token, so ask for fewer atoms, or add texts.",
            SETTINGS["max_atoms"],
        )


@st.cache_data(max_entries=8, show_spinner="Counting the tokens …")
def _counts(
    _texts: Sequence[str],
    spec: CorpusSpec,  # noqa: ARG001 (names the texts)
    folder: str,
) -> tuple[np.ndarray, bool] | None:
    """Tokens of each text, and whether all were counted; None where the tokenizer can't be used,
    which the training says. folder: of the model."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        sizes = np.cumsum([len(text) for text in _texts])
        first = max(1, int(np.searchsorted(sizes, _COUNTED_CHARACTERS)))
        ids = tokenizer(list(_texts[:first]), truncation=False, verbose=False)["input_ids"]
    except Exception:  # transformers raises a dozen kinds; the training says what is wrong
        return None
    lengths = np.array([len(one) for one in ids], dtype=np.float64)
    if first >= len(_texts):
        return lengths, True
    rate = lengths.sum() / sizes[first - 1]
    rest = [rate * len(text) for text in _texts[first:]]
    return np.concatenate([lengths, rest]), False
