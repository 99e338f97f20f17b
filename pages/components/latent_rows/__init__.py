"""Latents by name: their short cards on hover, and tables whose rows open them."""
