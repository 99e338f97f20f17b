"""A dictionary: atoms, the tokens they come from, and the offset taken off before pursuit."""

import functools
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch

from itda_core.activations.pool import CandidatePool
from itda_core.activations.sources import SOURCE_COLUMNS
from itda_core.config import HookPoint
from itda_core.devices import check_same_device
from itda_core.dictionary.encoders import AutoencoderEncoder, Encoder, PursuitEncoder
from itda_core.dictionary.legacy import model_digest, reads_ends, remembered
from itda_core.dictionary.sae_encoder import SaeEncoder
from itda_core.digests import digest
from itda_core.errors import RunError
from itda_core.files.disk_errors import why_unreadable
from itda_core.files.foreign import check_foreign
from itda_core.files.json_files import parse_json
from itda_core.files.writing import write_atomically
from itda_core.model.model import Model
from itda_core.model.tokenizer import is_of_before
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.orthogonal import PURSUITS
from itda_core.tables import read_frame, write_frame

FORMAT_VERSION = 2
"""2: a file names its pursuit and may hold an autoencoder's encoder, which version 1 did not look
for."""
FILE_NAME = "dictionary.safetensors"


@dataclass(frozen=True)
class Dictionary:
    """Atoms and where each of them came from; never one without the other."""

    atoms: torch.Tensor
    """[n_atoms, d_model] float32, unit rows"""
    offset: torch.Tensor
    """[d_model] float32, subtracted before pursuit and added after; zero as published"""
    l0: int
    hook_point: HookPoint
    sources: pd.DataFrame
    """One row a latent: latent, prompt_id, position (token index), start, end (character span),
    token (its text)"""
    words: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n_atoms] int64: the character where the source's white-space word begins, -1 for special
    tokens; what a source is called by when tokenizers differ"""
    prompt_ids: tuple[str, ...] = ()
    """The prompts that the training looked at, in order; two dictionaries compare on these"""
    tokenizer: str = ""
    """Digest of the tokenizer: token positions compare only where these are equal"""
    model_digest: str = ""
    """Digest of the model, which settles what the digest of a tokenizer in an older file leaves
    open"""
    reading: str = ""
    """How much of each prompt was read, such as "128 tokens, without the first" """
    pursuit: str = "matching"
    """How activations are decomposed, a key of orthogonal.PURSUITS"""
    min_projection: float = 0.0
    """The orthogonal pursuit of a token ends where a step would take less than this, in units of
    the activations; with 0 every token uses `l0` terms"""
    median_norm: float | None = None
    """Of the training activations, as they are; what "massive" is measured by"""
    pool: CandidatePool | None = field(default=None, repr=False)
    """The tokens of `prompt_ids` that could become atoms; None where that isn't known"""
    n_seed_atoms: int = 0
    """So many atoms, the first ones, were taken before any was chosen; threshold: d_model"""
    origin_latents: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n_atoms] int64: of a moved dictionary the number that each latent has in the one that was
    trained, from which it was moved, over others perhaps; empty of one that was not moved"""
    directory: Path | None = field(default=None, repr=False, compare=False)
    """The folder that it was loaded from"""
    encoder: SaeEncoder | None = None
    """What takes the place of the pursuit where this is an imported autoencoder. Its atoms are no
    tokens then, and a source is the token where the latent is strongest"""

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def d_model(self) -> int:
        return self.atoms.shape[1]

    @property
    def device(self) -> torch.device:
        """Where its tensors are, and so where it encodes."""
        return self.atoms.device

    def to(self, device: torch.device | str) -> "Dictionary":
        """The same dictionary with its tensors on a device; itself where they are there."""
        atoms = self.atoms.to(device)
        if atoms.device == self.device:
            return self
        encoder = self.encoder and self.encoder.to(device)
        return replace(self, atoms=atoms, offset=self.offset.to(device), encoder=encoder)

    @functools.cached_property
    def coder(self) -> Encoder:
        """What encodes for it: its pursuit, or the encoder of an autoencoder."""
        if self.encoder is None:
            pursuit = (self.pursuit, self.l0, self.min_projection)
            return PursuitEncoder(self.atoms, self.offset, *pursuit)
        return AutoencoderEncoder(self.atoms, self.offset, self.encoder)

    @property
    def kind(self) -> str:
        """ "itda" where atoms are activations of tokens, "sae" for an autoencoder."""
        return self.coder.kind

    def encode(
        self, activations: torch.Tensor, l0: int | None = None, gram: torch.Tensor | None = None
    ) -> Codes:
        """Raw activations [n_tokens, d_model] to codes, by the dictionary's own pursuit of `l0`
        steps, or by the encoder of an autoencoder, which may give fewer terms.

        gram: what `gram()` gives, for callers that encode in several parts. All are on one device,
        and so are the codes: InputError where they are not.
        """
        tensors = {"activations": activations, "dictionary": self.atoms}
        check_same_device(**tensors, **({} if gram is None else {"gram": gram}))
        return self.coder.encode(activations, l0, gram)

    def gram(self) -> torch.Tensor | None:
        """What `encode` takes as `gram`; None where it does without."""
        return self.coder.gram()

    def decode(self, codes: Codes) -> torch.Tensor:
        """Codes to raw activations, [n_tokens, d_model] float32, on the device of both: InputError
        where they are on two."""
        check_same_device(codes=codes.latents, dictionary=self.atoms)
        return codes.reconstruct(self.atoms) + self.offset

    def save(self, path: str | Path) -> Path:
        """Write one file: `path`, or dictionary.safetensors inside it where it is a folder.

        Without the ending .safetensors, `path` is taken for a folder and made. The file appears
        whole or not at all.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            path.mkdir(parents=True, exist_ok=True)
            path = path / FILE_NAME
        write_atomically(path, self.to_bytes())
        return path

    def to_bytes(self) -> bytes:
        """The content of a dictionary file: safetensors, with the sources as a Parquet table.
        The device that it is on leaves no trace."""
        if self.device.type != "cpu":
            return self.to("cpu").to_bytes()
        table = io.BytesIO()
        write_frame(self.source_table(), table, index=False)
        prompt_ids = np.array([int(name, 16) for name in self.prompt_ids], np.uint64)
        tensors = {
            "atoms": self.atoms.contiguous(),
            "offset": self.offset.contiguous(),
            "sources": torch.frombuffer(bytearray(table.getvalue()), dtype=torch.uint8),
            "prompt_ids": torch.from_numpy(prompt_ids.view(np.int64)),
        }
        header = {
            "version": FORMAT_VERSION,
            "l0": self.l0,
            "hook_point": asdict(self.hook_point),
            "tokenizer": self.tokenizer,
            "model": self.model_digest,
            "reading": self.reading,
            "kind": self.kind,
            "pursuit": self.pursuit,
            "least": self.min_projection,
            "median_norm": self.median_norm,
            "seeds": self.n_seed_atoms,
        }
        if self.pool is not None:
            tensors |= self.pool.tensors()
        if self.encoder is not None:
            tensors |= {
                name: tensor.contiguous() for name, tensor in self.encoder.tensors().items()
            }
            header |= {"architecture": self.encoder.architecture, "k": self.encoder.k}
        return safetensors.torch.save(tensors, {"itda": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "Dictionary":
        """Read a run directory or a dictionary file. Raises RunError with the reason.

        What older files don't say of their training, `pool` and `n_seed_atoms`, is taken from the
        run directory where there is one. Of a file alone the candidate pool stays unknown, and the
        first d_model atoms are taken for seed atoms where offset and pursuit are the threshold's.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        try:
            check_foreign(file)
            with safetensors.safe_open(file, "pt") as opened:
                header = parse_json((opened.metadata() or {}).get("itda", "null"))
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise RunError(f"There is no dictionary at {path}. Check the path.") from None
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise RunError(f"{file} can't be read as a dictionary: {error}.") from error
        if not isinstance(header, dict) or "version" not in header:
            raise RunError(f"{file} is a safetensors file, but not a dictionary of this explorer.")
        if header["version"] > FORMAT_VERSION:
            raise RunError(f"{file} was written by a newer version: update the explorer.")
        try:
            read = cls._from_tensors(header, tensors)._with_reading(file.parent)
            return replace(read._with_memory(header, file.parent), directory=file.parent)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise why_unreadable(file, error, "Train it again.") from error

    @classmethod
    def _from_tensors(cls, header: dict, tensors: dict[str, torch.Tensor]) -> "Dictionary":
        packed = tensors["sources"].numpy().tobytes()
        table = read_frame(io.BytesIO(packed))
        prompt_ids = tensors["prompt_ids"].numpy().view(np.uint64)
        pool, encoder = CandidatePool.of_tensors(tensors), None
        if pool is not None and len(pool.counts) != len(prompt_ids):
            raise ValueError("its candidate pool is not of its prompts")
        if header.get("kind", "itda") == "sae":
            encoder = SaeEncoder.of_tensors(header["architecture"], header["k"], tensors)
        if header.get("pursuit", "matching") not in PURSUITS:
            raise ValueError(f"it names an unknown pursuit {header['pursuit']!r}")
        return cls(
            atoms=tensors["atoms"],
            offset=tensors["offset"],
            l0=header["l0"],
            hook_point=HookPoint(**header["hook_point"]),
            sources=table[SOURCE_COLUMNS],
            words=table["word"].to_numpy(),
            prompt_ids=tuple(f"{number:016x}" for number in prompt_ids.tolist()),
            tokenizer=header["tokenizer"],
            model_digest=header.get("model", ""),
            reading=header["reading"],
            encoder=encoder,
            pursuit=header.get("pursuit", "matching"),
            min_projection=header.get("least", 0.0),
            median_norm=header.get("median_norm"),
            pool=pool,
            n_seed_atoms=header.get("seeds", 0),
            origin_latents=table.get("origin", pd.Series([], dtype="int64")).to_numpy(),
        )

    def _with_reading(self, directory: Path) -> "Dictionary":
        """With its model's digest and, where the ends of prompts were read, saying so: a file of
        an earlier version does neither."""
        if not is_of_before(self.tokenizer):
            return self
        ends = "the last " if reads_ends(directory) else ""
        model = self.model_digest or model_digest(directory)
        return replace(self, model_digest=model, reading=ends + self.reading)

    def _with_memory(self, header: dict, directory: Path) -> "Dictionary":
        """With `pool` and `n_seed_atoms`, where the file is older than these."""
        if "seeds" in header or self.kind != "itda":
            return self
        memory = remembered(directory, self.prompt_ids, self.sources, self.d_model)
        if memory is not None:
            return replace(self, pool=memory.pool, n_seed_atoms=memory.n_seed_atoms)
        is_published = self.pursuit == "matching" and not self.offset.any()
        return replace(self, n_seed_atoms=min(self.d_model, len(self)) if is_published else 0)

    def word_starts(self) -> np.ndarray:
        """[n_atoms] int64; without `words` each token counts as a word of its own."""
        return self.words if len(self.words) == len(self) else self.sources["start"].to_numpy()

    def source_table(self) -> pd.DataFrame:
        """`sources` with all that files say of each latent: `word`, where its word begins, and, of
        a moved dictionary, `origin`, its number in the one that was trained."""
        table = self.sources.assign(word=self.word_starts())
        return table.assign(origin=self.origin_latents) if len(self.origin_latents) else table

    def latents_in_origin(self) -> np.ndarray:
        """[n_atoms] int64: the number of each latent in the dictionary that was trained, from which
        this one was moved; its own where this one was trained."""
        return self.origin_latents if len(self.origin_latents) else np.arange(len(self))

    @functools.cached_property
    def digest(self) -> str:
        """Names atoms, offset and sources."""
        places = self.sources[["prompt_id", "position"]].itertuples(index=False)
        tensors = (
            tensor.cpu().contiguous().numpy().tobytes() for tensor in (self.atoms, self.offset)
        )
        return digest([*tensors, *(f"{name} {position} " for name, position in places)])

    def moved(self, model: Model, layer: int, prompts: Iterable[str] | None = None) -> "Dictionary":
        """The same latents in another model, or at another layer or site: those tokens' activations
        there, less the mean of the prompts that hold them, are the atoms.

        model: at the site that is wanted (see `Model.at`); prompts: the texts that hold the
        sources, by default those of the run directory that this was loaded from. They alone are
        read, each up to its last source. With another tokenizer a source is the token that ends
        where it ends, else the last one of its word; what has none is left out, and
        `origin_latents` says which number each latent had. `itda move` writes a run, whose mean is
        that of all its explored tokens. Raises InputError for an autoencoder, RunError where the
        texts are not there.
        """
        from itda_core.dictionary.moving import moved

        return moved(self, model, layer, prompts)
