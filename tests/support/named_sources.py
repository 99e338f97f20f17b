"""As much of a dictionary as the names of its sources need."""

from types import SimpleNamespace

import pandas as pd


class NamedSources:
    """sources: (prompt_id, position, start, end, token) of each; directory: of its run."""

    kind, model_digest = "itda", ""
    hook_point = SimpleNamespace(model="m", in_words="layer 1")

    def __init__(self, tokenizer, *sources, directory=None):
        self.tokenizer, self.directory = tokenizer, directory
        names = ["prompt_id", "position", "start", "end", "token"]
        self.sources = pd.DataFrame(sources, columns=names)

    def __len__(self):
        return len(self.sources)
