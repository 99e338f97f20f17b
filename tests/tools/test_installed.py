"""Which packages are installed, in which version, and whose they are."""

from email.message import Message

import pytest

from tools import installed


class Package:
    """One as importlib.metadata gives it."""

    def __init__(self, version="1.0", **metadata):
        self.version, self.metadata = version, Message()
        for name, value in metadata.items():
            for one in value if isinstance(value, list) else [value]:
                self.metadata[name.replace("_", "-")] = one


def test_the_lock_has_exact_versions_whatever_they_were_built_for(monkeypatch):
    found = [Package("2.13.0+cpu", Name="torch"), Package("5", Name="Ruamel.Yaml_X")]
    monkeypatch.setattr(
        installed,
        "distributions",
        lambda: [*found, Package(Name="pip"), Package(Name="itda-explorer")],
    )
    lines = installed.lock().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "ruamel-yaml-x==5",
        "torch==2.13.0",
    ]


OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"License_Expression": "MIT", "License": "a\nlong text"}, "MIT"),
        ({"Classifier": [OSI + "BSD License", "Topic :: Other"]}, "BSD License"),
        ({"Classifier": ["License :: OSI Approved"], "License": "\n\n"}, "not said"),
        ({"License": "Apache 2.0\n\nall of it"}, "Apache 2.0"),
        ({}, "not said"),
    ],
)
def test_a_licence_is_told_in_a_line(metadata, said):
    assert installed.licence(Package(Name="one", **metadata)) == said
