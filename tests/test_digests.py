"""Digests are those of hashlib, whatever the content comes as."""

import hashlib

import pytest

from itda_core.digests import digest


@pytest.mark.parametrize("size", [4, 8, 64])
def test_a_digest_is_blake2b_of_the_utf8_text_or_of_its_parts(size):
    expected = hashlib.blake2b("zwölf".encode(), digest_size=size).hexdigest()
    for content in ("zwölf", "zwölf".encode(), ["zw", "ölf".encode()], iter(["zwö", "", "lf"])):
        assert digest(content, size) == expected
    assert len(expected) == 2 * size


def test_eight_bytes_are_usual():
    assert digest("a") == hashlib.blake2b(b"a", digest_size=8).hexdigest()
