"""What a newcomer needs in the first minute: four words, a picture, and one of each, live."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from itda_core.corpus.corpus import prompt_id
from itda_core.store.latent_search import LatentSearch
from pages.components.explorer import explorer
from pages.components.frame import errors_as_sentences
from pages.components.latents.score import has_strong_uses, strong_in_words
from pages.components.run_names import run_label, words_of
from pages.components.text import literal, shown, snippet, token_label

_WORDS = (
    "A **source** is a token of a real text, and the model's activation there, scaled to length 1, "
    "is an **atom**; the **latent** that goes with it is titled by its source, so it can be read "
    "at once. Every other activation is written as a short sum of atoms, each with a coefficient. "
    "**L0** is the number of terms in that sum: more terms explain more, fewer are easier to read."
)
_SVG = """
<svg viewBox="0 0 {} {}" role="img" xmlns="http://www.w3.org/2000/svg"
 font-family="sans-serif" font-size="14"
 fill="currentColor">
<title>A source becomes an atom; another activation is a sum of three atoms, so L0 is 3</title>
{}
</svg>"""
_SOURCE = """<text y="20" font-weight="600">source: a token in a text</text>
<text y="46">…ratify the</text>
<rect x="74" y="30" width="50" height="23" rx="4" fill="#4a90b8" fill-opacity="0.35"/>
<text x="79" y="46">treaty</text><text x="130" y="46">with Spain…</text>"""
_ARROW = '<path d="{}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
_ATOM = """<text y="20" font-weight="600">atom: its activation, length 1</text>
<g fill="#4a90b8"><rect x="2" y="32" width="14" height="18" fill-opacity="0.9"/>
<rect x="18" y="32" width="14" height="18" fill-opacity="0.3"/>
<rect x="34" y="32" width="14" height="18" fill-opacity="0.6"/>
<rect x="50" y="32" width="14" height="18" fill-opacity="0.15"/>
<rect x="66" y="32" width="14" height="18" fill-opacity="0.75"/></g>
<text x="90" y="46">= latent 812, “treaty”</text>"""
_TOKEN = """<text y="20" font-weight="600">another activation{}</text>
<text y="50">…the Senate and</text>
<rect x="112" y="34" width="76" height="23" rx="4" fill="#d9863b" fill-opacity="0.35"/>
<text x="117" y="50">commerce</text>"""
_SUM = """<text y="20">≈ 31 × trade + 12 × treaty − 4 × war</text>
<text y="44" opacity="0.75">such as these: coefficient × latent;</text>
<text y="64" opacity="0.75">what is left over is the error.</text>"""


def _picture(width: int, height: int, arrow: str, parts: Sequence[tuple[int, int, str]]) -> str:
    """An SVG of an arrow and of parts, each at its place."""
    placed = [f'<g transform="translate({x} {y})">{part}</g>' for x, y, part in parts]
    return _SVG.format(width, height, "\n".join([*placed, _ARROW.format(arrow)]))


_PICTURE = _picture(
    580, 180, "M240 41h58m-8-5 8 5-8 5",
    [(6, 0, _SOURCE), (310, 0, _ATOM), (6, 78, _TOKEN.format(", as a sum of L0 = 3 terms")),
     (204, 108, _SUM)],
)  # fmt: skip
_NARROW_PICTURE = _picture(
    330, 284, "M101 58v24m-5-8 5 8 5-8",
    [(2, 0, _SOURCE), (2, 84, _ATOM), (2, 154, _TOKEN.format(": L0 = 3 terms")), (2, 214, _SUM)],
)  # fmt: skip
"""The same below each other, for a page on which the text of the other would be tiny"""
_PICTURE_CSS = """
@media (max-width: 640px) { .st-key-picture_wide { display: none; } }
@media (min-width: 641px) { .st-key-picture_narrow { display: none; } }
"""
_LATENTS = 200
"""The best by score, among which one is shown"""
_MIN_STRONG = 20
SENTENCES = (
    "The Senate will ratify the treaty with Spain, and commerce will flow again.",
    "The cat sat on the mat while the rain fell on the roof.",
)
"""Of which the first that is no prompt of any dictionary here is taken apart"""


def explain() -> None:
    """The four words, and a picture of them."""
    st.markdown(_WORDS)
    ink = "#e6e6e6" if st.context.theme.type == "dark" else "#222222"
    st.html(f"<style>{_PICTURE_CSS}</style>")
    for name, picture, width in (("wide", _PICTURE, 560), ("narrow", _NARROW_PICTURE, 340)):
        with st.container(key=f"picture_{name}"):
            st.image(picture.replace("currentColor", ink).strip(), width=width)


def show_examples(runs: pd.DataFrame) -> None:
    """One latent of the newest dictionary, and a sentence that uses it. runs: rows of
    Store.runs.table()."""
    run = next(runs.sort_values(["created", "layer"]).tail(1).itertuples())
    latent = _example(run)
    if latent is None:
        return
    with st.container(border=True):
        st.caption(f"From the newest dictionary, {literal(run_label(run))}")
        st.markdown(f"**Latent {latent.latent}: {literal(token_label(latent.token))}**")
        st.caption(
            f"{words_of(run).source.capitalize()}: "
            + literal(snippet(latent.text, latent.start, latent.end))
        )
        if has_strong_uses(latent):
            st.markdown(literal(strong_in_words(latent)))
        st.page_link(
            "pages/latents.py",
            label="Open this latent",
            query_params={"run": run.run_id, "latent": str(latent.latent)},
        )
        _show_sentence(run)


def _example(run) -> pd.Series | None:
    """A latent to begin with: a word with many strong uses that its source tells well, of those
    the one whose strong uses are on that word most often; without scores the strongest."""
    store = explorer().store
    order = "auroc" if store.known(store.latents.judged, run.run_id) else "strength"
    numbers = store.latents.page(run.run_id, LatentSearch(kind="usual"), -1, _LATENTS, order)
    table = store.known(store.latents.table, run.run_id, tuple(numbers.numbers))
    table = table[table["tokens"] > 0]
    words = table[table["token"].str.strip().str.fullmatch(r"[^\W\d_]{6,}")]
    good = words[words["strong"].fillna(0) >= _MIN_STRONG]
    for some, by in ((good, "strong_on_word"), (words, "strongest"), (table, "strongest")):
        if not some.empty:
            return some.sort_values(by, ascending=False).iloc[0]
    return None


@st.fragment
def _show_sentence(run) -> None:
    """A sentence of this page's own, which no dictionary was made from, each token with the largest
    of its terms once it is asked for: that takes the model."""
    with errors_as_sentences():
        text = _unread_sentence()
        if text is None:
            return
        st.markdown("**A sentence taken apart**")
        st.caption(
            f"“{literal(text)}” It was written for this page and is none of the texts that the "
            "dictionary was chosen from, which it would explain better."
        )
        asked = st.session_state.setdefault("_apart", set())
        if run.run_id not in asked:
            ask = {"on_click": asked.add, "args": [run.run_id]}
            st.button("Take it apart", key="first_sentence_apart", **ask)
            return
        _show_terms(run, text)
        st.page_link(
            "pages/decompose.py",
            label="See all of its terms",
            query_params={"run": run.run_id, "text": text},
        )


def _unread_sentence() -> str | None:
    """The first of the sentences that is no stored prompt."""
    store = explorer().store
    ids = {prompt_id(text): text for text in SENTENCES}
    known = store.runs.prompt_texts(list(ids))
    return next((text for one, text in ids.items() if one not in known), None)


def _show_terms(run, text: str) -> None:
    from pages.components.decompose.decomposed import decomposed  # brings torch, which is slow

    result = decomposed(run.directory, text)
    terms = result.table()
    sums = terms.groupby(["position", "latent"], as_index=False)["coefficient"].sum()
    largest = sums.loc[sums["coefficient"].abs().groupby(sums["position"]).idxmax()]
    sources = result.sources.set_index("latent")["token"].loc[largest["latent"]]
    left = pd.Series(result.shares_left, index=result.positions).loc[largest["position"]]
    st.caption(
        f"Each token with the largest of its {result.codes.l0} terms. *left* is the share of its "
        "squared norm that all of them leave unexplained."
    )
    st.dataframe(
        pd.DataFrame(
            {
                "token": [token_label(result.token_text(one)) for one in largest["position"]],
                "latent": largest["latent"].to_numpy(),
                "source": [shown(token_label(token)) for token in sources],
                "coefficient": largest["coefficient"].to_numpy(),
                "left": 100 * left.to_numpy(),
            }
        ),
        column_config={
            "latent": st.column_config.NumberColumn("latent", format="%d"),
            "source": words_of(run).source,
            "coefficient": st.column_config.NumberColumn("coefficient", format="%+.1f"),
            "left": st.column_config.NumberColumn("left", format="%.0f %%"),
        },
        placeholder="–",
        hide_index=True,
        height="content",
        key="first_sentence",
    )
