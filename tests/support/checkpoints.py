"""A checkpoint read at once."""


def load(workspace):
    """What `Workspace.loading_checkpoint` comes to."""
    steps = workspace.loading_checkpoint()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
