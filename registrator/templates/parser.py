"""Makes a tree of a template's tokens. It takes time in proportion to the text."""

from registrator.templates.errors import TemplateError, place
from registrator.templates.functions import FUNCTIONS
from registrator.templates.lexer import Token, tokens
from registrator.templates.nodes import (
    Body,
    Branch,
    Choice,
    Command,
    Dot,
    Fields,
    Function,
    Leave,
    Literal,
    Loop,
    Nil,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from registrator.templates.numbers import number
from registrator.templates.quotes import rune, unquote

# How deep parentheses and blocks may stand in each other, since each takes a part of the stack.
MAX_DEPTH = 40

# Go has these, and they are left out on purpose.
REFUSED = {
    **dict.fromkeys(("define", "template", "block"), "write its text at the place of its use"),
    **dict.fromkeys(
        ("httpGet", "jsonParse"),
        'get the value before the agent starts, such as with -tags "az=$(curl …)"',
    ),
    "call": "a container has no functions to call",
    "js": "a tag is no JavaScript",
}
KEYWORDS = frozenset({"if", "range", "with", "else", "end", "break", "continue"})

# With these a command has to be a function, unless it is the first one of its pipeline.
_NO_FUNCTIONS = (Literal, Dot, Nil)


def parse(text: str) -> Body:
    """The tree of a template. Raises `TemplateError`."""
    return _Parser(text).template()


class _Parser:
    """The tokens of a template, the names of its variables so far, and the present depth."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.ahead: list[Token] = []
        self.names = ["$"]
        self.depth = 0
        self.loops = 0

    def template(self) -> Body:
        body, last = self.body()
        if last.kind != "end":
            raise self.error(last, f"{last.text} has nothing that it belongs to")
        return body

    def error(self, at: Token | int, why: str) -> TemplateError:
        position = at if isinstance(at, int) else at.position
        return TemplateError(f"{place(self.text, position)}: {why}")

    def peek(self, blanks: bool = False) -> Token:
        """The next token, without taking it. With `blanks` it may be a blank."""
        index = 0
        while True:
            if index == len(self.ahead):
                self.ahead.append(next(self.tokens))
            if blanks or self.ahead[index].kind != "blank":
                return self.ahead[index]
            index += 1

    def take(self, blanks: bool = False) -> Token:
        """The next token. With `blanks` it may be a blank."""
        token = self.peek(blanks)
        while self.ahead.pop(0) is not token:
            pass
        return token

    def body(self) -> tuple[Body, Token]:
        """All up to an ``else``, an ``end`` or the template's end, and that token."""
        nodes: list[Node] = []
        while True:
            token = self.take()
            if token.kind == "end":
                return tuple(nodes), token
            if token.kind == "text":
                nodes.append(Text(token.text))
                continue
            word = self.peek()
            if word.kind == "word" and word.text in ("else", "end"):
                return tuple(nodes), self.take()
            nodes.append(self.action())

    def action(self) -> Node:
        """An action behind its ``{{``."""
        word = self.peek()
        if word.kind != "word" or word.text not in KEYWORDS:
            return self.pipeline("an action", "}}")
        self.take()
        if word.text in ("break", "continue"):
            if not self.loops:
                raise self.error(word, f"{word.text} stands outside of a range")
            self.close(word)
            return Leave(word.text == "continue")
        self.enter(word)
        before = len(self.names)
        made = self.loop() if word.text == "range" else self.choice(word)
        del self.names[before:]
        self.depth -= 1
        return made

    def enter(self, at: Token) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(at, f"more than {MAX_DEPTH} blocks and parentheses in each other")

    def close(self, after: Token) -> None:
        """Take the end of an action."""
        if self.take().kind != "}}":
            raise self.error(after, f"}}}} has to follow {after.text}")

    def loop(self) -> Loop:
        over = self.pipeline("range", "}}")
        self.loops += 1
        body, last = self.body()
        self.loops -= 1
        otherwise: Body = ()
        if last.text == "else":
            self.close(last)
            otherwise, last = self.body()
        self.end(last)
        return Loop(over, body, otherwise)

    def choice(self, word: Token) -> Choice:
        """An ``if`` or a ``with``, with all of its ``else if`` or ``else with``."""
        branches = []
        while True:
            condition = self.pipeline(word.text, "}}")
            body, last = self.body()
            branches.append(Branch(condition, body, word.text == "with"))
            if last.text == "else" and self.peek().text == word.text:
                self.take()
                continue
            otherwise: Body = ()
            if last.text == "else":
                self.close(last)
                otherwise, last = self.body()
            self.end(last)
            return Choice(tuple(branches), otherwise)

    def end(self, last: Token) -> None:
        """Check that a block ends here, and take the end of its last action."""
        if last.kind != "word" or last.text != "end":
            raise self.error(last, "an end is missing")
        self.close(last)

    def pipeline(self, what: str, close: str) -> Pipeline:
        """A pipeline up to its closing token, which it takes."""
        start = self.peek()
        names, assigns = self.variables(what)
        commands: list[Command] = []
        while self.peek().kind != close:
            commands.append(self.command())
            if len(commands) > 1 and isinstance(commands[-1].first, _NO_FUNCTIONS):
                raise self.error(commands[-1].position, "a function has to stand behind |")
        self.take()
        if not commands:
            raise self.error(start, f"{what} has no value")
        return Pipeline(start.position, names, assigns, tuple(commands))

    def variables(self, what: str) -> tuple[tuple[str, ...], bool]:
        """The variables that a pipeline sets, and whether they are old ones."""
        names: list[str] = []
        while self.peek().kind == "variable":
            variable, after = self.take(), self.peek()
            if after.kind in ("declare", "assign"):
                self.take()
                names.append(variable.text)
                if after.kind == "declare":
                    self.names += names
                for name in names:
                    self.check_variable(name, variable)
                return tuple(names), after.kind == "assign"
            if after.kind != "comma":
                self.ahead.insert(0, variable)
                break
            if what != "range" or names:
                raise self.error(after, f"{what} sets too many variables")
            self.take()
            names.append(variable.text)
        if names:
            raise self.error(self.peek(), "a second variable and := have to follow the comma")
        return (), False

    def check_variable(self, name: str, at: Token) -> None:
        if name not in self.names:
            raise self.error(at, f"the variable {name[:40]} is not set")

    def command(self) -> Command:
        """An operand and those behind it, up to a pipe or a closing token."""
        operands = [self.operand()]
        while True:
            token = self.peek(blanks=True)
            if token.kind == "blank":
                self.take(blanks=True)
                if self.peek().kind not in ("pipe", "}}", "close"):
                    operands.append(self.operand())
                continue
            if token.kind == "pipe":
                self.take()
            elif token.kind not in ("}}", "close"):
                raise self.error(token, f"{token.text[:40]!a} has to stand behind a blank")
            first, *arguments = operands
            return Command(first.position, first, tuple(arguments))

    def operand(self) -> Operand:
        """A term with its fields."""
        token = self.peek()
        term = self.term()
        names = [token.text[1:]] if token.kind == "field" else []
        while self.peek(blanks=True).kind == "field":
            names.append(self.take().text[1:])
        if not names:
            return term
        if isinstance(term, _NO_FUNCTIONS) and token.kind != "field":
            raise self.error(token, "it has no fields")
        return Fields(token.position, term, tuple(names))

    def term(self) -> Operand:
        token = self.take()
        kind, text, position = token
        try:
            if kind in ("string", "raw"):
                return Literal(position, unquote(text))
            if kind == "char":
                return Literal(position, rune(text), rune(text))
            if kind == "number":
                return Literal(position, *number(text))
        except TemplateError as error:
            raise self.error(token, str(error)) from None
        if kind in ("dot", "field"):
            return Dot(position)
        if kind == "variable":
            self.check_variable(text, token)
            return Variable(position, text)
        if kind == "word":
            return self.word(token)
        if kind != "open":
            raise self.error(token, "a value is missing" if kind == "}}" else
                             f"{text[:40]!a} cannot stand here")  # fmt: skip
        self.enter(token)
        pipeline = self.pipeline("a pair of parentheses", "close")
        self.depth -= 1
        return pipeline

    def word(self, token: Token) -> Operand:
        text, position = token.text, token.position
        if text in ("true", "false"):
            return Literal(position, text == "true")
        if text == "nil":
            return Nil(position)
        if text in REFUSED:
            raise self.error(token, f"{text} is not supported: {REFUSED[text]}")
        if text in KEYWORDS:
            raise self.error(token, f"{text} has to be the first word of an action")
        if text not in FUNCTIONS:
            raise self.error(token, f"there is no function {text[:40]!a}")
        return Function(position, text)
