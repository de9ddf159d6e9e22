"""A recipe of experiments/: a person writes `recipe.yaml`, which lists its sweeps.

`recipes.record` has the results of the sweeps; `report.published_results` has published results on the same question.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from pipelines.config.files import Text, read_yaml
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.section import Positive, Section
from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

RECIPE = "recipe.yaml"
Overrides = Annotated[tuple[str, ...], Field(min_length=1)]


class Bands(Section):
    """Settings of the bands in which an accuracy must lie.

    Attributes:
      confidence: probability that no row of an unchanged program drifts.
      test_examples: size of the test set; the narrowest band is one test example.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    test_examples: Annotated[int, Field(gt=0)]


class Part(Section):
    """One of several sweeps, for settings that a single sweep cannot express.

    Attributes:
      sweep: overrides that this part adds to those of all parts.
      variant: the difference from other runs of the same pipeline and epsilon, such as "6,000 users"; it has its own
        line in the figure. None if there is none, such as where each epsilon has its own settings.
    """

    sweep: tuple[str, ...] = ()
    variant: Text | None = None


class Sweeps(Section):
    """Sweeps that make one record, each as overrides of `python -m pipelines.run -m`.

    Attributes:
      sweep: overrides of every part.
      parts: the sweeps; a single part without overrides if the recipe names none.
      record, check: overrides added for the record, and for a comparison with it.
    """

    sweep: Overrides
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = (Part(),)
    record: Overrides
    check: Overrides

    def commands(self, added: Overrides) -> list[tuple[str | None, tuple[str, ...]]]:
        """Variant and overrides of each part, with the overrides that a form adds."""
        return [(part.variant, (*self.sweep, *part.sweep, *added)) for part in self.parts]


class Stage(Section):
    """A row of the record that is a stage of a waterfall.

    Attributes:
      label: the change from the stage before.
      pipeline: its name.
      variant: of its part; None if it has none.
      epsilon: the target; None if nothing is private or the noise was given.
    """

    label: Text
    pipeline: str
    variant: Text | None = None
    epsilon: Positive | None = None

    @field_validator("pipeline")
    @classmethod
    def _is_a_pipeline(cls, name: str) -> str:
        if name not in PIPELINES:
            raise ValueError(f"input should be one of {', '.join(PIPELINES)}")
        return name

    @property
    def row(self) -> str:
        """The row in words."""
        target = "no target epsilon" if self.epsilon is None else f"epsilon={self.epsilon:g}"
        return ", ".join(filter(None, (self.pipeline, self.variant, target)))


Stages = Annotated[tuple[Stage, ...], Field(min_length=2)]


class Recipe(Sweeps):
    """A recipe in its full and its quick form.

    Attributes:
      quick: a comparison that takes two minutes at most: either overrides that choose a part of the recorded rows, or,
        if that would be too slow, separate sweeps with their own record.
      bands: of the comparisons.
      waterfall: stages of training by the title of their panel, from the best to the last; empty if the recipe has no
        such figure.
      beside: names of recipes about the other privacy unit. --record also draws their recorded points, in
        `both_units.png`.

    Raises:
      ValueError: a stage has a variant that no part has, or a panel has a row twice.
    """

    quick: Overrides | Sweeps
    bands: Bands
    waterfall: Annotated[dict[Text, Stages], Field(default_factory=dict)]
    beside: tuple[Text, ...] = ()

    @field_validator("waterfall")
    @classmethod
    def _stages_can_be_rows(cls, waterfall: dict[str, Stages], known: ValidationInfo) -> dict[str, Stages]:
        """Checks the stages before anything runs."""
        variants = {part.variant for part in known.data.get("parts", ())} - {None}
        listed = ", ".join(sorted(variants)) or "none"
        for title, stages in waterfall.items():
            for place, stage in enumerate(stages):
                where = f"{title}: stage {stage.label!r} ({stage.row})"
                if stage.variant is not None and stage.variant not in variants:
                    raise ValueError(f"{where} is of no part; the variants are: {listed}")
                if stage.row in {earlier.row for earlier in stages[:place]}:
                    raise ValueError(f"{where} is the same row as one before it")
        return waterfall


def recipe_names() -> list[str]:
    """The recipes of this checkout."""
    return sorted(path.parent.name for path in (REPOSITORY / "experiments").glob(f"*/{RECIPE}"))


def read_recipe(folder: Path) -> Recipe:
    """Reads `recipe.yaml`.

    Raises:
      UserError: the file is missing, or does not fit `Recipe`.
    """
    if not (folder / RECIPE).exists():
        raise UserError(f"{folder / RECIPE} does not exist; the recipes are: {', '.join(recipe_names())}")
    return read_yaml(Recipe, folder / RECIPE)
