"""The tables of docs/seeing.md are those of the code."""

from __future__ import annotations

from pathlib import Path

from registrator.status.metrics import METRICS

PAGE = Path(__file__).resolve().parents[2] / "docs/seeing.md"


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(each.all_labels)} | {each.help} |\n"
        for each in METRICS
    ]
    table = "".join(["| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n", *rows])
    assert f"<!-- metrics -->\n{table}<!-- /metrics -->" in PAGE.read_text()
