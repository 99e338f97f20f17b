"""How often each coefficient occurs, drawn by a component of the project's own: next to nothing is
sent, and a latent after another is drawn within a frame, where Plotly took 60 ms."""

from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from pages.components.scale import usual_largest

_HERE = Path(__file__).parent
_BINS = 40
_histogram = st.components.v2.component(
    "itda.histogram",
    html='<div class="histogram"></div>',
    css=(_HERE / "histogram.css").read_text("utf-8"),
    js=(_HERE / "histogram.js").read_text("utf-8"),
)


def show_histogram(
    coefficients: np.ndarray,
    marked: float | None,
    file_name: str,
    picture: str,
    key: str,
    threshold: float | None = None,
) -> None:
    """Draw it, negative and positive coefficients in their colours. marked: the coefficient of a
    token that was decomposed, drawn as a line; threshold: of strong uses; what is below is drawn
    pale; file_name, picture: of its picture, and whether that
    is an "SVG" or a "PNG"; key: by which a token strip puts a mark into it."""
    data = histogram_data(coefficients, marked, threshold)
    _histogram(data=data | {"name": key, "file": file_name, "picture": picture}, key=key)


def histogram_data(
    coefficients: np.ndarray,
    marked: float | None,
    threshold: float | None = None,
    bins: int = _BINS,
) -> dict[str, Any]:
    """What the component draws: the least and the largest edge of bins of equal width, and how many
    coefficients are in each, those above and those below zero apart, and how many of them are
    strong, None without a threshold; `marked` is within them. The few coefficients that tower over
    all others are told in `far` instead, unless the marked one does too. coefficients: [n], any
    n."""
    largest = usual_largest(coefficients)
    is_far = np.abs(coefficients) > largest
    if marked is not None and abs(marked) > largest:
        is_far[:] = False
    far, coefficients = coefficients[is_far], coefficients[~is_far]
    values = np.append(coefficients, [] if marked is None else marked).astype(np.float64)
    edges = _edges(values, bins)
    positive, _ = np.histogram(coefficients[coefficients > 0], edges)
    negative, _ = np.histogram(coefficients[coefficients < 0], edges)
    strong = None
    if threshold is not None:
        strong = np.histogram(coefficients[coefficients >= threshold], edges)[0].tolist()
    return {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "positive": positive.tolist(),
        "negative": negative.tolist(),
        "strong": strong,
        "marked": marked,
        "told": "" if marked is None else f"decomposed token {marked:+.2f}",
        "far": _far_in_words(far),
    }


def _far_in_words(far: np.ndarray) -> str:
    if not len(far):
        return ""
    sizes = ", ".join(f"{size:+,.1f}" for size in far[np.argsort(-np.abs(far))])
    return f"and {len(far)} {'token' if len(far) == 1 else 'tokens'} far out at {sizes}"


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Of bins of equal width that hold all values. Where these differ by hardly more than the
    rounding of float32, bins are as wide as where all are equal."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if high - low <= bins * np.finfo(np.float32).eps * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)
