"""Pages opened by AppTest, and what is looked for on them."""

import base64
import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from itda_core.runs.run import list_runs
from pages.components import explorer as explorer_module

REPOSITORY = Path(__file__).resolve().parents[2]
# Every AppTest looks through all installed packages for components; they stay what they are.
manifest_scanner.scan_component_manifests = functools.cache(
    manifest_scanner.scan_component_manifests
)

SPECIAL = [
    "A family 👩‍👩‍👧 and a cafe\u0301 by the river Ω, all in one line of text.",
    "שלום עולם, this line runs from right to left and back مرحبا بالعالم again.",
    "<script>alert('x')</script> <b>bold</b> &amp; [link](http://example.com) :red[no]",
    "**stars** _under_ `code` $x^2$ ~~gone~~ # heading | pipe ![image](x.png)",
    "first line\nsecond line\r\nthird\tline with a tab \\ and a backslash",
    "word " * 4_000,
]


def open_page(name, **query):
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.switch_page(f"pages/{name}.py")
    app.run()
    assert_no_failure(app)
    return app


def open_page_anyhow(name):
    """The errors and warnings that a page shows, whatever has become of the data folder."""
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page(f"pages/{name}.py")
    app.run()
    failed = [f"Traceback {one.value}" for one in app.exception]
    return [*failed, *(one.value for one in app.error), *(one.value for one in app.warning)]


def close_explorer():
    """Stop its queue and forget what is in memory, so that the next test opens its own folder."""
    explorer_module.explorer().close()
    st.cache_resource.clear()
    st.cache_data.clear()


def assert_no_failure(app):
    assert not app.exception
    assert not [error.value for error in app.error]


def newest(folder, layer):
    return next(run for run in list_runs(folder / "runs") if run.layer == layer)


def metrics(app):
    return {metric.label: metric.value for metric in app.metric}


def numbers(values):
    """Plotly sends arrays as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return values


def button(app, label):
    return next(one for one in app.button if one.label.startswith(label))


def drawn(app, key):
    """The data of the component of the project's own with this key, as the browser gets it; None
    where there is none."""
    found = [
        json.loads(proto.json) for proto in _components(app.main) if proto.id.endswith(f"-{key}")
    ]
    return found[-1] if found else None


def rows_of(app, key):
    """The rows of a table of latents, by its key."""
    return pd.DataFrame(drawn(app, key)["rows"])


def _components(node):
    for child in getattr(node, "children", {}).values():
        if getattr(child, "type", "") == "bidi_component":
            yield child.proto
        yield from _components(child)


def table_with(app, column):
    """The first table that has a column, drawn by Streamlit or by the project's own component."""
    tables = [one.value for one in app.dataframe]
    for proto in _components(app.main):
        data = json.loads(proto.json or "null")
        if isinstance(data, dict) and data.get("rows") and "columns" in data:
            tables.append(pd.DataFrame(data["rows"]))
    return next(table for table in tables if column in table)


def dictionaries(app):
    """The table of dictionaries on Overview."""
    return table_with(app, "run_id")
