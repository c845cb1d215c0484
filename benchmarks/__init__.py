"""Measures the figures of docs/performance.md: ``python -m benchmarks`` (see ``--help``)."""

import sys
from pathlib import Path

# The benchmarks use the tests' real servers, engines and agents.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
