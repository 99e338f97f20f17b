"""What a model was proved to do right, and why not where it does not."""

from dataclasses import dataclass

from itda_core.errors import ModelError

ABOUT = {
    "capture": "capture at every layer",
    "next_tokens": "predicts next tokens",
    "splicing": "activations put back",
    "unembedding": "next tokens of a vector",
    "cached_steps": "writing on, step by step",
}
"""Each ability as people read it"""
_CONSEQUENCES = {
    "capture": "{name} can't be used",
    "next_tokens": "{name} is used as an encoder, which predicts no next token",
    "splicing": "Edited or rebuilt activations can't be put back into {name}",
    "unembedding": "No next tokens can be read from a vector of {name}",
    "cached_steps": "{name} reads the whole text again for each token that it writes",
}
_WITHOUT = {
    "capture": "its activations can't be read",
    "next_tokens": "it predicts no next token",
    "splicing": "other activations can't be put in",
}
"""The reason for the abilities that need this one"""


@dataclass(frozen=True)
class Abilities:
    """Each ability with the reason why the model lacks it; empty where it has it."""

    capture: str = ""
    next_tokens: str = ""
    splicing: str = ""
    unembedding: str = ""
    cached_steps: str = ""
    step_inputs: tuple[str, ...] = ()
    """What the model has to be told beside the new tokens when it goes on from what it keeps"""
    begins_after: tuple[int, ...] = ()
    """Layers after which a forward pass may begin: the blocks that follow need nothing of those
    before but their output"""

    @classmethod
    def none(cls, ability: str, reason: str) -> "Abilities":
        """Without `ability`, and so without all that need it."""
        names = [*ABOUT]
        lacking = names[names.index(ability) + 1 :]
        after = dict.fromkeys(lacking, f"{_WITHOUT[ability]}, since {reason}")
        return cls(**{ability: reason}, **after)

    def reasons(self) -> dict[str, str]:
        """Why each ability is lacking, empty where it is not."""
        return {name: getattr(self, name) for name in ABOUT}

    def table(self) -> list[dict[str, str]]:
        """ability, proved ("yes", "no") and why not, a row each."""
        return [
            {"ability": ABOUT[name], "proved": "no" if reason else "yes", "why not": reason}
            for name, reason in self.reasons().items()
        ]

    def why_not(self, name: str, ability: str) -> str:
        """A sentence on what model `name` can't do, empty where it can."""
        reason = getattr(self, ability)
        return f"{_CONSEQUENCES[ability].format(name=name)}: {reason}." if reason else ""

    def require(self, name: str, ability: str) -> None:
        """Raises ModelError with the reason where model `name` lacks the ability."""
        if sentence := self.why_not(name, ability):
            raise ModelError(sentence)
