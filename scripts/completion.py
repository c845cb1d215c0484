"""Makes packaging/bash/registrator: the completion for bash, from the tables of the command line.

Run it with the Python of .venv after a change of these tables. A test tells if you forget it.
"""

from collections.abc import Iterable
from pathlib import Path

from registrator.commands.table import COMMANDS, Subcommand
from registrator.options import OPTIONS, Option

FILE = Path(__file__).resolve().parents[1] / "packaging/bash/registrator"

TEXT = """\
# Completes the commands and options of registrator in bash. scripts/completion.py makes this file.
# Copy it to /usr/share/bash-completion/completions/registrator, or source it.

_registrator() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command='' options name
    ((COMP_CWORD > 1)) && command=${{COMP_WORDS[1]}}
    COMPREPLY=()
    # An option that takes a value, which nobody can guess.
    [[ $before =~ ^--?({values})$ ]] && return
    case $command in
{cases}
        *) options='{options}' ;;
    esac
    if [[ $word == --* ]]; then
        mapfile -t COMPREPLY < <(compgen -P -- -W "$options" -- "${{word#--}}")
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -P - -W "$options" -- "${{word#-}}")
    elif ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W '{commands}' -- "$word")
    elif [[ $command == explain ]]; then
        # compgen would carry out what a name holds.
        while read -r name; do
            [[ $name == "$word"* && $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] && COMPREPLY+=("$name")
        done < <(docker ps --format '{{{{.Names}}}}' 2>/dev/null)
    fi
}}

complete -o default -F _registrator registrator
"""


def completion() -> str:
    """The whole script."""
    own = [option for each in COMMANDS.values() for option in each.options]
    named = sorted({option.name for option in (*OPTIONS, *own) if option.metavar})
    return TEXT.format(
        values="|".join(named),
        cases="\n".join(map(_case, COMMANDS.values())),
        options=_names(OPTIONS, "version"),
        commands=" ".join(COMMANDS),
    )


def _case(command: Subcommand) -> str:
    options = (*OPTIONS, *command.options) if command.alone else command.options
    return f"        {command.name}) options='{_names(options)}' ;;"


def _names(options: Iterable[Option], *more: str) -> str:
    return " ".join([*(option.name for option in options), *more, "help"])


if __name__ == "__main__":
    FILE.write_text(completion())
