"""The frame of a page: title, margins, navigation, and errors as sentences."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from itda_core.data_folder import data_directory
from itda_core.errors import InputError, ItdaError
from itda_core.events import tell_error
from itda_core.files.disk_errors import system_error
from pages.components.explorer import explorer
from pages.components.exposure import is_exposed
from pages.components.history import keep_history
from pages.components.job_offer import say_what_was_queued
from pages.components.text import literal, sentence
from pages.components.url import restore_kept

_LINKS = {
    "app.py": "Overview",
    "pages/train.py": "Train",
    "pages/latents.py": "Latents",
    "pages/decompose.py": "Decompose",
    "pages/similarity.py": "Similarity",
    "pages/evaluate.py": "Evaluate",
}
OPEN_QUESTION = "_open_question"
"""In the session: what the dialog that is open asks about. A page that is drawn anew meanwhile, as
where a job ends, shows it again, since it would close."""
_FRAME_CSS = """
.stMainBlockContainer { padding: 3.5rem 2.5rem 3rem; max-width: 96rem; margin: 0 auto; }
h1 { font-size: 2rem !important; padding: 0.5rem 0 !important; }
h2, h3 { font-size: 1.25rem !important; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
[data-testid="stPageLink"] a p {
  color: light-dark(#2f6f8f, #6db3d6) !important; text-decoration: underline;
}
[data-testid="stPageLink"] a { padding-inline: 0; }  /* in line with what is above it */
.st-key-navigation a { padding-inline: 0.5rem !important; }
.st-key-navigation a p { color: inherit !important; text-decoration: none !important; }
@media (max-width: 900px) {
  :is(.st-key-toolbar, .st-key-halves) > div > [data-testid="stHorizontalBlock"] {
    flex-wrap: wrap;
  }
  .st-key-toolbar > div > div > [data-testid="stColumn"] { min-width: min(14rem, 100%); }
  .st-key-halves > div > div > [data-testid="stColumn"] { min-width: 100%; }
}
.st-key-sides > div > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:last-child {
  position: sticky; top: 4rem; align-self: flex-start; max-height: calc(100vh - 5rem);
  overflow-y: auto; padding-bottom: 1rem;  /* into which the last text's margin reaches */
}
@media (min-width: 901px) {  /* the terms leave room for what stands around them: one scroll bar */
  .st-key-sides .st-key-terms { --rows-room: max(10rem, calc(100vh - 34.75rem)); }
}
@media (max-width: 900px) {
  .st-key-sides > div > [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  .st-key-sides > div > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"] {
    min-width: 100%;
  }
  .st-key-sides > div > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:last-child {
    position: static; max-height: none; overflow: visible;
  }
}
@media (max-width: 640px) {
  .stMainBlockContainer { padding: 3.5rem 1rem 2rem; }
  [data-testid="stButtonGroup"] [role="radiogroup"] { flex-wrap: wrap; }
}
[data-testid="stCaptionContainer"], button kbd { opacity: 0.75 !important; }
[data-testid="stBaseButton-primary"]:enabled, [data-tag] {
  color: light-dark(#fff, #1b1b1b) !important;
}
[data-testid="stElementToolbarButton"]:has([aria-label^="Download as CSV"]) { display: none; }
:not(pre) > code {
  all: unset !important; white-space: break-spaces !important; overflow-wrap: anywhere !important;
}
.js-plotly-plot :is(.xtick, .ytick, .bars, .infolayer) text { fill: currentColor !important; }
"""
"""Streamlit's own margins leave a third of a laptop's screen empty, and some of its text is too
pale for WCAG AA. Code spans are how text is shown as it is (`text.literal`): they look like the
text around them. Streamlit's own CSV of a table has formulas in it: `downloads.py` makes them."""


@contextmanager
def page(title: str):
    """The frame of a page: its title, its margins, and errors as sentences. What was typed into
    fields that an error leaves undrawn is kept."""
    st.set_page_config(page_title=f"{title} · ITDA explorer", layout="wide")
    st.html(f"<style>{_FRAME_CSS}</style>")
    restore_kept()
    if st.session_state.get("_page") != title:  # a question is gone with its page
        st.session_state["_page"] = title
        st.session_state.pop(OPEN_QUESTION, None)
    if not st.session_state.get("framed"):
        _show_links()
    is_whole = False
    if is_exposed():
        st.caption(
            "Open to other machines, for those who have the token. Files and folders of this "
            "machine can't be named here; texts can be uploaded."
        )
    with errors_as_sentences():
        say_what_was_queued()
        yield
        is_whole = True
    keep_history()
    if not is_whole:
        st.stop()  # after a run to its end Streamlit forgets every field that was not drawn


def is_dark() -> bool:
    """Whether the page's ground is black, for pictures whose colours don't follow it."""
    return st.context.theme.type == "dark"


@contextmanager
def scrolling(name: str, pixels: int):
    """A place for what must not be squeezed: on a narrow screen it scrolls sideways."""
    outer, inner = f"{name}_outer", f"{name}_inner"
    st.html(
        f"<style>.st-key-{outer} {{ overflow-x: auto; }} "
        f".st-key-{inner} {{ min-width: {int(pixels)}px; }}</style>"
    )
    with st.container(key=outer), st.container(key=inner):
        yield


@contextmanager
def tiled(name: str, pixels: int):
    """A place whose parts stand side by side, as many in a row as have so much room, and the others
    below them. pixels: of a part, at least."""
    st.html(
        f"<style>.st-key-{name} {{ display: grid; align-items: start; "
        f"grid-template-columns: repeat(auto-fill, minmax(min({int(pixels)}px, 100%), 1fr)); }} "
        f".st-key-{name} > * {{ min-width: 0; }}</style>"
    )
    with st.container(key=name):
        yield


def _show_links() -> None:
    """Navigation for a page that Streamlit runs without app.py.

    It does so for a link that is opened before any other page since the app's start.
    """
    try:
        with st.container(horizontal=True, key="navigation"):
            for file, label in _LINKS.items():
                st.page_link(file, label=label, width="content")
    except StreamlitAPIException:  # the page was started alone: there are no others
        return


@contextmanager
def errors_as_sentences():
    """Shows an error in place, for pages and for fragments and dialogs, which run on their own."""
    try:
        yield
    except ItdaError as error:
        st.error(sentence(error))
    except Exception as error:
        if told := system_error(error, data_directory()):
            st.error(sentence(told))
            return
        tell_error("page-failed", error)
        st.error(
            "This page could not be shown: "
            f"{literal(type(error).__name__)}: {literal(str(error)[:300])}. Nothing stored was "
            "changed. Reload the page; the terminal that runs the explorer shows where it failed.",
        )


def or_sentence(ask: Callable, *arguments: Any, **fields: Any) -> Any:
    """What `ask` gives; None, with a sentence on the page, where that is wrong."""
    try:
        return ask(*arguments, **fields)
    except InputError as error:
        st.warning(sentence(error))
        return None


def nothing_yet() -> None:
    """What a page shows while there is no dictionary: where to get one."""
    active = explorer().queue.active()
    if active:
        st.info("The first dictionary is being trained. It appears here as soon as it is done.")
        st.page_link("pages/overview.py", label="Watch it on the Overview page")
    else:
        st.info("There is no dictionary yet. The demo trains one in a minute or two.")
        st.page_link("pages/overview.py", label="Start the demo on the Overview page")
