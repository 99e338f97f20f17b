"""The end of a training or an import: a dictionary becomes a run directory."""

import functools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from itda_core.dictionary.dictionary import Dictionary
from itda_core.files.json_files import write_json
from itda_core.runs.rows import DeviceRows, RowFile
from itda_core.runs.run import new_run
from itda_core.runs.training_context import TrainingContext
from itda_core.tables import write_frame
from itda_core.training.encoding import Encoder, EncoderHere, write_codes
from itda_core.training.held_out import HeldOutActivations


class RunWriter:
    """Writes the run directories of one training."""

    def __init__(
        self,
        context: TrainingContext,
        encoder: Callable[[int, Dictionary], Encoder] | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
    ):
        """encoder: of a layer's dictionary, by default in this process; about: what config.json has
        to say in place of what is so here."""
        self._context, self._about_all = context, about
        here = functools.partial(EncoderHere, activations=HeldOutActivations(context))
        self._encoder = encoder or here

    def write(
        self,
        layer: int,
        dictionary: Dictionary,
        explored: RowFile | DeviceRows,
        facts: dict[str, Any],
        about: dict[str, Any] | None = None,
    ) -> None:
        """Write the run of one layer, unless it is there.

        explored: its explored activations; facts: what the training knows, for metrics.json;
        about: what else config.json has to say, of an import for example.
        """
        for _ in self.writing(layer, dictionary, explored, facts, about):
            pass

    def writing(
        self,
        layer: int,
        dictionary: Dictionary,
        explored: RowFile | DeviceRows,
        facts: dict[str, Any],
        about: dict[str, Any] | None = None,
    ) -> Iterator[None]:
        """The same, coming back now and then; closed there, it leaves nothing of the run."""
        directory = self._context.run_directory(layer)
        if self._context.is_written(layer):
            return
        with new_run(directory.parent, directory.name) as folder:
            dictionary = dictionary.to(self._context.device)
            dictionary.save(folder)
            write_frame(dictionary.source_table(), folder / "sources.parquet")
            encoder = self._encoder(layer, dictionary)
            blocks = encoder.blocks(explored)
            codes = yield from write_codes(folder, self._context, dictionary, blocks)
            write_frame(self._prompt_table, folder / "prompts.parquet")
            held_out = yield from encoder.held_out()
            metrics = {**facts, "atoms": len(dictionary), **codes, **held_out}
            write_json(folder / "metrics.json", metrics)
            write_json(
                folder / "config.json", {**self._about(layer), **self._about_all, **(about or {})}
            )
            self._copy_log(folder)
            self._context.workspace.check_mine()

    def _about(self, layer: int) -> dict[str, Any]:
        context = self._context
        return {
            "run_id": context.run_id(layer),
            "training_id": context.workspace.training_id,
            "layer": layer,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "d_model": context.model.d_model,
            "n_layers": context.model.n_layers,
            "dtype": context.model.dtype,
            "device": context.model.device.type,
            "model_digest": context.model.digest,
            "corpus_digest": context.corpus.digest,
            "put_in": context.model.put_in,
            "config": context.config.to_dict(),
        }

    @functools.cached_property
    def _prompt_table(self) -> pd.DataFrame:
        """The prompts that were read, with the character span of each token that was. One that was
        read again, further for its sources, stands there once."""
        plan = self._context.plan
        is_explored = np.cumsum(plan.rows) - plan.rows < self._context.explored_rows
        table = pd.DataFrame(
            {
                "prompt_id": [prompt.prompt_id for prompt in plan.prompts],
                "text": [prompt.text for prompt in plan.prompts],
                "title": [prompt.title for prompt in plan.prompts],
                "explored": is_explored,
                "starts": [text.spans[:, 0] for text in plan.texts],
                "ends": [text.spans[:, 1] for text in plan.texts],
            }
        )
        return table if not plan.for_sources else each_once(table)

    def _copy_log(self, folder: Path) -> None:
        log = self._context.workspace.log
        content = log.read_bytes() if log.exists() else b""
        (folder / "progress.jsonl").write_bytes(content)


def each_once(prompts: pd.DataFrame) -> pd.DataFrame:
    """Each prompt in its first place, as far as any row of it was read.

    prompts: prompt_id, explored, starts and ends, one row a reading. Where a prompt was explored,
    codes are of that reading's tokens, so that these keep their spans: a mark that closes a cut
    text stands where the longer reading has a word.
    """
    longest = prompts["starts"].map(len).groupby(prompts["prompt_id"], sort=False).idxmax()
    table = prompts.loc[longest.to_numpy()].reset_index(drop=True)
    explored = prompts[prompts["explored"]].set_index("prompt_id")
    for name in ("starts", "ends"):
        first = explored[name].reindex(table["prompt_id"])
        table[name] = [
            read if isinstance(own, float) else np.concatenate([own, read[len(own) :]])
            for own, read in zip(first, table[name], strict=True)
        ]
    return table.assign(explored=table["prompt_id"].isin(explored.index))
