"""The errors of templates. None of them shows a value, since a value may be a secret."""


class TemplateError(Exception):
    """The text is no template. The operator has to correct it."""


class EvaluationError(Exception):
    """The template cannot be evaluated for one container."""


def place(text: str, position: int) -> str:
    """The line and the column of a position in a template, both from 1 on."""
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"
