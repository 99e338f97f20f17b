"""Do latents explain themselves: writes docs/interpretability.md."""
