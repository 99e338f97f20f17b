"""Dictionaries from elsewhere, as the tests need them: random autoencoders, folders of files."""

import dataclasses
import json

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from itda_core.config import HookPoint
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.sae_encoder import SaeEncoder

D_MODEL, N_LATENTS = 16, 40


def sources(n):
    """A source table of n latents of one prompt."""
    table = {
        "latent": np.arange(n),
        "prompt_id": ["00000000000000aa"] * n,
        "position": np.arange(n) + 1,
        "start": np.arange(n) * 2,
        "end": np.arange(n) * 2 + 1,
        "token": [chr(97 + number % 26) for number in range(n)],
    }
    return pd.DataFrame(table)


def token_dictionary(seed=0, offset=0.0, l0=6, n_atoms=N_LATENTS):
    """Random unit atoms; `offset`: the size of the offset's components."""
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n_atoms, D_MODEL, generator=draw)
    return Dictionary(
        atoms=torch.nn.functional.normalize(atoms, dim=1),
        offset=offset * torch.randn(D_MODEL, generator=draw),
        l0=l0,
        hook_point=HookPoint("smollm2-135m", 1),
        sources=sources(n_atoms),
        words=np.arange(n_atoms),
        prompt_ids=("00000000000000aa",),
        tokenizer="none",
        reading="128 tokens, without the first",
    )


def random_encoder(architecture, seed=0, centred=True):
    """A random encoder for decoder rows of different lengths."""
    draw = torch.Generator().manual_seed(seed)
    threshold = 0.5 * torch.rand(N_LATENTS, generator=draw)
    return SaeEncoder(
        architecture=architecture,
        weight=0.3 * torch.randn(D_MODEL, N_LATENTS, generator=draw),
        bias=0.3 * torch.randn(N_LATENTS, generator=draw),
        center=centred * torch.randn(D_MODEL, generator=draw),
        norms=torch.linspace(0.5, 2.0, N_LATENTS),
        k=5 if architecture == "topk" else None,
        threshold=threshold if architecture == "jumprelu" else None,
    )


def sae_dictionary(architecture, seed=0):
    """A random autoencoder as a dictionary."""
    encoder = random_encoder(architecture, seed)
    return dataclasses.replace(
        token_dictionary(seed), encoder=encoder, offset=encoder.center.clone(), l0=encoder.k or 30
    )


def activations(n=30, seed=5):
    """[n, d_model] float32, of sizes from small to large."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, D_MODEL, generator=draw) * torch.linspace(0.1, 8.0, n)[:, None]


def dense(codes, n_atoms):
    """Codes as [n_tokens, n_atoms], the terms of a latent added."""
    zero = torch.zeros(len(codes), n_atoms)
    return zero.scatter_add_(1, codes.latents, codes.coefficients)


def write_saelens(folder, config=None, weights=None):
    """A small standard autoencoder of the tiny model's layer 1 as sae-lens writes it, with changes;
    a change to None takes a setting or a tensor away."""
    draw = torch.Generator().manual_seed(3)
    usual = {
        "architecture": "standard",
        "d_in": D_MODEL,
        "d_sae": N_LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "hook_name": "blocks.1.hook_resid_post",
            "context_size": 32,
        },
    }
    tensors = {
        "W_enc": torch.randn(D_MODEL, N_LATENTS, generator=draw) / 2,
        "b_enc": torch.zeros(N_LATENTS),
        "W_dec": torch.randn(N_LATENTS, D_MODEL, generator=draw),
        "b_dec": torch.zeros(D_MODEL),
    }
    folder.mkdir(parents=True, exist_ok=True)
    merged = {**usual, **(config or {})}
    content = {name: value for name, value in merged.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(content))
    kept = {name: one for name, one in {**tensors, **(weights or {})}.items() if one is not None}
    safetensors.torch.save_file(kept, folder / "sae_weights.safetensors")
    return folder
