"""Which Ray cluster trains, in place of this machine."""

import streamlit as st

from itda_core.cluster.address import checked_address
from itda_core.errors import InputError
from itda_core.glossary import GLOSSARY


def ask_for_cluster(source: str) -> str:
    """The address that was typed; empty where this machine trains. source: what is read, as
    `ask_for_source` gives it. Raises InputError where it is no address, or can't be used."""
    is_typed = bool(st.session_state.get("ray"))
    with st.expander("Train on a Ray cluster", expanded=is_typed):
        text = st.text_input(
            "Address",
            key="ray",
            placeholder="this machine alone",
            help=f"{GLOSSARY['cluster']} All of them share the folder of runs.",
        )
        if not text.strip():
            return ""
        address = checked_address(text)
        is_list = source == "list"
        how = (
            "Each training goes to one machine" if is_list else "Each machine takes its own device"
        )
        st.caption(
            f"{how}, this one too where it is part of the cluster. Other jobs here do not wait for "
            "it, and may then share a device with it."
        )
    if source == "folder":
        raise InputError(
            "A folder of activations is read by one machine: leave the address of the cluster "
            "empty, or put the training into a list."
        )
    return address
