"""The one table of commands. The command line and the help read it.

A command is the first word of a call. No command is a URI, so the agent's calls mean what they
always meant. A command that works at the registries also takes the agent's options and variables.
So you put its name before the agent's own words, and it reads the registries as that agent does.
Some commands ask the running agent. They work at the registries only if you give a URI or an option
of the agent.
"""

from typing import NamedTuple

from registrator.options import Option, boolean, word


class Subcommand(NamedTuple):
    """A command: its `name`, a `summary` in one line, and a `text` of some paragraphs.

    `options` are those of its own. No variable sets them. `module` has a function ``run``, which
    returns the exit code. It gets the values of the command's own options. Before them it gets the
    `Config`, if the command works `alone`, and a word for its `operand`, if it has one. A command
    that also `asks` the running agent is told which of the two it is to do.
    """

    name: str
    summary: str
    text: tuple[str, ...]
    options: tuple[Option, ...]
    module: str
    asks: bool = False
    alone: bool = True
    operand: str = ""

    @property
    def usage(self) -> str:
        """The words that follow the command."""
        uris = "" if not self.alone else "[<registry URI>...]" if self.asks else "<registry URI>..."
        return " ".join(filter(None, ("[options]", self.operand, uris)))


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


def _json(name: str) -> Option:
    return Option(
        "json", "json", name.capitalize(), "", "false", "Print JSON, as in docs/seeing.md.", boolean
    )


def _seeing(
    name: str, summary: str, *text: str, operand: str = "", asks: bool = True, alone: bool = True
) -> Subcommand:
    """A command that changes nothing."""
    module = f"registrator.commands.{name}"
    return Subcommand(name, summary, text, (_json(name),), module, asks, alone, operand)


_ASKS = "It asks the agents that run here, as their own user or as root."
_OR_URIS = (
    f"{_ASKS} With registry URIs, or with options of the agent, it asks nobody. It reads the"
    " engine and these registries itself, and writes nothing."
)
_OR_ALONE = f"{_OR_URIS} It also reads the engine if no agent runs."
_ALONE = "It takes the URIs and all options of the agent. It asks no agent, and writes nothing."
_CODES = (
    "Exit codes: 0 if all is fine, 1 if not, 2 if the call is wrong, 3 if an agent, the engine or a"
    " registry does not answer."
)

COMMANDS = {
    each.name: each
    for each in (
        _seeing("status", "Show the agent, the engine and each registry.",
                "Show the agent's version and address, whether the engine answers, and each"
                " registry with its counts.", _CODES, _ASKS, alone=False),
        _seeing("list", "Show each port, and what became of it.",
                "Show a line for each port: its service and address, whether it is registered, and"
                " why not.", _CODES, _OR_ALONE),
        _seeing("explain", "Show why a container is not registered.",
                "Show what became of each port of one container, why, and what you can do about"
                " it. Give the container's name, or the start of its id.", _CODES, _OR_ALONE,
                operand="<container>"),
        _seeing("watch", "Show the list, and then each change.",
                "Show the list once, and then a line for each port that comes (+), goes (-) or"
                " changes (~). It ends with the agent, or with Ctrl-C.", _OR_URIS),
        _seeing("check", "Check options, engine and registries.",
                "Show whether the options are right, and whether the engine and each registry"
                " answer. It tries no write.", _CODES, _ALONE, asks=False),
        _seeing("diff", "Show what the agent would write.",
                "Show each entry that the agent would register (+), change (~) or remove (-), and"
                " each that it cannot write (!). Exit code 1 means that there is a difference.",
                _CODES, _ALONE, asks=False),
        _WITHDRAW,
    )
}  # fmt: skip
