"""The figures of docs/performance.md, measured: ``python -m benchmarks`` (see ``--help``)."""

import sys
from pathlib import Path

# The tests' real servers, engines and agents serve here too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
