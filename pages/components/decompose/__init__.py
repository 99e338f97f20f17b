"""The pieces of the Decompose page."""
