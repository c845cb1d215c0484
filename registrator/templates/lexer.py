"""Cuts a template into tokens. It takes time in proportion to the text."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from registrator.templates.errors import TemplateError, place

BLANKS = " \t\r\n"

# The tokens of an action. The order counts: the first that matches is taken.
_TOKENS = re.compile(
    r"""
    (?P<blank>[ \t\r\n]+)
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
  | (?P<raw>`[^`]*`)
  | (?P<char>'(?:[^'\\\n]|\\[^\n])*')
  | (?P<declare>:=)
  | (?P<assign>=)
  | (?P<pipe>\|)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<comma>,)
  | (?P<number>[+-]?\.?[0-9](?:[eEpP][+-]|[\w.])*|[+-])
  | (?P<variable>\$\w*)
  | (?P<field>\.\w+)
  | (?P<dot>\.)
  | (?P<word>\w+)
    """,
    re.VERBOSE,
)
# The characters that may follow a word. A number is checked when it is read.
_AFTER_WORD = re.compile(r"[ \t\r\n.,|:()}]|$")

_TRIM = re.compile(r"-(?=[ \t\r\n])")
_COMMENT = re.compile(r"(?:-[ \t\r\n])?/\*")
_END = re.compile(r"([ \t\r\n]-)?\}\}")


class Token(NamedTuple):
    """A piece of a template: a text, a word of an action, or one of its ends."""

    kind: str
    text: str
    position: int


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a template. An action stands between ``{{`` and ``}}``."""
    position, trimmed = 0, False
    while True:
        start = text.find("{{", position)
        piece = text[position:] if start < 0 else text[position:start]
        if trimmed:
            piece = piece.lstrip(BLANKS)
        if start >= 0 and _TRIM.match(text, start + 2):
            piece = piece.rstrip(BLANKS)
        if piece:
            yield Token("text", piece, position)
        if start < 0:
            break
        comment = _COMMENT.match(text, start + 2)
        if comment is not None:
            position, trimmed = _after_comment(text, comment.end())
            continue
        yield Token("{{", "", start)
        trim = _TRIM.match(text, start + 2)
        position = trim.end() if trim else start + 2
        while not (end := _END.match(text, position)):
            token = _token(text, position)
            position += len(token.text)
            yield token
        trimmed = end[1] is not None
        yield Token("}}", "", position)
        position = end.end()
    yield Token("end", "", len(text))


def _after_comment(text: str, position: int) -> tuple[int, bool]:
    """The end of a comment, and whether the blanks behind it go."""
    end = text.find("*/", position)
    if end < 0:
        raise TemplateError(f"the comment at {place(text, position)} has no end")
    close = _END.match(text, end + 2)
    if close is None:
        raise TemplateError(f"}}}} has to follow the comment that ends at {place(text, end)}")
    return close.end(), close[1] is not None


def _token(text: str, position: int) -> Token:
    """The next token of an action."""
    found = _TOKENS.match(text, position)
    if found is None or found.lastgroup is None:
        if position == len(text):
            raise TemplateError("an action has no end: }} is missing")
        what = "a text or character without an end" if text[position] in "\"'`" else "a character"
        raise TemplateError(f"{place(text, position)}: {what} that cannot stand in an action")
    kind, token = found.lastgroup, found[0]
    # A closing trim marker takes the last blank.
    if kind == "blank" and _END.match(text, position + len(token) - 1):
        token = token[:-1]
    if kind in ("word", "field", "variable") and not _AFTER_WORD.match(text, position + len(token)):
        raise TemplateError(f"{place(text, position + len(token))}: a character that cannot follow")
    return Token(kind, token, position)
