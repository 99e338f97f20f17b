"""Sparse autoencoders for the comparison: trained by sae-lens from stored activations, offline.

What is timed is one thread's CPU seconds of sae-lens' own training step and of what precedes it
(mean and scale of the activations), not the reading of data and not the evaluations.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.versus_sae.sparse_products import sparse_products
from itda_core import Codes
from itda_core.config import HookPoint

VARIANTS = ("topk", "batchtopk")
_ENCODED_TOGETHER = 1_024


@dataclass(frozen=True)
class SaeSettings:
    """One training of an autoencoder, but for its data."""

    variant: str
    """"topk": L0 largest latents of each token; "batchtopk": L0 a token on average, by threshold"""
    lr: float
    """Highest learning rate of Adam; linear warm-up and decay around it"""
    epochs: float = 1.0
    """Passes over the distinct tokens"""
    batch: int = 256
    """Tokens of one step"""
    n_latents: int = 2_048
    l0: int = 32
    seed: int = 0
    warm_up: float = 0.05
    """Share of the steps in which the learning rate rises from nearly zero"""
    decay: float = 0.3
    """Share of the steps in which it falls to zero, at the end"""
    dead_after: int = 32_768
    """Tokens without use after which a latent counts as dead and the auxiliary loss takes it up"""
    aux: float = 1.0
    """Coefficient of the auxiliary loss"""
    init_norm: float = 0.1
    """Norm of the decoder's rows at the start; the encoder starts as the decoder's transpose"""


@dataclass(frozen=True)
class Autoencoder:
    """A trained autoencoder with the calls of a Dictionary: encode, decode, atoms, l0.

    The scale of the training's input and the decoder's norms are folded in, so that it takes and
    gives raw activations, atoms are unit rows and codes are coefficients of them.
    """

    encoder: torch.Tensor
    """[d_model, n_latents]"""
    bias: torch.Tensor
    """[n_latents]"""
    atoms: torch.Tensor
    """[n_latents, d_model] float32, unit rows"""
    offset: torch.Tensor
    """[d_model], added to the sum of the terms"""
    l0: int
    hook_point: HookPoint
    threshold: float | None = None
    """A latent is on above it, however many there are; None: the `l0` largest are on"""

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def d_model(self) -> int:
        return self.atoms.shape[1]

    def encode(self, activations: torch.Tensor, l0: int | None = None, gram=None) -> Codes:  # noqa: ARG002
        """Raw activations [n_tokens, d_model] to codes, the largest first.

        As many columns as the token with most terms has; the others' are filled up with latent 0
        and coefficient 0.
        """
        found = [self._encode(part, l0) for part in activations.split(_ENCODED_TOGETHER)]
        width = max(latents.shape[1] for latents, _ in found)
        grown = [[_widened(part, width) for part in pair] for pair in found]
        latents, coefficients = (torch.cat(parts) for parts in zip(*grown, strict=True))
        return Codes(latents, coefficients)

    def _encode(self, x: torch.Tensor, l0: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.pre_activations(x)
        if self.threshold is None:
            coefficients, latents = values.topk(l0 or self.l0, dim=1)
        else:
            values = values.where(values > self.threshold, 0)
            most = max(1, int((values > 0).sum(1).max()))
            coefficients, latents = values.topk(min(most, l0 or most), dim=1)
        coefficients = coefficients.relu()
        return latents * (coefficients > 0), coefficients

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        """[n_tokens, n_latents]: what the coefficients are chosen from."""
        return torch.addmm(self.bias, x.float(), self.encoder)

    def decode(self, codes: Codes) -> torch.Tensor:
        """Codes to raw activations, [n_tokens, d_model] float32."""
        return codes.reconstruct(self.atoms) + self.offset


def _widened(part: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(part, (0, width - part.shape[1]))


@dataclass
class Checkpoint:
    """An autoencoder as it stands during training."""

    tokens: int
    """Tokens seen so far, repetitions included"""
    seconds: float
    """CPU seconds of training so far"""
    dead: float
    """Share of the latents that count as dead"""
    autoencoder: Autoencoder = field(repr=False)


def train_sae(
    x: torch.Tensor,
    validation: torch.Tensor,
    settings: SaeSettings,
    hook_point: HookPoint,
    checkpoints: Sequence[int],
) -> Iterator[Checkpoint]:
    """Train on `x`, [n_tokens, d_model], and yield the autoencoder at each of `checkpoints` (tokens
    seen) and at the end. A threshold (BatchTopK) is set on `validation`, so that the mean L0 there
    is what it should be at every checkpoint; sae-lens' running mean of it lags behind.
    """
    torch.manual_seed(settings.seed)
    started = time.process_time()
    trainer = _trainer(x, settings)
    seconds = time.process_time() - started
    due, draw = list(checkpoints), torch.Generator().manual_seed(settings.seed)
    for rows in _batches(len(x), settings, draw):
        batch = x[rows]
        started = time.process_time()
        with sparse_products():
            trainer.step(batch)
        trainer.n_training_steps += 1
        seconds += time.process_time() - started
        tokens = trainer.n_training_steps * settings.batch
        if (due and tokens >= due[0]) or trainer.n_training_steps == _steps(len(x), settings):
            due = [mark for mark in due if mark > tokens]
            dead = float(trainer.dead_neurons.float().mean())
            yield Checkpoint(tokens, seconds, dead, _folded(trainer, validation, hook_point))


def _steps(n_tokens: int, settings: SaeSettings) -> int:
    return max(1, round(n_tokens * settings.epochs / settings.batch))


def _batches(n_tokens: int, settings: SaeSettings, draw: torch.Generator) -> Iterator[torch.Tensor]:
    """Row numbers of each step: every epoch in another order, steps running over their ends."""
    left = torch.zeros(0, dtype=torch.int64)
    for _ in range(_steps(n_tokens, settings)):
        while len(left) < settings.batch:
            left = torch.cat([left, torch.randperm(n_tokens, generator=draw)])
        yield left[: settings.batch]
        left = left[settings.batch :]


def _trainer(x: torch.Tensor, settings: SaeSettings):
    """sae-lens' trainer; the input scaled to the norm √d_model, b_dec starting at the mean."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    sae_class, config_class = get_sae_training_class(settings.variant)
    sae = sae_class(
        config_class(
            d_in=x.shape[1], d_sae=settings.n_latents, k=settings.l0,
            aux_loss_coefficient=settings.aux, decoder_init_norm=settings.init_norm,
            normalize_activations="expected_average_only_in", rescale_acts_by_decoder_norm=True,
        )
    )  # fmt: skip
    steps = _steps(len(x), settings)
    config = SAETrainerConfig(
        total_training_samples=steps * settings.batch, train_batch_size_samples=settings.batch,
        lr=settings.lr, lr_end=settings.lr, lr_warm_up_steps=int(settings.warm_up * steps),
        lr_decay_steps=int(settings.decay * steps),
        dead_feature_window=settings.dead_after // settings.batch,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    trainer = SAETrainer(config, sae, data_provider=iter(()))
    for group in trainer.optimizer.param_groups:
        group["fused"] = True  # the same steps in a quarter of the time
    scale = x.shape[1] ** 0.5 / float(x.norm(dim=1).mean())
    trainer.activation_scaler.scaling_factor = scale
    with torch.no_grad():
        sae.b_dec.copy_(x.mean(0) * scale)
    return trainer


@torch.no_grad()
def _folded(trainer, validation: torch.Tensor, hook_point: HookPoint) -> Autoencoder:
    """The autoencoder as it stands, for raw activations."""
    sae, scale = trainer.sae, trainer.activation_scaler.scaling_factor
    norms = sae.W_dec.norm(dim=1)
    folded = Autoencoder(
        encoder=sae.W_enc * norms,
        bias=(sae.b_enc - sae.b_dec @ sae.W_enc) * norms / scale,
        atoms=sae.W_dec / norms[:, None],
        offset=sae.b_dec / scale,
        l0=int(sae.cfg.k),
        hook_point=hook_point,
    )
    if sae.cfg.architecture() != "batchtopk":
        return folded
    values = folded.pre_activations(validation).flatten()
    kept = folded.l0 * len(validation)
    threshold = float(values.topk(kept).values[-1].clamp(min=0))
    return Autoencoder(**{**vars(folded), "threshold": threshold})
