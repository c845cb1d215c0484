"""What the tests share; pytest has ``tests/`` on the path, so it is ``from support.… import``."""
