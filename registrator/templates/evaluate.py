"""Evaluates the tree of a template over an inspection."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from registrator.templates.errors import EvaluationError, place
from registrator.templates.functions import FUNCTIONS
from registrator.templates.limits import ITEM, Limits, Output
from registrator.templates.nodes import (
    Body,
    Choice,
    Command,
    Dot,
    Function,
    Leave,
    Literal,
    Loop,
    Nil,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from registrator.templates.plain import shown
from registrator.templates.values import (
    NO_VALUE,
    Duration,
    List,
    Map,
    Struct,
    field,
    truth,
    type_name,
)

# Stands for the value before the first command of a pipeline, and behind the last argument.
_NOTHING = object()


def evaluate(body: Body, inspection: Mapping[str, Any], text: str) -> str:
    """The text that a template makes of an inspection. Raises `EvaluationError` only."""
    evaluation = _Evaluation(inspection)
    try:
        evaluation.write(body, evaluation.root)
    except EvaluationError as error:
        raise EvaluationError(f"{place(text, evaluation.position)}: {error}") from None
    # Two halves of a character may have come together.
    data = evaluation.out.text.encode(errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", "\ufffd", data.decode(errors="surrogateescape"))


class _Evaluation:
    """One evaluation: its limits, its text so far, its variables, and where it is."""

    def __init__(self, inspection: Mapping[str, Any]) -> None:
        self.limits = Limits()
        self.out = Output(self.limits)
        self.root = Struct("Container", inspection, pointer=True)
        self.variables: list[tuple[str, Any]] = [("$", self.root)]
        self.position = 0

    def write(self, body: Body, dot: Any) -> Leave | None:
        """Write what a body makes. Returns the `break` or `continue` that ends it."""
        for node in body:
            self.limits.step()
            leave: Leave | None = None
            if isinstance(node, Text):
                self.out.add(node.text)
            elif isinstance(node, Pipeline):
                value = self.value_of(node, dot)
                if not node.names:
                    self.out.add(shown(value, self.limits))
            elif isinstance(node, Leave):
                leave = node
            else:
                before = len(self.variables)
                walk = self.write_choice if isinstance(node, Choice) else self.write_loop
                leave = walk(node, dot)  # type: ignore[arg-type]
                del self.variables[before:]
            if leave is not None:
                return leave
        return None

    def write_choice(self, node: Choice, dot: Any) -> Leave | None:
        """Write the first branch whose condition is true."""
        for branch in node.branches:
            value = self.value_of(branch.condition, dot)
            if truth(value):
                return self.write(branch.body, value if branch.sets_dot else dot)
        return self.write(node.otherwise, dot)

    def write_loop(self, node: Loop, dot: Any) -> Leave | None:
        """Write the body once for each item."""
        names, over = node.over.names, self.value_of(node.over, dot)
        before, empty = len(self.variables), True
        for key, item in self.items(over):
            self.limits.step()
            empty = False
            for name, value in zip(
                names, (item,) if len(names) == 1 else (key, item), strict=False
            ):
                self.set(name, value)
            leave = self.write(node.body, item)
            del self.variables[before:]
            if leave is not None and not leave.goes_on:
                return None
        return self.write(node.otherwise, dot) if empty else None

    def items(self, over: Any) -> Iterable[tuple[Any, Any]]:
        """The keys and items that a ``range`` goes over."""
        if isinstance(over, List):
            return enumerate(over)
        if isinstance(over, Map):
            return over.items(self.limits)
        if type(over) is int:
            return ((number, number) for number in range(over))
        if over is NO_VALUE:
            return ()
        raise EvaluationError(f"range cannot go over {type_name(over)}")

    def set(self, name: str, value: Any) -> None:
        """Set the youngest variable of a name."""
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                self.variables[at] = (name, value)
                return
        raise EvaluationError(f"the variable {name[:40]} is not set")

    def value_of(self, pipeline: Pipeline, dot: Any) -> Any:
        """The value of the last command. The variables of the pipeline get it."""
        value = _NOTHING
        for command in pipeline.commands:
            value = self.command(command, dot, value)
        for name in pipeline.names:
            if pipeline.assigns:
                self.set(name, value)
            else:
                self.variables.append((name, value))
        return value

    def command(self, command: Command, dot: Any, last: Any) -> Any:
        """The value of a command. `last` is that of the command before it."""
        self.limits.step()
        self.position = command.position
        if isinstance(command.first, Function):
            return self.call(command.first, command.arguments, dot, last)
        if command.arguments or last is not _NOTHING:
            raise EvaluationError("what is no function has arguments")
        if isinstance(command.first, Nil):
            raise EvaluationError("nil is no command")
        return self.operand(command.first, dot)

    def operand(self, operand: Operand, dot: Any) -> Any:
        """The value of an operand."""
        self.limits.step()
        self.position = operand.position
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Nil):
            return NO_VALUE
        if isinstance(operand, Variable):
            for name, value in reversed(self.variables):
                if name == operand.name:
                    return value
            raise EvaluationError(f"the variable {operand.name[:40]} is not set")
        if isinstance(operand, Function):
            return self.call(operand, (), dot, _NOTHING)
        if isinstance(operand, Pipeline):
            return self.value_of(operand, dot)
        value = self.operand(operand.of, dot)
        for name in operand.names:
            self.position = operand.position
            value = field(value, name, self.limits)
        return value

    def call(self, function: Function, arguments: tuple[Operand, ...], dot: Any, last: Any) -> Any:
        """The value of a function."""
        known, name = FUNCTIONS[function.name], function.name
        count = len(arguments) + (last is not _NOTHING)
        least = len(known.types) - known.more
        if count < least or (count > least and not known.more):
            raise EvaluationError(f"{name} has {count} arguments and needs {least}")
        if name in ("and", "or"):
            return self.junction(name == "or", arguments, dot, last)
        values = []
        for number in range(count):
            kind = known.types[min(number, len(known.types) - 1)]
            if number == len(arguments):
                values.append(self.fitting(kind, last))
            else:
                values.append(self.argument(kind, arguments[number], dot))
        self.position = function.position
        self.limits.step(sum(len(each) for each in values if isinstance(each, str)))
        made = known.call(self.limits, *values)
        if isinstance(made, str):
            self.limits.fits(len(made))
        return made

    def junction(self, wanted: bool, arguments: tuple[Operand, ...], dot: Any, last: Any) -> Any:
        """The first value of an ``and`` or ``or`` that decides it, or the last one."""
        value = None
        for argument in arguments:
            value = self.operand(argument, dot)
            if truth(value) == wanted:
                return value
        return value if last is _NOTHING else last

    def argument(self, kind: str, operand: Operand, dot: Any) -> Any:
        """The value of an argument, with the type that the function needs."""
        if kind == "int" and isinstance(operand, Literal) and operand.whole is not None:
            return operand.whole
        return self.fitting(kind, self.operand(operand, dot))

    def fitting(self, kind: str, value: Any) -> Any:
        """A value, if it has the type. Nil counts as an empty list or map."""
        fits = {
            "any": True,
            "string": isinstance(value, str),
            "int": isinstance(value, int) and not isinstance(value, bool | Duration),
            "texts": isinstance(value, List) and self.all_texts(value),
            "map": isinstance(value, Map) and value.kind in ("string", "any"),
        }
        if value is NO_VALUE and kind in ("texts", "map"):
            return List("text", ()) if kind == "texts" else Map("string", {})
        if not fits[kind]:
            names = {"string": "a text", "int": "a whole number", "texts": "a list of texts"}
            needed = names.get(kind, "a map of texts")
            raise EvaluationError(f"it needs {needed} and has {type_name(value)}")
        return value

    def all_texts(self, value: List) -> bool:
        """Whether a list has only texts."""
        self.limits.step(ITEM * len(value.raw))
        return value.kind == "text" or all(isinstance(item, str) for item in value)
