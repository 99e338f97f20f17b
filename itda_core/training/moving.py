"""A dictionary in another model, or at another layer: a training whose atoms are known beforehand.

It reads the explored prompts, as the run did that it is from, and those prompts with a source that
are not among them, up to the last source. All else is as in a training: windows, checkpoints, codes
of the explored tokens, measures of held-out ones, a run directory for each layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from itda_core.activations.plan import Plan, make_plan
from itda_core.activations.source_places import Reading, SourcePlaces, find_sources
from itda_core.config import ModelSpec, Origin, TrainConfig
from itda_core.corpus.corpus import Corpus, Prompt, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.moving import (
    MovedSources,
    check_can_move,
    check_texts,
    is_same_tokenizer,
    texts_of,
)
from itda_core.errors import InputError, ItdaError
from itda_core.model.model import Model
from itda_core.progress import Progress
from itda_core.runs.run import Run, read_run
from itda_core.settings import MOVED, RESID_POST
from itda_core.tables import read_frame


def move(
    run: Run,
    model: ModelSpec,
    layers: Sequence[int],
    runs: Path,
    site: str = RESID_POST,
    device: str | None = None,
    memory: int | None = None,
) -> Iterator[Progress]:
    """Write a run for each layer whose latents are those of `run`, in another model or at another
    layer, yielding progress as a training does.

    runs: the folder that they are written into; device, memory: as `load_model` takes them. What
    is already written is not made again, and what was interrupted goes on. Raises InputError for an
    imported autoencoder, ItdaError with the remedy.
    """
    from itda_core.training.trainer import train  # which makes a move's plan by this module

    yield from train(move_config(run, model, layers, site), runs, device, memory, origin=run)


def moved_model(
    run: Run, name: str | None = None, revision: str | None = None, dtype: str = "auto"
) -> ModelSpec:
    """Where to, as a person says it: what is left out is the run's own."""
    own = run.config.model
    if name in (None, own.name):
        return ModelSpec(own.name, revision or own.revision, dtype)
    return ModelSpec(name, revision, dtype)


def move_config(
    run: Run,
    model: ModelSpec,
    layers: Sequence[int],
    site: str = RESID_POST,
    dictionary: Dictionary | None = None,
) -> TrainConfig:
    """The settings of a move: those of `run`, but for the model and where in it. dictionary: that
    of the run, where it is loaded already. Raises InputError for an imported autoencoder."""
    dictionary = dictionary or run.dictionary()
    check_can_move(dictionary)
    config = run.config
    origin = Origin(
        run.run_id,
        dictionary.digest,
        config.model.name,
        run.layer,
        run.site,
        config.model.revision,
        config.moved_from,
    )
    return config.but(
        model=model,
        layers=tuple(layers),
        site=site,
        selection=MOVED,
        offset="mean" if dictionary.offset.any() else "zero",
        pursuit=dictionary.pursuit,
        seed=max(0, config.seed),  # earlier versions knew seeds below 0
        activations=None,
        moved_from=origin,
    )


def check_elsewhere(run: Run, model: ModelSpec, layers: Sequence[int], site: str) -> None:
    """Raises InputError where a run would be moved to where it is, which a person hardly means."""
    own = run.config.model
    is_own = (model.name, model.revision, site) == (own.name, own.revision, run.site)
    if is_own and run.layer in layers:
        raise InputError(f"It is of layer {run.layer} already. Choose another layer or model.")


def tokens_read(run: Run) -> int:
    """About how many activations a move of `run` reads of each layer: the explored ones, and of
    other prompts with a source all up to the last."""
    prompts = read_frame(run.directory / "prompts.parquet", columns=["prompt_id", "explored"])
    explored = set(prompts["prompt_id"][prompts["explored"]])
    sources = read_frame(run.directory / "sources.parquet", columns=["prompt_id", "position"])
    last = sources.groupby("prompt_id")["position"].max() + 1 - run.config.skip_first
    return int(run.metrics["explored_tokens"] + last[~last.index.isin(explored)].sum())


@dataclass(frozen=True)
class Move:
    """What a move takes from the run that it is from."""

    run: Run
    dictionary: Dictionary

    @classmethod
    def of(cls, config: TrainConfig, runs: Path, run: Run | None = None) -> "Move":
        """run: the one that `config` names, by default looked for in `runs`. Raises InputError
        where it is gone, or another one now."""
        origin = config.moved_from
        try:
            run = run or read_run(runs / origin.run_id)
        except ItdaError as error:
            raise InputError(
                f"The run {origin.run_id}, whose dictionary is to be moved, can't be read in "
                f"{runs}: {error} Begin the move anew with its directory."
            ) from error
        dictionary = run.dictionary()
        check_can_move(dictionary)
        if dictionary.digest != origin.digest:
            raise InputError(
                f"{run.run_id} is not the dictionary any more that was to be moved. Begin the move "
                "anew."
            )
        return cls(run, dictionary)

    def corpus(self, config: TrainConfig) -> Corpus:
        """The corpus that the run was made of; where that is not here, or another one now, the
        run's own prompts, so that nothing is held out."""
        recorded = self.run.about.get("corpus_digest")
        why = self.run.why_no_held_out
        try:
            corpus = load_corpus(config.corpus).as_before(recorded)
            why = why or self._why_not_held_out(corpus)
            if recorded in (None, corpus.digest) and not why:
                return corpus
            why = why or f"The corpus {corpus.name} has changed since {self.run.run_id} was made."
        except ItdaError as error:
            why = why or str(error)
        return RunCorpus(
            config.corpus.name, tuple(self.prompts()), spec=config.corpus, why=why, whose=recorded
        )

    def _why_not_held_out(self, corpus: Corpus) -> str:
        """Where the run read prompts that the corpus holds out, as one from a folder may."""
        known = {*self.dictionary.prompt_ids}
        if n_read := sum(prompt.prompt_id in known for prompt in corpus.held_out()):
            return f"{self.run.run_id} read {n_read:,} of the prompts that {corpus.name} holds out."
        return ""

    def prompts(self) -> list[Prompt]:
        """Those that the run read, in their order."""
        table = read_frame(
            self.run.directory / "prompts.parquet", columns=["prompt_id", "text", "title"]
        )
        return [Prompt(*row) for row in table.itertuples(index=False)]

    def plan(self, model: Model, corpus: Corpus, config: TrainConfig) -> tuple[Plan, MovedSources]:
        """What is read: the explored prompts, then those with a source that are not among them."""
        explored = _explored(model, corpus, config)
        places = self._places(model, explored)
        prompt_of = {prompt.prompt_id: prompt for prompt in self.prompts()}
        readings, numbers = _not_among(explored, places)
        prompts = [prompt_of[reading.prompt_id] for reading in readings]
        plan = explored.with_sources(prompts, [reading.text for reading in readings])
        plan.prompt_ids = list(self.dictionary.prompt_ids)
        about = self.run.about
        passed_on = {name: about[name] for name in _MADE_ELSEWHERE if name in about}
        rows = _rows(plan, places, numbers)
        return plan, MovedSources(self.dictionary, rows, places.why, passed_on)

    def _places(self, model: Model, explored: Plan) -> SourcePlaces:
        """Where the sources are in the tokens of the model. Raises InputError where none has one,
        RunError where their texts are not there."""
        texts = texts_of(self.dictionary)
        check_texts(self.dictionary, texts)
        how = explored.context_length, explored.skip_first
        is_same = is_same_tokenizer(self.dictionary, model)
        places = find_sources(self.dictionary.sources, texts, model, *how, is_same)
        if not places.readings:
            whys = "; ".join(dict.fromkeys(places.why.values()))
            raise InputError(f"No source of {self.run.run_id} has a token in {model.name}: {whys}.")
        return places


_MADE_ELSEWHERE = ("origin",)
"""What says of a run that it was made of texts that may be held out here: so it is of one moved
from it"""


@dataclass(frozen=True)
class RunCorpus(Corpus):
    """The prompts of a run whose corpus is not here: none of them is held out."""

    why: str = ""
    whose: str | None = None
    """the digest of the corpus that is not here"""

    @property
    def digest(self) -> str:
        return self.whose or super().digest

    @property
    def identity(self) -> str:
        return f"{self.digest} prompts of a run"

    @property
    def notes(self) -> list[str]:
        return [
            f"{self.why} So the explored tokens are those of the run's own prompts, and nothing is "
            "held out to measure the FVU on: `itda evaluate` does, with --corpus."
        ]

    def held_out(self) -> list[Prompt]:
        return []

    def training(self, seed: int) -> list[Prompt]:  # noqa: ARG002
        return list(self.prompts)


def _explored(model: Model, corpus: Corpus, config: TrainConfig) -> Plan:
    """What is encoded for browsing, the first tokens as in any training."""
    explored = min(config.explored_tokens, config.max_tokens)
    if explored:
        return make_plan(model, corpus.training(config.seed), config, explored)
    longest = min(config.context_length, model.context_length)
    return Plan(longest, config.skip_first, model.tokenizer)


def _not_among(plan: Plan, places: SourcePlaces) -> tuple[list[Reading], np.ndarray]:
    """The readings that a plan does not have, and the prompt's number of each reading once they are
    added, [n_readings] int64."""
    planned = {prompt.prompt_id: number for number, prompt in enumerate(plan.prompts)}
    readings, numbers = [], []
    needed = np.zeros(len(places.readings), np.int64)
    has_one = places.reading >= 0
    np.maximum.at(needed, places.reading[has_one], places.position[has_one] + 1)
    for length, reading in zip(needed.tolist(), places.readings, strict=True):
        there = planned.get(reading.prompt_id)
        # One that is read beyond the context length may have other tokens than the one planned.
        if there is not None and not reading.is_further and length <= len(plan.texts[there]):
            numbers.append(there)
        else:
            numbers.append(len(plan.prompts) + len(readings))
            readings.append(reading)
    return readings, np.array(numbers)


def _rows(plan: Plan, places: SourcePlaces, numbers: np.ndarray) -> np.ndarray:
    """The row of each source in a plan, −1 where it has no token, [n_sources] int64. numbers: of
    each reading the number of its prompt in the plan."""
    starts = np.cumsum(plan.rows) - plan.rows
    rows, has_one = np.full(len(places.reading), -1), places.reading >= 0
    firsts = starts[numbers[places.reading[has_one]]] - plan.skip_first
    rows[has_one] = firsts + places.position[has_one]
    return rows
