"""What a model wrote, plain and steered: shown, judged by the model as it is, and exported."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.steering import (
    NGRAM,
    Writing,
    WrittenToken,
    judged,
    loops,
    perplexity,
    repetition,
)
from pages.components.cached import loaded_model, loaded_run
from pages.components.decompose.steered_latents import Weights
from pages.components.downloads import offer_downloads
from pages.components.text import quoted, visible
from pages.components.token_strip.strip import show_rows, token_row

_ROW_TOKENS = 20
"""Tokens of each text where several strengths stand in a row"""


@dataclass
class Written:
    """What was written for one set of choices; grows while the model writes."""

    run_id: str
    text: str
    """what the model went on from"""
    latent: int
    writing: Writing
    others: Weights = field(default_factory=dict)
    """steered with beside the latent, by weight"""
    texts: dict[float, list[WrittenToken]] = field(default_factory=dict)
    """by strength; 0 is the model as it is"""
    judged: dict[float, np.ndarray] = field(default_factory=dict)
    """log p of each token by the model as it is, nats, by strength"""
    is_whole: bool = False
    """whether the model has ended each of them, or nobody has stopped it"""


def read_with(writing: Writing, n_texts: int) -> Writing:
    """Shorter texts where several strengths stand in a row."""
    if n_texts <= 2:
        return writing
    return Writing(min(_ROW_TOKENS, writing.max_tokens), writing.temperature, writing.seed)


def judge(run, written: Written) -> None:
    """Have the model as it is judge what it has not yet: one pass a text."""
    model = loaded_model(loaded_run(run.directory).config.model)
    writing = read_with(written.writing, len(written.texts))
    for strength, tokens in written.texts.items():
        if len(written.judged.get(strength, ())) != len(tokens) or not tokens:
            known = judged(model, written.text, writing, tokens) if tokens else np.zeros(0)
            written.judged[strength] = known


def show_text(
    tokens: list[WrittenToken],
    strength: float,
    known: np.ndarray | None = None,
    is_final: bool = True,
    is_whole: bool = True,
) -> None:
    """known: log p of each token by the model as it is, once it is known."""
    name = f"Strength {_signed(strength, '+g')}" if strength else "As the model is"
    mean = np.mean([token.log_probability for token in tokens]) if tokens else float("nan")
    likelihood = f" · mean log-probability {_signed(mean)} nats" if tokens else ""
    st.markdown(f"**{name}**{likelihood}")
    text = "".join(token.text for token in tokens)
    if not is_final:  # as many elements as later, so that none of the text before is left beside it
        st.caption("Judged by the model as it is once all is written.")
        st.text("\n".join(map(visible, text.split("\n"))) if tokens else "Generating …")
    elif not text.strip():
        st.caption("The model ends the text at once." if is_whole else "Stopped at once.")
    else:
        st.caption(f"perplexity {perplexity(known):,.3g} by the model as it is{_repeated(tokens)}")
        show_rows([_row(tokens, text, known)], key=f"written_{strength}")


def _signed(value: float, digits: str = ".2f") -> str:
    return format(value, digits).replace("-", "−")


def _repeated(tokens: list[WrittenToken]) -> str:
    """How much of a text repeats itself, as the end of a sentence; "" for a text too short."""
    ids = [token.token_id for token in tokens]
    share = repetition(ids)
    if np.isnan(share):
        return ""
    told = "; it loops" if loops(ids) else ""
    return f" · {share:.0%} of the {NGRAM}-token sequences repeated{told}"


def _row(tokens: list[WrittenToken], text: str, known: np.ndarray) -> dict:
    """Tokens coloured by how unlikely each is by the model as it is, on a scale to a chance of 1 in
    1,000."""
    ends = list(itertools.accumulate(len(token.text) for token in tokens))
    spans = list(zip([0, *ends], ends, strict=False))
    unlikely = np.minimum(1.0, -known / np.log(1_000)).tolist()
    hovers = [
        f"{quoted(token.text)}\nprobability {np.exp(token.log_probability):.1%} as it was "
        f"written, {np.exp(plain):.1%} by the model as it is"
        for token, plain in zip(tokens, known, strict=True)
    ]
    return token_row(text, spans, [-value for value in unlikely], hovers, breaks=True)


def _latents_in_words(written: Written) -> str:
    others = "".join(f" + {weight:g} × {latent}" for latent, weight in written.others.items())
    return f"Latent {written.latent}{others}"


def offer_written(written: Written) -> None:
    table = pd.DataFrame(
        [
            {
                "strength": strength,
                "step": step,
                "token_id": token.token_id,
                "text": token.text,
                "log_probability": token.log_probability,
                "log_probability_unsteered": float(written.judged[strength][step]),
            }
            for strength, tokens in written.texts.items()
            for step, token in enumerate(tokens)
        ]
    )
    asked = written.writing.max_tokens
    each = read_with(written.writing, len(written.texts)).max_tokens
    shortened = f" Side by side texts have {each:,} tokens at most; *Generate* writes {asked:,}."
    shortened *= each < asked
    st.caption(
        f"{_latents_in_words(written)}.{shortened} The stronger the colour, the less likely is the "
        "token by the model as it is, which reads each text anew. Steering breaks a text down in "
        "two ways. "
        "Where it falls apart, the perplexity is high. Where it loops, the perplexity may be low, "
        "as a repetition is easy to foresee, and sequences are repeated: of all sequences of "
        f"{NGRAM} tokens, the share that came before, 1 − different / all (seq-rep-{NGRAM} of "
        "Welleck et al. 2020). A text is said to loop where that is a half or more, or where a "
        "quarter of its tokens (at least 4, and 12 are enough) repeat what stands right before "
        "them. What stands beside the strength is by the model as it generated. "
        "Hover for both."
    )
    about = {"run": written.run_id, "latent": written.latent, "prompt": written.text}
    ids = {
        str(strength): [token.token_id for token in tokens]
        for strength, tokens in written.texts.items()
    }
    about["repetition"] = {strength: repetition(of_text) for strength, of_text in ids.items()}
    about["loops"] = {strength: loops(of_text) for strength, of_text in ids.items()}
    about["others"] = {str(latent): weight for latent, weight in written.others.items()}
    with st.popover("Export the texts"):
        offer_downloads(table, about, f"steered-{written.latent}", "steered_file")
