"""How many tokens an uploaded file has, by the tokenizer of the model that is chosen."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.model.loading import weights_folder
from pages.components.upload import Upload

_COUNTED_CHARACTERS = 2_000_000
"""Of longer files the rest is taken to have as many tokens a character"""
_HELD_OUT = 0.1


def say_tokens(upload: Upload, model: ModelSpec | None) -> None:
    """ "200 texts, 9,949 tokens"; the texts alone where the model is not on this machine yet."""
    texts = "1 text" if len(upload.texts) == 1 else f"{len(upload.texts):,} texts"
    counts = _counts(upload.texts, upload.spec, model) if model else None
    st.session_state["_counted"] = (upload.spec, model, counts)
    if counts is None:
        st.caption(texts)
        return
    lengths, is_whole = counts
    about = "" if is_whole else "about "
    st.caption(f"{texts}, {about}{int(lengths.sum()):,} tokens")


def as_far_as_there_are(config: TrainConfig) -> TrainConfig:
    """The settings with as many tokens as the upload has for them, so that the estimate is of
    those: each text cut to the context length, and a tenth of them held out."""
    spec, model, counts = st.session_state.get("_counted", (None, None, None))
    if counts is None or (spec, model) != (config.corpus, config.model):
        return config
    read = np.minimum(counts[0], config.context_length).sum() * (1 - _HELD_OUT)
    return config.but(max_tokens=max(1, min(config.max_tokens, int(read))))


@st.cache_data(max_entries=8, show_spinner="Counting the tokens …")
def _counts(
    _texts: Sequence[str],
    spec: CorpusSpec,  # noqa: ARG001 (names the texts)
    model: ModelSpec,
) -> tuple[np.ndarray, bool] | None:
    """Tokens of each text, and whether all were counted; None where there is no tokenizer here, or
    it can't be used, which the training says."""
    folder = weights_folder(model)
    if folder is None:
        return None
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
