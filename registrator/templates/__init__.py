"""Templates in the language of Go's ``text/template``, over an engine's inspection of a container.

The operator writes a template, and containers fill in the data. So a template cannot reach anything
but the data: there is no `eval`, no access to Python's attributes, and no network. Each evaluation
has a limit of steps and of text (see `limits`). The grammar, with blanks left out::

    template  = { text | "{{" ["- "] action [" -"] "}}" | "{{/*" comment "*/}}" }
    action    = pipeline | "if" pipeline | "range" pipeline | "with" pipeline
              | "else" ["if" pipeline | "with" pipeline] | "end" | "break" | "continue"
    pipeline  = [ variable ["," variable] (":=" | "=") ] command { "|" command }
    command   = operand { operand }
    operand   = ( "." | "nil" | literal | field | variable | function | "(" pipeline ")" ) { field }
    field     = "." name
    variable  = "$" [ name ]
    literal   = "true" | "false" | number | character | string in "" or in ``

``- `` removes the blanks before an action, and `` -`` those after it. A pipe passes its value on as
the last argument. ``$`` is the whole inspection. `functions` lists the functions.

`lexer` makes tokens of the text, `parser` a tree (see `nodes`), and `evaluate` a text of the tree.
`fields` has the field names of the data, and `values` the types.
"""

import re
from collections.abc import Mapping
from typing import Any

from registrator.templates.errors import EvaluationError, TemplateError

__all__ = ["EvaluationError", "Template", "TemplateError"]


class Template:
    """A text that was read as a template. Raises `TemplateError` if it is none.

    The other modules are imported late, because most agents have no template.
    """

    def __init__(self, text: str) -> None:
        from registrator.templates.parser import parse

        # A command line has bytes that are no UTF-8 as some of these. The others mean nothing.
        self.text = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
        self._body = parse(self.text)

    def evaluate(self, inspection: Mapping[str, Any]) -> str:
        """The text for one container. Raises `EvaluationError`, and nothing else."""
        from registrator.templates.evaluate import evaluate

        return evaluate(self._body, inspection, self.text)
