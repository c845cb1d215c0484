"""The configurations in the documents, as the tests use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def block(section: str, language: str, page: str = "readers.md") -> str:
    """The one block of a language in a section."""
    heading = re.escape(f"## {section}\n")
    (text,) = re.findall(rf"^{heading}(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.M | re.S)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    (found,) = (shown for name, shown in blocks if name == language)
    return str(found)


def replace(text: str, new: Mapping[str, str]) -> str:
    """The text with what a test has instead, such as its own addresses."""
    for old, value in new.items():
        assert old in text, f"{old} is not in {text}"
        text = text.replace(old, value)
    return text
