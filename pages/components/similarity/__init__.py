"""The pieces of the Similarity page."""
