#!/usr/bin/env python3
"""Compile the modules of Python's standard library that the agent imports.

    scripts/compile_base.py FOLDER

The Dockerfile runs this script. The public base image has only the sources, and a read-only
container cannot keep compiled modules. Each of them gets its place below FOLDER. It holds the time
and size of its source, so that Python notices if a derived image changes the source.
"""

import importlib
import pkgutil
import sys
import sysconfig
from importlib.util import cache_from_source
from py_compile import PycInvalidationMode
from py_compile import compile as compile_module

import registrator

# Imported only at the first request: requests looks into the user's .netrc.
LATER = ("netrc",)


def main(folder: str) -> None:
    for module in pkgutil.walk_packages(registrator.__path__, "registrator."):
        importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    standard = sysconfig.get_path("stdlib")
    for loaded in [*sys.modules.values()]:
        source = getattr(loaded, "__file__", None) or ""
        if source.startswith(f"{standard}/") and source.endswith(".py"):
            compile_module(
                source,
                folder + cache_from_source(source),
                dfile=source,
                doraise=True,
                invalidation_mode=PycInvalidationMode.TIMESTAMP,
            )


if __name__ == "__main__":
    main(sys.argv[1])
