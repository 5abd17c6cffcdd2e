"""Rendering of the repository's templates, the same files the roles render."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from router_agent.lab.errors import LabError

TEMPLATES = Path(__file__).parents[2] / "templates"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - configuration files, not HTML
)


def render(template: str, **variables: object) -> str:
    """Return a rendered template.

    Args:
        template: file name below ``templates/``.
        variables: what the template wants; one that is missing is an error.

    Raises:
        LabError: the template is missing or broken, or a variable it needs was not given.
    """
    try:
        return _ENVIRONMENT.get_template(template).render(variables)
    except TemplateError as error:
        raise LabError(f"{TEMPLATES / template}: {type(error).__name__}: {error}") from error
