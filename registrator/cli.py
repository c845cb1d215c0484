"""The command line: Go-style flags, as users of gliderlabs/registrator write them.

The first word may be the name of a command (see `registrator.commands`). Otherwise the call runs
the agent. An option is ``-name`` or ``--name``. Its value follows after ``=`` or as the next word.
A boolean takes a value only after ``=``. If an option is given twice, the last one counts, as in
Go. Options may stand before and after the URIs, and ``--`` ends them.
"""

import os
import re
import signal
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from registrator import __version__
from registrator.commands.table import COMMANDS, Subcommand
from registrator.config import ConfigErrors, configure, own_values
from registrator.options import BOOLEANS, OPTIONS, Option, misspelt
from registrator.system.hide_secrets import hide_secrets
from registrator.system.memory import import_requests_without_charset_detection

EXAMPLES = """\
  # a Consul agent on this host
  registrator consul://127.0.0.1:8500
  # published ports at an address of your choice
  registrator -ip 192.0.2.10 consul://127.0.0.1:8500
  # a registry with several addresses, and failover
  registrator zookeeper://zk1:2181,zk2:2181,zk3:2181/services
  # entries that go when the host is dead
  registrator -ttl 30 -ttl-refresh 10 etcd://127.0.0.1:2379/services
  # several registries
  registrator consul://127.0.0.1 file:///run/services.json
  # only some containers in one of them
  registrator consul://127.0.0.1 file:///run/public.json?filter=label=public
"""


class Words(NamedTuple):
    """The parts of a command line. `wrong` says what is wrong with its form.

    An option without the value that it needs is `given` as None.
    """

    given: dict[str, str | None]
    uris: list[str]
    wrong: list[str]


def split(args: Iterable[str], known: Sequence[Option] = OPTIONS) -> Words:
    """Split a command line into options by name and other words, which are registry URIs."""
    options = {option.name: option for option in known}
    words = Words({}, [], [])
    rest = deque(args)
    while rest:
        word = rest.popleft()
        if word == "--":
            words.uris.extend(rest)
            break
        if not word.startswith("-") or word == "-":
            words.uris.append(word)
            continue
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        option = options.get(name)
        if option is None:
            words.wrong.append(_unknown(name))
        else:
            words.given[name] = value if equals else _following(option, rest, words.wrong)
    return words


def _following(option: Option, rest: deque[str], wrong: list[str]) -> str | None:
    """The value of an option without ``=``, or None if it needs one and there is none."""
    if option.metavar and rest:
        return rest.popleft()
    if option.metavar:
        wrong.append(f"-{option.name} needs a value")
        return None
    if rest and rest[0] in BOOLEANS:
        # Otherwise the word would count as a URI, and the option as true.
        value = rest.popleft()
        wrong.append(f"-{option.name} needs its value after '=': -{option.name}={value}")
        return value
    return "true"


def _unknown(name: str) -> str:
    """Name the option, unless it could be something else, such as a misplaced secret."""
    known = re.fullmatch(r"[A-Za-z][A-Za-z-]{0,30}", name)
    return f"unknown option -{name}" if known else "a word that starts with - is not an option"


class Command(click.Command):
    """A click command with Go's flags and a help text in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the words, and leave click's own options to click."""
        chosen = ctx.obj = COMMANDS.get(args[0]) if args else None
        before = args[: args.index("--")] if "--" in args else args
        for param in self.get_params(ctx):
            if set(before).intersection(param.opts):
                return super().parse_args(ctx, [param.opts[0]])
        if chosen:
            known = (*OPTIONS, *chosen.options) if chosen.alone else chosen.options
            ctx.params["words"] = split(args[1:], known)
        else:
            ctx.params["words"] = split(args)
        ctx.params["chosen"] = chosen
        return []

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line, like the original."""
        if ctx.obj:
            formatter.write_usage(f"registrator {ctx.obj.name}", ctx.obj.usage)
        else:
            formatter.write_usage("registrator", "[options] <registry URI>...")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the agent does, or the command."""
        if ctx.obj is None:
            super().format_help_text(ctx, formatter)
            return
        formatter.write_paragraph()
        with formatter.indentation():
            for paragraph in ctx.obj.text:
                formatter.write_text(paragraph)
                formatter.write_paragraph()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, and examples."""
        if ctx.obj is not None:
            with formatter.section("Options of its own"):
                formatter.write_dl([_help(option) for option in ctx.obj.options])
            return
        for group in dict.fromkeys(option.group for option in OPTIONS):
            with formatter.section(group):
                formatter.write_dl([_help(o) for o in OPTIONS if o.group == group])
        with formatter.section("Commands: a first word"):
            rows = [(each.name.ljust(22), each.summary) for each in COMMANDS.values()]
            formatter.write_dl(rows, col_max=26)
        with formatter.section("Other"):
            formatter.write_dl(
                [("-version", "Show the version."), ("-help, -h".ljust(22), "Show this text.")],
                col_max=26,
            )
        with formatter.section("Examples"):
            formatter.write(EXAMPLES)


def _help(option: Option) -> tuple[str, str]:
    default = f"  [{option.default}]" if option.default else ""
    return f"-{option.name} {option.metavar}".ljust(22), option.help + default


@click.command(
    cls=Command,
    context_settings={"help_option_names": ["-help", "--help", "-h"], "max_content_width": 100},
    help=f"""Keep service registries in step with what this host's Docker engine runs.

    Write options before or after the URIs, as -name or --name, with =value or a following value.
    Write booleans as -name, -name=true or -name=false. A variable can set each option too:
    {OPTIONS[-1].variable} sets -{OPTIONS[-1].name}. The command line wins.""",
)
@click.version_option(__version__, "-version", "--version", prog_name="registrator")
def command(words: Words, chosen: Subcommand | None) -> None:
    """Run the agent until it is told to end, or the chosen command."""
    if chosen:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os._exit(128 + number))
    if chosen and not chosen.alone:
        sys.exit(_ask(words, chosen))
    import_requests_without_charset_detection()
    for warning in misspelt(os.environ):
        click.echo(f"registrator: {warning}", err=True)
    try:
        mistakes = [*words.wrong]
        own = own_values(chosen.options if chosen else (), words.given, mistakes)
        operands = _operands(words, chosen, mistakes)
        asks = bool(chosen and chosen.asks)
        if misspelt_command := _meant(words.uris):
            raise ConfigErrors([misspelt_command])
        config = configure(words.given, words.uris, os.environ, mistakes, needs_uri=not asks)
    except ConfigErrors as errors:
        _refuse(errors.mistakes, chosen)
    if chosen:
        if asks:
            own["asks"] = not words.uris and words.given.keys() <= {o.name for o in chosen.options}
        sys.exit(import_module(chosen.module).run(config, *operands, **own))
    # Imported late, so that help and errors appear at once.
    from registrator.agent import run

    sys.exit(run(config))


def _meant(uris: Sequence[str]) -> str:
    """A hint if one of the registry URIs is no URI, but a command or nearly one.

    No other word is shown, as it may be a secret.
    """
    # Imported late: an agent needs no such hint.
    from difflib import get_close_matches

    for word in filter(str.isalpha, uris):
        for name in get_close_matches(word, COMMANDS, 1, 0.75):
            if word == name:
                return f"{name} is a command: it has to be the first word"
            return f"{word} is no command and no registry URI: did you mean {name}?"
    return ""


def _ask(words: Words, chosen: Subcommand) -> int:
    """Run a command that only asks the running agent, and return its exit code."""
    mistakes = [*words.wrong]
    own = own_values(chosen.options, words.given, mistakes)
    if words.uris:
        mistakes.append(f"{chosen.name} asks the agent that runs here: it takes no further word")
    if mistakes:
        _refuse(mistakes, chosen)
    code: int = import_module(chosen.module).run(**own)
    return code


def _operands(words: Words, chosen: Subcommand | None, mistakes: list[str]) -> list[str]:
    """Take the first word away from the URIs if the command has an operand."""
    if not (chosen and chosen.operand):
        return []
    if not words.uris or "://" in words.uris[0]:
        mistakes.append(f"{chosen.name} needs {chosen.operand} as its first word")
        return []
    return [words.uris.pop(0)]


def _refuse(mistakes: Iterable[str], chosen: Subcommand | None) -> NoReturn:
    """Print all mistakes of the call, and end with code 2."""
    for mistake in mistakes:
        click.echo(f"registrator: {mistake}", err=True)
    name = f"registrator {chosen.name}" if chosen else "registrator"
    click.echo(f"Try '{name} --help' for the options.", err=True)
    sys.exit(2)


def main() -> None:
    """The console script."""
    # The agent takes over later. Until then the kernel would ignore these for process 1.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    hide_secrets()
    command(prog_name="registrator")
