"""The programs that people read registries with, each watched while a service is scaled.

`make compatibility` runs the files ``with_*.py``. `make test` does not: it would have to build the
programs first.
"""
