"""The one table of commands. The command line and the help read it.

A command is the first word of a call. No command is a URI, so the agent's calls mean what they
always meant. A command also takes the agent's options and variables. So you put its name before the
agent's own words, and it reads the registries as that agent does.
"""

from typing import NamedTuple

from registrator.options import Option, boolean, word


class Subcommand(NamedTuple):
    """A command: its `name`, a `summary` in one line, and a `text` of some paragraphs.

    `options` are those of its own. No variable sets them. `module` has a function ``run``. It gets
    the `Config` and the values of the command's own options, and returns the exit code.
    """

    name: str
    summary: str
    text: tuple[str, ...]
    options: tuple[Option, ...]
    module: str


_WITHDRAW = Subcommand(
    "withdraw",
    "Remove this host's entries, and end.",
    (
        "Remove the entries that carry this host's mark: its engine's id and its hostname. Do this"
        " after you have stopped the agent, before the host goes for good.",
        "It takes all options of the agent. Give those that your agent has, before all -hostname"
        " and -ttl. It refuses while an agent of this host runs.",
        "Exit codes: 0 if nothing of this host is left, 1 if something is, 2 if the call is wrong,"
        " 3 if the engine or a registry does not answer.",
    ),
    (
        Option("owner", "owner", "Withdraw", "ID", "this host's engine",
               "The former id of this host's engine. Without -yes, its entries are only shown.",
               word),
        Option("yes", "yes", "Withdraw", "", "false",
               "Remove the entries of -owner.", boolean),
    ),
    "registrator.commands.withdraw",
)  # fmt: skip

COMMANDS = {each.name: each for each in (_WITHDRAW,)}
