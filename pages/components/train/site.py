"""Which place in a block is decomposed, and whether the chosen model has it."""

import streamlit as st

from itda_core.config import ModelSpec
from itda_core.devices import best_device
from itda_core.jobs.job import ANY
from itda_core.model.model_info import remembered_sites
from itda_core.model.sites import ABOUT, Sites
from itda_core.settings import RESID_POST, SETTINGS
from pages.components.text import literal


def ask_for_site(
    model: ModelSpec | None,
    device: str | None,
    memory: int | None = None,
    key: str = "site",
    usual: str = RESID_POST,
) -> str | None:
    """The chosen place; None where it was proved here that the model has none, with the reason.
    device: as a job names it, None where there is no choice; memory: bytes that the model may use,
    by which it is read block by block, and then proves its places in another way; key: of the
    field; usual: what stands there at first."""
    setting = SETTINGS["site"]
    sites = _known(model, device, memory)
    places = [*reversed(setting.choices)]
    st.session_state.setdefault(key, usual)
    site = st.selectbox(
        setting.label,
        places,
        format_func=lambda one: _label(one, sites),
        key=key,
        help=setting.advice,
    )
    if sites and (reason := sites.why_not(site)):
        st.warning(literal(f"{model.name} has no {site}: {reason}. Choose {RESID_POST}."))
        return None
    if sites is None and site != RESID_POST:
        st.caption("Whether this model has it is tried before the training starts.")
    return site


def _known(model: ModelSpec | None, device: str | None, memory: int | None) -> Sites | None:
    """What was proved here of the model's sites before."""
    if model is None:
        return None
    return remembered_sites(model, best_device() if device in (None, ANY) else device, memory)


def _label(site: str, sites: Sites | None) -> str:
    lacking = " (not in this model)" if sites and sites.why_not(site) else ""
    return f"{site}: {ABOUT[site]}{lacking}"
