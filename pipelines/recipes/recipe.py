"""A recipe of experiments/: `recipe.yaml`, which a person writes, says which sweeps it consists of.

What they found is in `recipes.record`; what others published on the question is in `report.published_results`.
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
    """How far an accuracy may lie from its record.

    Attributes:
      confidence: probability that no row of an unchanged program drifts.
      test_examples: size of the test set; one example of it is the narrowest band.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    test_examples: Annotated[int, Field(gt=0)]


class Part(Section):
    """One of several sweeps, where settings differ in a way that no single sweep can say.

    Attributes:
      sweep: overrides that this part adds to those of all parts.
      variant: what sets its runs apart from other runs of the same pipeline and epsilon, such as "6,000 users"; it
        has a line of its own in the figure. None where nothing does: epsilons with settings of their own.
    """

    sweep: tuple[str, ...] = ()
    variant: Text | None = None


class Sweeps(Section):
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


class Stage(Section):
    """A row of the record that is a stage of a waterfall.

    Attributes:
      label: what this stage adds to the one before it.
      pipeline: its name.
      variant: of its part; None where it has none.
      epsilon: the target; None where nothing is private or the noise was given.
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
        """Which row it is, in words."""
        target = "no target epsilon" if self.epsilon is None else f"epsilon={self.epsilon:g}"
        return ", ".join(filter(None, (self.pipeline, self.variant, target)))


Stages = Annotated[tuple[Stage, ...], Field(min_length=2)]


class Recipe(Sweeps):
    """A recipe in its sizes.

    Attributes:
      quick: a comparison of two minutes at most. Either overrides that choose a part of the recorded rows, or, where
        that would be too slow, sweeps of their own with a record of their own.
      bands: of the comparisons.
      waterfall: stages of training by the title of their panel, each one step further from the best; empty where the
        recipe's question is another.
      beside: names of recipes about the other privacy unit. --record draws their recorded points beside its own, in
        `both_units.png`.

    Raises:
      ValueError: a stage of a variant that no part has, or the same row twice in a panel.
    """

    quick: Overrides | Sweeps
    bands: Bands
    waterfall: Annotated[dict[Text, Stages], Field(default_factory=dict)]
    beside: tuple[Text, ...] = ()

    @field_validator("waterfall")
    @classmethod
    def _stages_can_be_rows(cls, waterfall: dict[str, Stages], known: ValidationInfo) -> dict[str, Stages]:
        """Finds what can be found before anything has run."""
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
      UserError: missing, or not as `Recipe` has it.
    """
    if not (folder / RECIPE).exists():
        raise UserError(f"{folder / RECIPE} does not exist; the recipes are: {', '.join(recipe_names())}")
    return read_yaml(Recipe, folder / RECIPE)
