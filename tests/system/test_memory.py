"""The process gives memory back to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from pathlib import Path
from registrator.system.memory import settle_memory, limit_malloc_arenas

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

limit_malloc_arenas()
blocks = [bytes(1000) for _ in range(50_000)]
last = blocks[-1]  # it keeps the C library from giving back what lies before it
del blocks
before = resident()
settle_memory()
print(before - resident())
"""


def test_free_memory_goes_back_to_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) > 40e6


def test_the_collector_does_not_look_at_what_stays() -> None:
    program = """
import gc
from registrator.system.memory import settle_memory

made = [[] for _ in range(1000)]
settle_memory()
print(gc.get_freeze_count() >= 1000, len(gc.get_objects()) < 1000)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True"]


def test_the_library_for_metrics_comes_without_its_server() -> None:
    """Its server would bring a megabyte that nobody uses. Others get the real modules."""
    program = """
import sys
from registrator.system.memory import import_prometheus_client_without_its_server

import_prometheus_client_without_its_server()
print(sys.modules.keys() & {"html", "http.server", "socketserver", "wsgiref.simple_server"})
from http.server import HTTPServer
import html, prometheus_client
print(bool(HTTPServer.allow_reuse_address), html.unescape("&eacute;"))
print(prometheus_client.generate_latest(prometheus_client.CollectorRegistry()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["set()", "True é", "b''"]
