"""The table of dictionaries on Overview: what a row opens, and what else its button has."""

from itda_core.runs.run import list_runs
from pages.components.overview import dictionaries as dictionaries_table
from tests.support.app import assert_no_failure, drawn, newest, open_page


def press(app, monkeypatch, run_id):
    """*More* of a row: AppTest knows no components of the project's own."""
    shown, pressed = dictionaries_table.show_latent_rows, [("more", run_id)]

    def show(*arguments, **options):
        shown(*arguments, **options)
        return pressed.pop() if pressed else None

    monkeypatch.setattr(dictionaries_table, "show_latent_rows", show)
    app.run()
    monkeypatch.setattr(dictionaries_table, "show_latent_rows", shown)
    assert_no_failure(app)


def test_a_row_opens_the_latents_of_its_dictionary(data):
    places = drawn(open_page("overview"), "runs")["places"]
    assert places == {run.run_id: {"run": run.run_id} for run in list_runs(data / "runs")}


def test_more_has_what_else_can_be_done_with_a_dictionary_until_it_is_pressed_again(
    data, monkeypatch
):
    app, run_id = open_page("overview"), newest(data, 2).run_id
    labels = ("Its latents", "Decompose with it", "Evaluate it")

    def links():
        return [one.proto.label for one in app.get("page_link") if one.proto.label in labels]

    assert not links()
    press(app, monkeypatch, run_id)
    assert links() == list(labels)
    assert app.text_input(key=f"name_{run_id}").label == "Name"
    assert app.button(key=f"move_{run_id}")
    rows = {row["run_id"]: row["pressed"] for row in drawn(app, "runs")["rows"]}
    assert [one for one, pressed in rows.items() if pressed] == [run_id]
    press(app, monkeypatch, run_id)
    assert not links()


def test_the_fvu_is_said_to_be_of_held_out_tokens(data):
    titles = [column["title"] for column in drawn(open_page("overview"), "runs")["columns"]]
    assert "held-out FVU" in titles
