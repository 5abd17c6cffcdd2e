"""The templates of HTML pages: one directory below `templates/` for each, and how they are rendered."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def directory_of(page: str) -> Path:
    """Return the directory of a page's templates: the checkout's, or the one installed with the package.

    Raises:
        FileNotFoundError: they are in neither.
    """
    package = Path(__file__).resolve().parent
    for directory in (package.parent / "templates" / page, package / "templates" / page):
        if (directory / "page.html.j2").is_file():
            return directory
    raise FileNotFoundError(
        f"there is no {page}/page.html.j2 in {package.parent / 'templates'} or {package / 'templates'}: run "
        "from a checkout, or install a package that has the templates"
    )


def templates_in(directory: Path) -> Environment:
    """Return the templates of a directory. They escape what they are given, and want all that they name."""
    return Environment(
        loader=FileSystemLoader(directory),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
