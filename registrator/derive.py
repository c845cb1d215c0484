"""Evaluates the templates of ``-tags`` and ``-name`` for one container.

The engine's client calls it while it holds a whole inspection. Only the result is kept.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from registrator.config import Config
from registrator.derived import Derived
from registrator.desired.metadata import split_tags
from registrator.templates import EvaluationError, Template


def derivation(config: Config) -> Callable[[Mapping[str, Any]], Derived] | None:
    """The function that evaluates both templates, or None if no option is one."""
    tags = config.tags if isinstance(config.tags, Template) else None
    if tags is None and config.name is None:
        return None
    return partial(_derived, tags, config.name)


def _derived(tags: Template | None, name: Template | None, answer: Mapping[str, Any]) -> Derived:
    listed, tags_error = _evaluated("-tags", tags, answer)
    # The original keeps the blanks around a tag.
    split = split_tags(listed, strip=False)
    named, name_error = _evaluated("-name", name, answer)
    return Derived(split, named, tags_error, name_error)


def _evaluated(
    option: str, template: Template | None, answer: Mapping[str, Any]
) -> tuple[str, str]:
    """The text of a template and an empty error, or an error."""
    if template is None:
        return "", ""
    try:
        return template.evaluate(answer), ""
    except EvaluationError as error:
        return "", f"{option} cannot be evaluated for it: {error}"
