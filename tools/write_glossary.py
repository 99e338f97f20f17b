"""The glossary of CONTRIBUTING.md, from itda_core/glossary.py.

python -m tools.write_glossary
"""

from pathlib import Path

from itda_core.glossary import GLOSSARY

DOCUMENT = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
_BEGIN, _END = "<!-- glossary -->", "<!-- end of the glossary -->"


def with_glossary(document: str) -> str:
    """The document with the table as it has to be."""
    before, _, rest = document.partition(_BEGIN)
    after = rest.partition(_END)[2]
    rows = "\n".join(f"| {term} | {meaning} |" for term, meaning in GLOSSARY.items())
    return f"{before}{_BEGIN}\n\n| word | meaning |\n|---|---|\n{rows}\n\n{_END}{after or chr(10)}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_glossary(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
