"""What the Similarity page compares: its widgets, which follow the link and write it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import streamlit as st

from itda_core.config import layer_in_words
from itda_core.glossary import GLOSSARY
from itda_core.similarity.measures import ALL_MEASURES, JACCARD, Measure
from pages.components.similarity.model_groups import Group
from pages.components.similarity.overlaps import RunSide, have_one_tokenizer
from pages.components.text import literal
from pages.components.url import follow_url, follow_url_list, write_url

_KEYS = {"token": "token (same tokenizer)", "word": "word (any tokenizers)"}
_VIEWS = {
    "layers": "Layer by layer",
    "models": "Whole models",
    "latents": "Same latents in two dictionaries",
}
_ONE_MODEL = (
    "There is one model only, so that its layers are compared with each other. Train a second one "
    "on the same corpus to compare the two: on the Train page, or with “Train what is missing” "
    "below."
)
_ORDERS = {"original": "Original", "clustered": "Alike together"}
_MOST_MODELS = 12
"""Whole models that are chosen at first"""


@dataclass(frozen=True)
class Item:
    """One row or column."""

    value: Hashable
    """as it stands in a link: a layer, or a group's id"""
    tick: str
    """at the axis"""
    name: str
    """in sentences"""
    side: RunSide
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What is compared, and how it is shown."""

    view: str
    groups: tuple[Group, ...]
    """A and B, or the models"""
    rows: tuple[Item, ...]
    columns: tuple[Item, ...]
    kind: Measure
    key: str
    seeds: bool
    order: str
    stretch: bool

    @property
    def is_same(self) -> bool:
        """Whether rows and columns are the same things."""
        return [item.run_ids for item in self.rows] == [item.run_ids for item in self.columns]


def ask_for_view(place) -> str:
    """What is compared: layers, whole models, or latents one by one."""
    return _segmented(place, "Compare", _VIEWS, "view")


def ask(groups: dict[str, Group], view: str, place) -> Choice | None:
    """Show the widgets; None where too little is chosen to compare. view: layers or models; place:
    where the measure is asked for."""
    kind = _ask_for_kind(place)
    chosen = _ask_for_two(groups) if view == "layers" else _ask_for_models(groups)
    _warn_of_sites(chosen, "AB" if view == "layers" else [group.name for group in chosen])
    key, seeds, order, stretch = _ask_how(kind, chosen)
    if not chosen:
        st.info("Choose at least one model.")
        return None
    if view == "layers":
        rows, columns = (
            _layer_items(group, letter) for group, letter in zip(chosen, "AB", strict=True)
        )
    else:
        rows = columns = tuple(
            Item(group.group_id, group.name, group.name, group.side, group.run_ids)
            for group in chosen
        )
    return Choice(view, tuple(chosen), rows, columns, kind, key, seeds, order, stretch)


def _warn_of_sites(chosen: list[Group], names: Sequence[str]) -> None:
    """Says it where not all are of the same place in a block."""
    sites = list(dict.fromkeys(group.config.site for group in chosen))
    if len(sites) > 1:
        pairs = zip(names, chosen, strict=True)
        named = ", ".join(f"{name} of {group.config.site}" for name, group in pairs)
        st.warning(
            literal(
                f"These are of several places in a block: {named}. They tell different things of "
                "the same tokens, so that low values are to be expected."
            )
        )


def _layer_items(group: Group, letter: str) -> tuple[Item, ...]:
    # Every layer is compared with every layer, so each stands at the same place of its side.
    return tuple(
        Item(
            layer,
            str(layer),
            " ".join(filter(None, [letter, layer_in_words(layer, group.config.site), given])),
            ((0, directory),),
            (run_id,),
        )
        for layer, directory, run_id, given in zip(
            group.layers, group.directories, group.run_ids, group.given, strict=True
        )
    )


def _segmented(place, label: str, options: dict[str, str], name: str, **more) -> str:
    follow_url(name, list(options))
    chosen = place.segmented_control(
        label, list(options), format_func=options.get, key=name, required=True, **more
    )
    write_url(name, chosen)
    return chosen


def _ask_for_kind(place) -> Measure:
    all_kinds = ALL_MEASURES
    follow_url("measure", list(all_kinds))
    name = place.selectbox(
        "Measure",
        list(all_kinds),
        format_func=lambda name: all_kinds[name].title,
        key="measure",
        help=f"Jaccard index: {GLOSSARY['Jaccard index']} It is there at once, since latents are "
        "tokens. Other measures are computed from activations, in the background.",
    )
    write_url("measure", name)
    return all_kinds[name]


def _ask_for_two(groups: dict[str, Group]) -> list[Group]:
    ids = list(groups)
    if len(ids) == 1:
        if len(groups[ids[0]].layers) > 1:
            st.caption(_ONE_MODEL)
        return [groups[ids[0]]] * 2
    places = st.columns(2)
    for place, name in zip(places, ("a", "b"), strict=True):
        first = ids if name == "a" else _likely_partners(groups, st.session_state["a"])
        follow_url(name, first)
        place.selectbox(
            f"Model {name.upper()}",
            ids,
            format_func=lambda group_id: groups[group_id].long_name,
            key=name,
            help=None if name == "a" else "The same as A compares the layers of one model.",
        )
        write_url(name, st.session_state[name])
    return [groups[st.session_state[name]] for name in ("a", "b")]


def _likely_partners(groups: dict[str, Group], a: str) -> list[str]:
    """All groups, first one that was trained like A, else A itself."""

    def is_like(group: Group) -> bool:
        one, other = group.config, groups[a].config
        return group.group_id != a and (one.corpus, one.seed, one.selection, one.site) == (
            other.corpus,
            other.seed,
            other.selection,
            other.site,
        )

    first = next((group_id for group_id, group in groups.items() if is_like(group)), a)
    return [first, *(group_id for group_id in groups if group_id != first)]


def _ask_for_models(groups: dict[str, Group]) -> list[Group]:
    ids = list(groups)
    follow_url_list("models", ids, _of_one_site(groups)[:_MOST_MODELS])
    chosen = st.multiselect(
        "Models",
        ids,
        format_func=lambda group_id: groups[group_id].name,
        key="models",
        placeholder="Choose models",
    )
    write_url("models", ",".join(chosen) if chosen else None)
    with st.expander("Settings and layers of these models"):
        for group_id in chosen:
            st.caption(literal(f"{groups[group_id].name}: {groups[group_id].long_name}"))
    return [groups[group_id] for group_id in chosen]


def _of_one_site(groups: dict[str, Group]) -> list[str]:
    """The groups that are of the same place in a block as the first one: others are compared with
    them where a person names them."""
    site = next((group.config.site for group in groups.values()), None)
    return [group_id for group_id, group in groups.items() if group.config.site == site]


def _ask_how(kind: Measure, chosen: list[Group]) -> tuple[str, bool, str, bool]:
    places = st.columns([2, 1.4, 1.4], vertical_alignment="bottom")
    # The Jaccard index alone asks how sources are matched; what follows moves up where it doesn't.
    key_place, order_place, switches = places if kind is JACCARD else (None, *places[:2])
    key = _ask_for_key(key_place, chosen) if key_place else "token"
    order = _segmented(
        order_place,
        "Order",
        _ORDERS,
        "order",
        help="Alike together: rows and columns by average linkage, so that groups stand out.",
    )
    stretch = _switch(
        switches,
        "Stretch colours to the values",
        "stretch",
        "Colours normally span the whole range of the measure, so that two matrices can be "
        "compared by eye.",
    )
    seeds = False
    if kind is JACCARD and any(group.config.selection == "threshold" for group in chosen):
        seeds = _switch(
            switches,
            "Count the first d_model atoms",
            "seeds",
            f"{GLOSSARY['seed atoms']} They are the same whatever the model, which lifts every "
            "value. They are left out unless this is on.",
        )
    return key, seeds, order, stretch


def _ask_for_key(place, chosen: list[Group]) -> str:
    directories = [group.directories[0] for group in chosen]
    likely = ["token", "word"] if have_one_tokenizer(directories) else ["word", "token"]
    proposed = st.session_state.get("_likely_key")
    if proposed not in (None, likely[0]) and st.session_state.get("key") == proposed:
        st.session_state["key"] = likely[0]  # the other was proposed for other models
    st.session_state["_likely_key"] = likely[0]
    follow_url("key", likely)
    key = place.segmented_control(
        "Match sources by",
        list(_KEYS),
        format_func=_KEYS.get,
        key="key",
        required=True,
        help="By token: the same token position in the same prompt. By word: the white-space word "
        "that holds the token, which works for models that split text differently.",
    )
    write_url("key", key)
    return key


def _switch(place, label: str, name: str, explanation: str) -> bool:
    follow_url(name, [False, True])
    chosen = place.toggle(label, key=name, help=explanation)
    write_url(name, chosen or None)
    return chosen
