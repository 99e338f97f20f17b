"""The pieces of the Latents page."""
