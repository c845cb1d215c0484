"""``python -m registrator`` is the same as the ``registrator`` command."""

from registrator.cli import main

if __name__ == "__main__":
    main()
