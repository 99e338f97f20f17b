"""What the comparison of two dictionaries' latents says in plain words. Pure functions."""

from collections.abc import Mapping
from typing import Any

from pages.components.upload import corpus_name

LIMITS = (
    "A correlation is of coefficients on the same tokens, 0 where a latent is not used, or not "
    "strongly used where strong uses count alone. It says that two latents are used alike, not "
    "that the two models do the same with what they stand for. Of a latent with few uses it says "
    "little, whatever its size. A pursuit takes one of several near atoms: a namesake may stand "
    "aside for a neighbour without any difference between the models, which its rank shows. The "
    "share of best partners depends on how many tokens are compared: over fewer of them chance "
    "likeness makes another latent the best partner more often, so that the share is lower, by "
    "more than its interval. Compare shares over equally many tokens. The intervals are over "
    "prompts of this corpus; other texts can give other numbers. L0, size and layer of both "
    "dictionaries matter, so compare with what two seeds of one model give, and with what chance "
    "gives, rather than with 1."
)


def sums_in_words(about: Mapping[str, Any], of_strong: bool = False) -> str:
    """How alike the latents of a pair are, with chance and intervals, as Markdown. about: a row of
    Store.namesakes.comparisons(); of_strong: whether it is of strong uses."""
    if not about["compared"]:
        used = "strongly used" if of_strong else "used"
        return f"No latent is {used} in both, so that nothing can be said of how alike they are."
    best = _with_chance(about, "best", "{:.1%}")
    on = _tokens_in_words(about) + ", by their strong uses" * of_strong
    return (
        f"On {on}, {best[0]} of the latents are used most like their own namesake, of all latents "
        f"of the other dictionary ({best[1]}). The correlation of the median latent with its "
        "namesake is " + "{} ({}).".format(*_with_chance(about, "median", "{:.2f}"))
    )


def _tokens_in_words(about: Mapping[str, Any]) -> str:
    return f"{about['tokens']:,} {'tokens' if about['unit'] == 'token' else 'ends of words'}"


def _with_chance(about: Mapping[str, Any], name: str, form: str) -> tuple[str, str]:
    shown = {of: _shown(about[f"{name}_{of}"], form) for of in ("value", "low", "high", "chance")}
    told = [f"95 % interval {shown['low']}–{shown['high']}"] if shown["low"] else []
    told += [f"{shown['chance']} by chance"] if shown["chance"] else []
    return f"**{shown['value']}**", ", ".join(told)


def _shown(value: float | None, form: str) -> str:
    """ "" for what there is not; what rounds to nothing has no sign."""
    if _is_missing(value):
        return ""
    text = form.format(value)
    return text.removeprefix("-") if not text.strip("-0.%") else text


def counts_in_words(about: Mapping[str, Any], of_strong: bool = False) -> str:
    """What was compared, and what only one of the two uses. about, of_strong: as in
    `sums_in_words`."""
    which = (
        "held-out prompts" if about["held_out"] else f"prompts of {corpus_name(about['corpus'])}"
    )
    used = "strongly used" if of_strong else "used"
    told = (
        f"{about['namesakes']:,} of A's {about['atoms_a']:,} latents have the same source as one "
        f"of B's {about['atoms_b']:,}. On {_tokens_in_words(about)} of {about['prompts']:,} "
        f"{which}, {about['compared']:,} of them have a correlation; {about['only_a']:,} are "
        f"{used} in A alone, {about['only_b']:,} in B alone, and {about['unused']:,} in neither."
    )
    if _is_missing(about["alone_a"]) or _is_missing(about["alone_b"]):
        return told
    return f"{told} {_alone_in_words(about['alone_a'], about['alone_b'], of_strong)}"


def _alone_in_words(a: float, b: float, of_strong: bool) -> str:
    """How often only one of two namesakes is used; one number where both are shown alike."""
    uses, used = ("strong uses", "strongly used") if of_strong else ("uses", "used")
    if f"{a:.0%}" == f"{b:.0%}":
        return f"{a:.0%} of the {uses} of either are on tokens where its namesake is not {used}."
    return (
        f"{a:.0%} of A's {uses} are on tokens where the namesake is not {used} in B, and {b:.0%} "
        "of B's on tokens where it is not in A."
    )


def _is_missing(value: float | None) -> bool:
    return value is None or value != value
