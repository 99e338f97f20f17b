"""By what the tokens of a text are coloured, on a scale that is stretched to the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.surprise import surprise_steps
from itda_core.model.tokens import Tokens
from pages.components.cached import loaded_model, loaded_run
from pages.components.computed import Kept, computed, is_asked_for
from pages.components.text import literal
from pages.components.token_strip.strip import Row, token_row

COLOURS = {
    "left": "Left unexplained",
    "latent": "One latent",
    "surprise": "Surprise of the model",
    "norm": "Norm",
}
_ENDS = (0.05, 0.95)
"""Quantiles at which a scale ends, so that one token with a massive activation leaves room"""
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_OF_LATENT = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Shading:
    """A value of each token, and how it becomes a colour."""

    title: str
    values: np.ndarray
    """[n_tokens] float64, NaN where there is none"""
    told: Callable[[float], str]
    """a value in words"""
    is_log: bool = False
    sign: int = -1
    """of the hue: 1 is blue, −1 orange"""

    def colours(self) -> np.ndarray:
        """In [−1, 1] as a token strip takes them, [n_tokens]; 0 without a value."""
        low, high = self._ends()
        if not low < high:
            return np.where(np.isnan(self.values), 0.0, self.sign * 0.5)
        share = np.clip((self._scaled(self.values) - low) / (high - low), 0, 1)
        return self.sign * np.nan_to_num(share)

    def legend(self) -> list[tuple[float, str]]:
        """Colours from one end of the scale to the other, each with its value in words."""
        known = self._scaled(self.values[~np.isnan(self.values)])
        if not len(known):
            return []
        low, high = self._ends()
        if not low < high:
            return [(self.sign * 0.5, self.told(self._value(low)))]
        told = [self.told(self._value(low + step * (high - low))) for step in _STEPS]
        told[0] = f"≤ {told[0]}" if known.min() < low else told[0]
        told[-1] = f"≥ {told[-1]}" if known.max() > high else told[-1]
        return [(self.sign * step, text) for step, text in zip(_STEPS, told, strict=True)]

    def _ends(self) -> tuple[float, float]:
        known = self._scaled(self.values[~np.isnan(self.values)])
        return tuple(np.quantile(known, _ENDS)) if len(known) else (0.0, 0.0)

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values, 1e-30)) if self.is_log else values

    def _value(self, scaled: float) -> float:
        return float(np.exp(scaled)) if self.is_log else float(scaled)


def left_unexplained(result: Decomposition) -> Shading:
    return Shading(COLOURS["left"], _of_tokens(result, result.shares_left), _percent)


def norms(result: Decomposition) -> Shading:
    """‖x − o‖ of each token, on a logarithmic scale."""
    values = _of_tokens(result, result.residuals[:, 0])
    return Shading("Norm", values, lambda value: f"{value:.3g}", is_log=True, sign=1)


def shading_of(run, result: Decomposition, colour: str) -> Shading:
    """What a choice of COLOURS shows; what is left unexplained where a sentence says why another
    can't be had, or waits for its button. run: a row of Store.runs.table()."""
    if colour == "norm":
        return norms(result)
    bits = surprises(run, result) if colour == "surprise" else None
    if bits is not None:
        return Shading("Surprise, bits", bits, lambda value: f"{value:.1f}")
    return left_unexplained(result)


def surprises(run, result: Decomposition) -> np.ndarray | None:
    """−log2 p of each token, [n_tokens] bits; None with a sentence where it is not known."""
    spec = loaded_run(run.directory).config.model
    model = loaded_model(spec)
    if reason := model.why_not("next_tokens"):
        st.info(literal(reason))
        return None
    kept = _kept(spec, result.tokens)
    if not is_asked_for(model, kept, "Show the surprise", "all blocks", "show_surprise"):
        return None
    return computed(
        kept, model, lambda: surprise_steps(model, result.tokens), range(model.n_layers)
    )


@st.cache_resource(
    max_entries=64, show_spinner=False, hash_funcs={Tokens: lambda tokens: tokens.texts}
)
def _kept(spec, tokens: Tokens) -> Kept[np.ndarray]:
    return Kept(spec, tokens)


def legend_row(shading: Shading) -> Row:
    """The scale as a row of tokens, and how a token looks that is not decomposed."""
    return _legend(shading.title, shading.legend())


def latent_legend_row(latent: int, coefficients: np.ndarray) -> Row:
    """The same for the coefficients of one latent, on a strip's logarithmic scale. coefficients: of
    the tokens that use it, [n] with n at least 1."""
    largest = float(np.abs(coefficients).max())
    signs = [sign for sign in (-1, 1) if (np.sign(coefficients) == sign).any()]
    shares = sorted(sign * share for sign in signs for share in _OF_LATENT)
    steps = [
        (np.sign(share) * (1 + np.log10(abs(share)) / 2), f"{share * largest:+.3g}")
        for share in shares
    ]
    return _legend(f"Latent {latent}", steps)


def _legend(title: str, steps: list[tuple[float, str]]) -> Row:
    labels = [f" {text} " for _, text in steps] + [" not decomposed "]
    ends = np.cumsum([len(label) for label in labels]).tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    values = [value for value, _ in steps] + [0.0]
    return token_row("".join(labels), spans, values, chip=title, dimmed=[len(steps)])


def _of_tokens(result: Decomposition, values: np.ndarray) -> np.ndarray:
    """[n_decomposed] → [n_tokens], NaN for the others."""
    out = np.full(len(result.spans()), np.nan)
    out[result.positions] = values
    return out


def _percent(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
