"""The lines that a page offers print the numbers that it shows, in a process of their own."""

import os
import re
import subprocess
import sys

from itda_core.analysis.what_if import Edit
from pages.components.decompose import what_if as what_if_panel
from pages.components.reproduce import what_if_lines
from tests.support.app import metrics, newest, open_page

TEXT = 'The "Senate" will\nratify \\n the treaty 👩‍👩‍👧.'


def printed(lines):
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def offered(app):
    return next(code.value for code in app.code if code.value.startswith(("import", "from")))


def test_the_lines_of_a_latent_print_what_its_card_shows(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5", kind="all")
    out = printed(offered(app))
    shown = metrics(app)
    assert f"({shown['tokens that use it']})" in out
    assert f"strongest coefficient {shown['strongest coefficient']}," in out
    used = next(one.value for one in app.caption if one.value.startswith("Used on"))
    tokens, negative = re.match(r"Used on ([\d,]+) of .*negative on ([\d,]+)\.", used).groups()
    assert f"used on {tokens} of" in out
    assert f"negative on {negative}" in out
    source = run.dictionary().sources.loc[5]
    assert f"{source['token']!r} {source['prompt_id']} {source['position']}" in out


def test_the_lines_of_a_text_print_what_the_page_shows(data):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, l0="3")
    out = printed(offered(app))
    shown = metrics(app)
    assert out.startswith(
        f"{shown['tokens decomposed']} tokens, {shown['left unexplained']} left unexplained\n"
    )


def test_the_lines_of_what_if_print_what_the_panel_shows(data, monkeypatch):
    run = newest(data, 2)

    def edited(table, **_options):  # AppTest can't type into the table
        return table.assign(factor=[0.0, *table["factor"].iloc[1:]])

    monkeypatch.setattr(what_if_panel.st, "data_editor", edited)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if")
    lines = [code.value for code in app.code if "what_if(" in code.value]
    out = printed(lines[0])
    shown = metrics(app)
    assert float(shown["KL of the edit"]) > 0
    assert f"KL of the edit {shown['KL of the edit']}\n" in out
    assert f"KL of the reconstruction {shown['KL of the reconstruction']}\n" in out


def test_an_edit_is_written_as_the_line_that_makes_it():
    edits = (Edit(3, 0.0), Edit(4, 1.0, 7, (2,)))
    assert f"edits = {list(edits)!r}" in what_if_lines("runs/one", "a", 2, edits, 1, "activation")
    assert eval(repr(list(edits)), {"Edit": Edit}) == list(edits)
