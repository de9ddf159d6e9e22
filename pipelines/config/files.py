"""Reads files that a person writes, and checks them against a section."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from pipelines.config.section import Section
from pipelines.core.errors import UserError

Text = Annotated[str, Field(min_length=1)]


Kind = TypeVar("Kind", bound=Section)


def read_yaml(kind: type[Kind], path: Path) -> Kind:
    """Reads a file that a person writes.

    Raises:
      UserError: it cannot be read, is no YAML, or not of that type.
    """
    try:
        return parse_as(kind, yaml.safe_load(read_text(path)), path)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def read_text(path: Path) -> str:
    """Reads a file of a recipe.

    Raises:
      UserError: it is not there, or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UserError(f"{path} cannot be read ({reason}); --record writes it") from None


def parse_as(kind: type[Kind], values: Any, where: object) -> Kind:
    """Checks values against a type.

    Raises:
      UserError: a value does not fit; the line names the first one and its place.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise UserError(f"{where}: {field}={first['input']!r:.80}: {first['msg']}") from None
