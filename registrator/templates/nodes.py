"""The tree of a template. `position` is where something begins in the template's text."""

from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. `whole` is a number's value where an integer is asked for."""

    position: int
    value: Any
    whole: int | None = None


@dataclass(frozen=True, slots=True)
class Nil:
    """The word ``nil``."""

    position: int


@dataclass(frozen=True, slots=True)
class Dot:
    """The present data."""

    position: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable with its ``$``."""

    position: int
    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function's name."""

    position: int
    name: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of an operand, from the outer one to the inner one."""

    position: int
    of: "Operand"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A value, or a function with its arguments."""

    position: int
    first: "Operand"
    arguments: tuple["Operand", ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each with the value of the one before. It may set variables, new or old ones."""

    position: int
    names: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]


Operand = Union[Literal, Nil, Dot, Variable, Function, Fields, Pipeline]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class Text:
    """A text outside of actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Branch:
    """One condition of an ``if`` or a ``with``, with what stands below it."""

    condition: Pipeline
    body: "Body"
    sets_dot: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """An ``if`` or a ``with``: the first branch whose condition is true."""

    branches: tuple[Branch, ...]
    otherwise: "Body"


@dataclass(frozen=True, slots=True)
class Loop:
    """A ``range``."""

    over: Pipeline
    body: "Body"
    otherwise: "Body"


@dataclass(frozen=True, slots=True)
class Leave:
    """A ``break``, or a ``continue`` if `goes_on`."""

    goes_on: bool


Node = Union[Text, Pipeline, Choice, Loop, Leave]  # noqa: UP007
Body = tuple[Node, ...]
