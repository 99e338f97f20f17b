"""What the Train page tells of the chosen model before anything is trained on it."""

import pytest

from pages.components import explorer as explorer_module
from pages.components.train import fields
from tests.support.app import close_explorer, open_page
from tests.support.tiny_models import save_tiny_model
from tools.model_types.listing import find_types
from tools.model_types.tiny import save_tiny


@pytest.fixture
def train(data_folder, monkeypatch):
    """The Train page with a model folder chosen, as if it were among the models that are known: in
    a browser its path is typed."""

    def choose(folder):
        names = ["minilm-l6", str(folder)]
        known = [{"model": name, "where": "hub cache", "description": ""} for name in names]
        monkeypatch.setattr(fields, "known_models", lambda: known)
        app = open_page("train")
        app.selectbox(key="dtype").set_value("float32")
        app.selectbox(key="model").set_value(str(folder))
        return app.run()

    yield choose
    close_explorer()


def button(app, label):
    return next(one for one in app.button if one.label == label)


def proved(app):
    return next(one.label for one in app.expander if one.label.startswith("Proved"))


def test_of_a_model_that_was_not_loaded_its_type_is_told_and_then_what_it_proved(train, tmp_path):
    app = train(save_tiny_model(tmp_path))
    assert proved(app) == "Proved for models of this type: everything"
    button(app, "Check this model now").click().run()
    assert proved(app) == "Proved for this model: everything"
    assert "used in `float32`" in "".join(one.value for one in app.caption)
    assert not [one for one in app.button if one.key == "check_model"]


def test_an_encoder_is_said_to_be_one(train, tmp_path):
    app = train(save_tiny_model(tmp_path, "bert"))
    button(app, "Check this model now").click().run()
    assert proved(app) == "Proved for this model: its activations; it is used as an encoder"


def test_a_model_that_is_refused_starts_nothing(train, tmp_path):
    [one] = find_types("squeezebert.masked")
    save_tiny(one, tmp_path)
    app = train(tmp_path)
    assert "refused: `block 0 runs 0 times" in app.warning[0].value
    assert not button(app, "Start training").disabled  # this one may be another
    button(app, "Check this model now").click().run()
    assert "block 0 runs 0 times in a pass" in app.error[0].value
    assert button(app, "Start training").disabled


def test_a_model_that_does_not_load_says_why_until_it_is_tried_again(train, tmp_path):
    folder = save_tiny_model(tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    app = train(folder)
    button(app, "Check this model now").click().run()
    app.run()
    assert "can't be loaded as a model" in app.error[0].value
    assert button(app, "Start training").disabled
    weights.write_bytes(whole)
    button(app, "Check this model again").click().run()
    assert not app.error
    assert not button(app, "Start training").disabled


def test_a_model_is_checked_with_the_memory_that_stands_in_the_form(train, tmp_path):
    """A megabyte holds neither this model nor two of its blocks."""
    app = train(save_tiny_model(tmp_path, d_model=256, n_layers=4))
    app.text_input(key="memory").set_value("1MiB").run()
    button(app, "Check this model now").click().run()
    assert "Even block by block" in app.error[0].value
    assert button(app, "Start training").disabled
    app.text_input(key="memory").set_value("").run()
    assert not app.error
    assert not button(app, "Start training").disabled


def test_of_a_model_with_two_parts_the_encoder_is_offered_at_once(train, tmp_path):
    [one] = find_types("t5.seq2seq")
    save_tiny(one, tmp_path)
    app = train(tmp_path)
    assert "has an encoder and a decoder" in app.error[0].value
    assert button(app, "Start training").disabled


def test_a_place_that_the_model_was_proved_to_lack_starts_nothing_and_says_why(
    train, tmp_path, monkeypatch
):
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    app = train(save_tiny_model(tmp_path, "gpt_neox"))
    app.selectbox(key="site").set_value("resid_mid").run()
    assert "tried before the training starts" in "".join(one.value for one in app.caption)
    assert not button(app, "Start training").disabled
    button(app, "Check this model now").click().run()
    site = app.selectbox(key="site")
    assert "attention and MLP read the same stream" in app.warning[0].value
    assert button(app, "Start training").disabled
    assert [label for label in site.options if "(not in this model)" in label] == [
        "resid_mid: the stream between attention and MLP (not in this model)"
    ]
    site.set_value("mlp_out").run()
    assert not app.warning
    button(app, "Start training").click().run()
    queue = explorer_module.explorer().queue
    assert [queue.config(job).site for job in queue.jobs()] == ["mlp_out"]
