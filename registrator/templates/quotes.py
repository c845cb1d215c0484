"""Texts and characters in quotes, as Go writes them and reads them."""

import re

from registrator.templates.errors import TemplateError

_NAMED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_LETTERS = {code: letter for letter, code in _NAMED.items()}
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)


def quote(text: str, flags: str = "", mark: str = '"') -> str:
    """A text in quotes. The flag ``#`` asks for back quotes, and ``+`` for ASCII only."""
    if (
        "#" in flags
        and mark == '"'
        and not re.search("[\x00-\x08\x0a-\x1f\x7f`\ud800-\udfff]", text)
    ):
        return f"`{text}`"
    ascii_only = "+" in flags
    return mark + "".join(_quoted(char, mark, ascii_only) for char in text) + mark


def _quoted(char: str, mark: str, ascii_only: bool) -> str:
    code = ord(char)
    if char == mark or code in _LETTERS:
        return "\\" + _LETTERS.get(code, char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char.isprintable() and (code < 128 or not ascii_only):
        return char
    if code < 32 or code == 127:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(quoted: str) -> str:
    """The text of a constant with its quotes. Raises `TemplateError`."""
    mark, body = quoted[0], quoted[1:-1]
    if mark == "`":
        return body.replace("\r", "")
    made, end = bytearray(), 0
    for match in re.finditer(r"\\", body):
        if match.start() < end:
            continue
        made += body[end : match.start()].encode(errors="surrogateescape")
        escape = _ESCAPE.match(body, match.start())
        if escape is None or escape[1] == ("'" if mark == '"' else '"'):
            raise TemplateError("a constant has a backslash before what cannot follow it")
        made += _meant(escape)
        end = escape.end()
    made += body[end:].encode(errors="surrogateescape")
    return made.decode(errors="surrogateescape")


def _meant(escape: re.Match[str]) -> bytes:
    named, octal, byte, short, long = escape.groups()
    if named:
        return bytes([_NAMED.get(named, ord(named))])
    if octal or byte:
        number = int(octal, 8) if octal else int(byte, 16)
        if number > 255:
            raise TemplateError("a constant has a byte of more than 255")
        return bytes([number])
    number = int(short or long, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise TemplateError("a constant has a character that does not exist")
    return chr(number).encode()


def rune(quoted: str) -> int:
    """The number of a constant character. Raises `TemplateError`."""
    escape = _ESCAPE.fullmatch(quoted[1:-1])
    if escape is not None and (escape[2] or escape[3]):
        return _meant(escape)[0]
    text = unquote(quoted)
    if len(text) != 1:
        raise TemplateError("a constant in single quotes has to be one character")
    return ord(text) if not 0xDC80 <= ord(text) <= 0xDCFF else 0xFFFD
