"""What trainings and people leave on disk.

run: a finished run's directory; workspace: a training under way; results: evaluations and probings;
near_misses, latent_uses: the tokens of a latent; labels, texts: what people wrote; comparisons:
measures between layers.
"""


def __getattr__(name: str):
    """`read_run`, which the pages told to import from here."""
    if name != "read_run":
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    from itda_core.runs.run import read_run

    return read_run
