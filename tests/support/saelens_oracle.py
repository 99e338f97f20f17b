"""What sae-lens itself makes of folders, in a process of its own: it is slow to import, and is
never imported in the app's process or the tests'.

Run as a script: for each folder of `exported` it loads the autoencoder and encodes; into `made` it
saves a random autoencoder of each architecture with what it makes of the same activations.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import torch

D_MODEL, N_LATENTS, N_TOKENS = 16, 40, 30
ACTIVATIONS = "activations.safetensors"
ANSWER = "answer.safetensors"
IS_INSTALLED = find_spec("sae_lens") is not None


def ask(folder: Path) -> None:
    """Let sae-lens read folder/exported/* and fill folder/made."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3_000:]


def answer(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What sae-lens encoded, [n_tokens, d_sae], and decoded, [n_tokens, d_model]."""
    found = safetensors.torch.load_file(folder / ANSWER)
    return found["acts"], found["out"]


def _main(folder: Path) -> None:
    from sae_lens import SAE

    x = safetensors.torch.load_file(folder / ACTIVATIONS)["x"]
    for path in sorted((folder / "exported").iterdir()):
        _write_answer(SAE.load_from_disk(path), x, path)
    for name, sae in _random_saes():
        made = folder / "made" / name
        sae.save_model(made)
        _write_answer(sae, x, made)
    _made_with_a_scaler(folder / "made" / "standard-scaled", x)
    _made_by_training(folder / "made", x)


def _random_saes():
    """A random inference SAE of each architecture and option that can be imported."""
    from sae_lens import (
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )

    kinds = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
        "topk-rescaled": (TopKSAE, TopKSAEConfig, {"k": 5, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    for name, (sae_class, config_class, options) in kinds.items():
        for is_subtracted in (True, False):
            config = config_class(
                d_in=D_MODEL, d_sae=N_LATENTS, apply_b_dec_to_input=is_subtracted, **options
            )
            yield (
                f"{name}-{'centred' if is_subtracted else 'plain'}",
                _randomised(sae_class(config)),
            )


def _randomised(sae):
    """Weights at random, with decoder rows of different lengths."""
    torch.manual_seed(len(list(sae.parameters())))
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
            if name == "W_dec":
                weight.mul_(torch.linspace(0.5, 3.0, len(weight))[:, None])
            if name == "threshold":
                weight.abs_()
    sae.cfg.metadata.model_name = "smollm2-135m"
    sae.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    sae.cfg.metadata.context_size = 64
    return sae


def _made_with_a_scaler(folder: Path, x: torch.Tensor) -> None:
    """An autoencoder of scaled activations, the factor beside it as in a checkpoint."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.training.activation_scaler import ActivationScaler

    config = StandardSAEConfig(
        d_in=D_MODEL, d_sae=N_LATENTS, normalize_activations="expected_average_only_in"
    )
    sae = _randomised(StandardSAE(config))
    sae.save_model(folder)
    ActivationScaler(scaling_factor=2.5).save(str(folder / "activation_scaler.json"))
    sae.fold_activation_norm_scaling_factor(2.5)
    _write_answer(sae, x, folder)


def _made_by_training(folder: Path, x: torch.Tensor) -> None:
    """A BatchTopK as it is in training, and as sae-lens saves it for use: one that jumps."""
    from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    for name, is_rescaled in (("batchtopk", False), ("batchtopk-rescaled", True)):
        config = BatchTopKTrainingSAEConfig(
            d_in=D_MODEL, d_sae=N_LATENTS, k=4.0, rescale_acts_by_decoder_norm=is_rescaled
        )
        sae = _randomised(BatchTopKTrainingSAE(config))
        sae.topk_threshold.fill_(0.7)
        sae.save_model(folder / name)
        used = folder / f"{name}-for-use"
        sae.save_inference_model(used)
        loaded = SAE.load_from_disk(used)
        _write_answer(loaded, x, used)
        _write_answer(loaded, x, folder / name)


def _write_answer(sae, x: torch.Tensor, folder: Path) -> None:
    with torch.no_grad():
        acts = sae.encode(x)
        found = {"acts": acts.contiguous(), "out": sae.decode(acts).contiguous()}
    safetensors.torch.save_file(found, folder / ANSWER)
    assert json.loads((folder / "cfg.json").read_text())["d_in"] == D_MODEL


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
