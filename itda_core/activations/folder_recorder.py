"""Writes a folder of activations that another program computes, batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from itda_core.activations.folder_index import INDEX_FILE, FolderIndex, Part
from itda_core.activations.folder_writer import (
    part_file,
    prompt_rows,
    tensor_name,
    write_prompts,
    write_rows,
    write_tokens,
)
from itda_core.corpus.corpus import Prompt, make_corpus
from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.tokens import TokenizedText


class FolderRecorder:
    """A folder under way: each batch of prompts becomes a part; `finish` makes it whole."""

    def __init__(self, folder: Path, index: FolderIndex, names, stored: str = "auto"):
        """index: whose activations they are, its `parts` and `tokens` left empty; names: what the
        tokenizer calls a token, by its id; stored: as in `write_rows`. Raises InputError where the
        folder has something in it, or the index names several sites: rows are of one."""
        if len(index.sites) != 1:
            raise InputError(
                f"A recorder writes the activations of one site, got {', '.join(index.sites)}. "
                "Write a folder for each."
            )
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty. Choose a new folder.")
        with disk_errors_as_sentences(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._index, self._names, self._stored = folder, index, names, stored
        self._site = index.sites[0]
        self._prompts: dict[str, Prompt] = {}
        self._texts: dict[str, TokenizedText] = {}
        self._parts: list[Part] = []
        self._tokens: list[str] = []

    def add(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[TokenizedText],
        rows: Mapping[int, torch.Tensor],
    ) -> None:
        """Write a batch. texts: the tokens of each prompt, the first position included; rows: of
        each layer, [n_rows, d_model] float32, prompt after prompt and position after position,
        without first positions where the index says so. Prompts that were added before, or have
        fewer than two tokens, have to be left out."""
        expected = (sum(len(text) - self._index.skip_first for text in texts), self._index.d_model)
        self._check(prompts, texts, rows, expected)
        number = len(self._parts)
        named = [(prompt.prompt_id, text) for prompt, text in zip(prompts, texts, strict=True)]
        tokens = f"part-{number:05d}.tokens.parquet"
        with disk_errors_as_sentences(self._folder):
            for layer in self._index.layers:
                name, file = tensor_name(layer, self._site), part_file(number, layer, self._site)
                dtype = self._index.model.dtype
                write_rows(self._folder, file, {name: rows[layer]}, self._stored, dtype)
            write_tokens(self._folder, named, self._names, self._index.skip_first, tokens)
        files = tuple(part_file(number, layer, self._site) for layer in self._index.layers)
        self._parts.append(Part(expected[0], files))
        self._tokens.append(tokens)
        self._texts.update(named)
        self._prompts.update((prompt.prompt_id, prompt) for prompt in prompts)

    def _check(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[TokenizedText],
        rows: Mapping[int, torch.Tensor],
        shape: tuple[int, int],
    ) -> None:
        for layer in self._index.layers:
            if layer not in rows or tuple(rows[layer].shape) != shape:
                found = tuple(rows[layer].shape) if layer in rows else "nothing"
                raise InputError(f"Layer {layer} has to give {shape}, got {found}.")
        known = set(self._texts)
        for prompt, text in zip(prompts, texts, strict=True):
            if prompt.prompt_id in known or len(text) < 2:
                raise InputError(f"This prompt is too short, or came before: {prompt.text!r:.60}")
            known.add(prompt.prompt_id)

    def finish(self) -> None:
        """Make the folder whole. A tenth of the prompts are held out: those that a corpus of these
        texts would hold out. Raises InputError where there are none."""
        if not self._parts:
            raise InputError(f"There are no activations to put into {self._folder / INDEX_FILE}.")
        corpus = make_corpus(str(self._folder), (one.text for one in self._prompts.values()))
        held_out = {prompt.prompt_id for prompt in corpus.held_out()}
        cut = [name for name, text in self._texts.items() if text.is_cut]
        sides: dict[bool, list[Prompt]] = {False: [], True: []}
        for prompt in self._prompts.values():
            sides[prompt.prompt_id in held_out].append(prompt)
        tables = [
            prompt_rows(prompts, self._texts, cut, is_held_out, self._index.skip_first)
            for is_held_out, prompts in sides.items()
        ]
        with disk_errors_as_sentences(self._folder):
            write_prompts(self._folder, tables)
            index = replace(self._index, parts=tuple(self._parts), tokens=tuple(self._tokens))
            index.write(self._folder)
