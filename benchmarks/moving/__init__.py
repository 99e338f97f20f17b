"""What a dictionary leaves in a model that it was moved to: writes docs/moving.md."""
