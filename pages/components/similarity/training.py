"""Training of what a comparison lacks: other models and layers at the settings of a group."""

from pathlib import Path

import streamlit as st

from itda_core.config import ModelSpec, TrainConfig
from itda_core.jobs.estimate import estimate
from itda_core.model.built_in import BUILT_IN
from itda_core.model.model_info import known_models, model_shape
from pages.components.explorer import explorer
from pages.components.exposure import check_no_path
from pages.components.frame import errors_as_sentences
from pages.components.job_offer import answer
from pages.components.similarity.model_groups import Group
from pages.components.text import literal, seconds_text


@st.fragment
def offer_training(groups: dict[str, Group], chosen: tuple[Group, ...]) -> None:
    """A popover that trains a model, or more layers of one, with the settings of a group."""
    templates = {group.group_id: group for group in chosen if group.is_trained_here}
    if not templates:
        return
    # What it holds takes longer to work out than the matrix, and is seldom looked at.
    popover = st.popover("Train what is missing", on_change="rerun", key="train_missing")
    if not popover.open:
        return
    with popover, errors_as_sentences():
        st.markdown(
            "Dictionaries compare best when all is the same but the model: corpus, settings and "
            "seed are taken over."
        )
        template = templates[
            st.selectbox(
                "Settings of",
                list(templates),
                format_func=lambda group_id: templates[group_id].title,
                key="train_like",
            )
        ]
        config = _ask(groups, template)
        if config is None:
            st.button("Train", type="primary", disabled=True)
            return
        _submit(config)


def _ask(groups: dict[str, Group], template: Group) -> TrainConfig | None:
    """The training that is asked for; None where nothing is chosen or nothing is missing."""
    own = template.config.model.name
    names = [known["model"] for known in known_models() if known["where"] != "not installed"]
    others = [name for name in names if not _layers_there(groups, template, _spec(template, name))]
    names = list(dict.fromkeys([*others, *names, own]))
    name = st.selectbox(
        "Model",
        names,
        format_func=lambda name: f"{name} (no dictionary yet)" if name in others else name,
        accept_new_options=True,
        key="train_model",
        help="Type the name of a hub model, such as EleutherAI/pythia-70m, or a folder's path.",
    )
    if name != own:
        check_no_path(name)
    model = _spec(template, name, _ask_for_revision(name))
    there = _layers_there(groups, template, model)
    missing = [layer for layer in range(_depth(template, model)) if layer not in there]
    if not missing:
        st.caption(f"Every layer of {literal(name)} has a dictionary at these settings.")
        return None
    wanted = _wanted(groups, template, missing)
    layers = st.multiselect(
        "Layers", missing, default=wanted, key=f"train_layers_{template.group_id}_{model}"
    )
    if there:
        st.caption(f"There already: layers {', '.join(f'{layer:d}' for layer in sorted(there))}.")
    if not layers:
        return None
    return template.config.but(model=model, layers=tuple(layers))


def _ask_for_revision(name: str) -> str | None:
    """The revision of a hub model: its training checkpoints compare like models."""
    if name in BUILT_IN or Path(name).is_absolute():
        return None
    revision = st.text_input(
        "Revision",
        key="train_revision",
        placeholder="the newest",
        help="Branch, tag or commit: a training checkpoint such as step1000.",
    )
    return revision.strip() or None


def _spec(template: Group, name: str, revision: str | None = None) -> ModelSpec:
    own = template.config.model
    if name == own.name and revision is None:
        return own
    return ModelSpec(name, revision, own.dtype)


def _depth(template: Group, model: ModelSpec) -> int:
    if model.name == template.config.model.name:
        return template.n_layers
    shape = model_shape(model)
    return shape.n_layers if shape else max(template.layers) + 1


def _layers_there(groups: dict[str, Group], template: Group, model: ModelSpec) -> set[int]:
    """The layers of a model that have a dictionary at the settings of a group."""
    wanted = template.config.but(model=model)
    return {layer for group in groups.values() if group.config == wanted for layer in group.layers}


def _wanted(groups: dict[str, Group], template: Group, missing: list[int]) -> list[int]:
    """Layers that other models at these settings have; else some at equal distances."""
    elsewhere = {
        layer
        for group in groups.values()
        if group.config.but(model=template.config.model) == template.config
        for layer in group.layers
    }
    common = [layer for layer in missing if layer in elsewhere]
    quarter = max(1, len(missing) // 4)
    return common or missing[quarter::quarter][:3] or missing[:1]


def _submit(config: TrainConfig) -> None:
    guess = estimate(config)
    label = "Train" if guess is None else f"Train (about {seconds_text(guess.seconds)})"
    active = explorer().queue.active()
    if any(explorer().queue.config(job) == config for job in active):
        st.info("This training is under way.")
    elif st.button(label, type="primary"):
        answer(explorer().queue.submit(config))
