"""The page of the readers shows what the examples have, and so what the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/readers.md"


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("consul-template and nginx", "nginx-upstream/upstream.ctmpl"),
        ("HAProxy", "haproxy/haproxy.cfg"),
        ("CoreDNS", "etcd-coredns/Corefile"),
    ],
)
def test_a_section_shows_parts_of_its_example(heading: str, file: str) -> None:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```\n(.*?)^```", section, re.M | re.S)
    example = (ROOT / "examples" / file).read_text()
    assert [part for part in block.split("\n\n") if part.strip() not in example] == []
