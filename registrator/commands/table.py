"""The one table of commands. The command line and the help read it.

A command is the first word of a call. No command is a URI, so the agent's calls mean what they
always meant. A command that works at the registries also takes the agent's options and variables.
So you put its name before the agent's own words, and it reads the registries as that agent does.
A command that asks the running agent takes only options of its own.
"""

from typing import NamedTuple

from registrator.options import Option, boolean, word


class Subcommand(NamedTuple):
    """A command: its `name`, a `summary` in one line, and a `text` of some paragraphs.

    `options` are those of its own. No variable sets them. `module` has a function ``run``, which
    returns the exit code. It gets the values of the command's own options. Before them it gets the
    `Config`, unless the command `asks` the running agent. Such a command takes one word as its
    `operand`, or none if that is empty.
    """

    name: str
    summary: str
    text: tuple[str, ...]
    options: tuple[Option, ...]
    module: str
    asks: bool = False
    operand: str = ""

    @property
    def usage(self) -> str:
        """The words that follow the command."""
        if self.asks:
            return f"[options] {self.operand}".rstrip()
        return "[options] <registry URI>..."


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


def _asking(name: str, summary: str, *text: str, operand: str = "") -> Subcommand:
    """A command that asks the agents that run here."""
    common = "It asks the agents that run here, as their own user or as root."
    json = Option("json", "json", name.capitalize(), "", "false",
                  "Print JSON, as in docs/seeing.md.", boolean)  # fmt: skip
    module = f"registrator.commands.{name}"
    return Subcommand(name, summary, (*text, common), (json,), module, asks=True, operand=operand)


_CODES = "Exit codes: 0 if all is fine, 1 if not, 2 if the call is wrong, 3 if no agent answers."

COMMANDS = {
    each.name: each
    for each in (
        _asking("status", "Show the agent, the engine and each registry.",
                "Show the agent's version and address, whether the engine answers, and each"
                " registry with its counts.", _CODES),
        _asking("list", "Show each port, and what became of it.",
                "Show a line for each port: its service and address, whether it is registered, and"
                " why not.", _CODES),
        _asking("explain", "Show why a container is not registered.",
                "Show what became of each port of one container, why, and what you can do about"
                " it. Give the container's name, or the start of its id.", _CODES,
                operand="<container>"),
        _asking("watch", "Show the list, and then each change.",
                "Show the list once, and then a line for each port that comes (+), goes (-) or"
                " changes (~). It ends with the agent, or with Ctrl-C."),
        _WITHDRAW,
    )
}  # fmt: skip
