"""A dictionary as files for other programs."""

from pathlib import Path

import streamlit as st

from itda_core.errors import ItdaError
from itda_core.runs.run import read_run
from pages.components.cached import loaded_dictionary
from pages.components.text import literal


def show_exchange(run) -> None:
    """Downloads of one dictionary, made when they are clicked. run: a row of Store.runs.table()."""
    # Here, since they bring torch in: the table of dictionaries is drawn without.
    from itda_core.dictionary.dictionary import FILE_NAME
    from itda_core.exchange.export import export_zip
    from itda_core.exchange.saelens import saelens_note

    directory = Path(run.directory)
    st.markdown("##### Export")
    try:
        note = saelens_note(loaded_dictionary(str(directory)))
    except ItdaError as error:
        st.warning(literal(str(error)))
        return
    folder, file, _ = st.columns([1, 1, 2])
    folder.download_button(
        "SAELens folder (zip)",
        data=lambda: export_zip(read_run(directory), "saelens"),
        file_name=f"{run.run_id}-saelens.zip",
        mime="application/zip",
        on_click="ignore",
        help="cfg.json and sae_weights.safetensors, which SAE.load_from_disk of sae-lens reads.",
        key=f"saelens_{run.run_id}",
        width="stretch",
    )
    file.download_button(
        "Dictionary (safetensors)",
        data=lambda: (directory / FILE_NAME).read_bytes(),
        file_name=f"{run.run_id}.safetensors",
        mime="application/octet-stream",
        on_click="ignore",
        help="Atoms, offset and sources in one file, which Dictionary.load reads.",
        key=f"dictionary_{run.run_id}",
        width="stretch",
    )
    st.caption(literal(note))
