"""A recipe of experiments/: `recipe.yaml`, which a person writes, says which sweeps it consists of.

What they found is in `pipelines.record`, what others published on the question in `pipelines.published`.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.checkout import REPOSITORY
from pipelines.errors import UserError

RECIPE = "recipe.yaml"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Overrides = Annotated[tuple[str, ...], Field(min_length=1)]


class Checked(BaseModel):
    """Content of a file of a recipe: typed, complete, and nothing more."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Kind = TypeVar("Kind", bound=Checked)


class Bands(Checked):
    """How far an accuracy may lie from its record.

    Attributes:
      confidence: probability that no row of an unchanged program drifts.
      test_examples: size of the test set; one example of it is the narrowest band.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    test_examples: Annotated[int, Field(gt=0)]


class Part(Checked):
    """One of several sweeps, where settings differ in a way that no single sweep can say.

    Attributes:
      sweep: overrides that this part adds to those of all parts.
      variant: what sets its runs apart from other runs of the same pipeline and epsilon, such as "6,000 users"; it
        has a line of its own in the figure. None where nothing does: epsilons with settings of their own.
    """

    sweep: tuple[str, ...] = ()
    variant: Annotated[str, Field(min_length=1)] | None = None


class Sweeps(Checked):
    """Sweeps that make one record, each as overrides of `python -m pipelines.run -m`.

    Attributes:
      sweep: in every part.
      parts: the sweeps; one that adds nothing where a recipe names none.
      record, check: added for the record, and for a comparison with it.
    """

    sweep: Overrides
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = (Part(),)
    record: Overrides
    check: Overrides

    def commands(self, added: Overrides) -> list[tuple[str | None, tuple[str, ...]]]:
        """Variant and overrides of each part, with what a form adds."""
        return [(part.variant, (*self.sweep, *part.sweep, *added)) for part in self.parts]


class Recipe(Sweeps):
    """A recipe in its sizes.

    Attributes:
      quick: a comparison of two minutes at most. Either overrides that choose a part of the recorded rows, or, where
        that would be too slow, sweeps of their own with a record of their own.
      bands: of the comparisons.
    """

    quick: Overrides | Sweeps
    bands: Bands


def recipe_names() -> list[str]:
    """The recipes of this checkout."""
    return sorted(path.parent.name for path in (REPOSITORY / "experiments").glob(f"*/{RECIPE}"))


def read_recipe(folder: Path) -> Recipe:
    """Reads `recipe.yaml`.

    Raises:
      UserError: missing, or not as `Recipe` has it.
    """
    if not (folder / RECIPE).exists():
        raise UserError(f"{folder / RECIPE} does not exist; the recipes are: {', '.join(recipe_names())}")
    try:
        return parse_as(Recipe, yaml.safe_load(read_text(folder / RECIPE)), folder / RECIPE)
    except yaml.YAMLError as error:
        raise UserError(f"{folder / RECIPE} is no YAML: {' '.join(str(error).split())}") from None


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
      UserError: the first value that does not fit, with its place.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise UserError(f"{where}: {field}={first['input']!r:.80}: {first['msg']}") from None
