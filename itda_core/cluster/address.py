"""How a Ray cluster is called: checked by its form, where nobody is asked yet."""

import re

from itda_core.errors import InputError

AUTO = "auto"
"""The cluster that this machine belongs to"""
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def checked_address(text: str) -> str:
    """auto or host:port. Raises InputError for what is neither."""
    address = text.strip()
    found = _HOST_AND_PORT.fullmatch(address)
    if address != AUTO and not (found and 0 < int(found[2]) < 65_536):
        raise InputError(
            "A Ray cluster is named auto, for the one that this machine belongs to, or host:port, "
            f"such as 10.0.0.1:6379; got {text!r:.60}."
        )
    return address
