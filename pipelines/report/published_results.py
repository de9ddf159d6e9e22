"""Results to compare our runs with: `published.yaml`, which a person writes from papers, code and a command's output.

Epsilons can be compared only if they are computed alike. If a paper states the number of steps, the sample size and the
noise, epsilon is recomputed here, with the accountant and the assumptions of our own runs: neighbours differ by adding
or removing one unit, Poisson sampling, privacy loss distributions. It is never typed in. References have no epsilon:
they are other methods without privacy, which a command measures on the recipe's own data.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.files import Text, read_yaml
from pipelines.config.section import Positive, Section
from pipelines.privacy.accounting.epsilon import composed_epsilon
from pipelines.privacy.mechanisms.base import Composition

PUBLISHED = "published.yaml"
Count = Annotated[int, Field(gt=0)]


class Stage(Section):
    """A subsampled Gaussian mechanism that the published program ran.

    Attributes:
      sample: expected number of units in a step, <= population.
      noise_multiplier: sigma.
      steps: number of steps.
    """

    sample: Count
    noise_multiplier: Positive
    steps: Count


class PublishedPoint(Section):
    """One published accuracy with its guarantee.

    Attributes:
      source: authors and year, short enough for a figure.
      method: the trained model, in a few words.
      url: of the paper or the code.
      other_data: the data, if it is not the recipe's; else None.
      unit: the protected one.
      epsilon, delta, accuracy: as published; accuracy in [0, 1].
      population: number of units; None if it is not known.
      stages: the mechanisms that ran, training first; empty if they are not known.
      note: the source of the parameters, and caveats.

    Raises:
      ValueError: stages without a population, or with a sample or a delta that does not fit it.
    """

    source: Text
    method: Text
    url: Annotated[str, Field(pattern=r"^https://")]
    other_data: Text | None = None
    unit: Literal["example", "user"]
    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=1)]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    population: Count | None = None
    stages: tuple[Stage, ...] = ()
    note: Text

    @model_validator(mode="after")
    def _known_population(self) -> Self:
        if self.stages and self.population is None:
            raise ValueError("stages need a population")
        if self.stages and self.delta * (self.population or 0) >= 1:
            raise ValueError(f"delta={self.delta:g} is too large for population={self.population}")
        if any(stage.sample > (self.population or 0) for stage in self.stages):
            raise ValueError(f"a sample exceeds population={self.population}")
        return self

    @property
    def label(self) -> str:
        """Source, method and, if it is not the recipe's, data."""
        return f"{self.source}, {self.method}{f', on {self.other_data}' if self.other_data else ''}"

    @cached_property
    def epsilon_here(self) -> float | None:
        """Epsilon by our accountant, at the published delta; None if the parameters are not known."""
        return composed_epsilon(self._compositions(), self.delta) if self.stages else None

    @cached_property
    def epsilon_of_training(self) -> float | None:
        """Epsilon of the first stage alone, by our accountant; None if there is only one stage."""
        return composed_epsilon(self._compositions()[:1], self.delta) if len(self.stages) > 1 else None

    def _compositions(self) -> list[Composition]:
        population = self.population
        assert population is not None, "checked at construction"
        return [
            Composition(
                noise_multiplier=stage.noise_multiplier,
                sampling_probability=stage.sample / population,
                steps=stage.steps,
            )
            for stage in self.stages
        ]


class Reference(Section):
    """A method without privacy that is not one of our runs, drawn as a horizontal line.

    Attributes:
      label: the method, short enough for a figure.
      accuracy: on the recipe's test split, in [0, 1].
      command: that measures it, from the repository's root.
      unit: of the panel that shows it.
    """

    label: Text
    accuracy: Annotated[float, Field(ge=0, le=1)]
    command: Text
    unit: Literal["example", "user"]


class _File(Section):
    points: tuple[PublishedPoint, ...] = ()
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not (self.points or self.references):
            raise ValueError("neither points nor references")
        return self


def read_published(folder: Path) -> tuple[PublishedPoint, ...]:
    """Reads the points of `published.yaml`; a recipe without one has none.

    Raises:
      UserError: no YAML, or entries that do not fit `PublishedPoint` and `Reference`.
    """
    file = _read(folder)
    return file.points if file else ()


def read_references(folder: Path) -> tuple[Reference, ...]:
    """Reads the references of `published.yaml`; a recipe without one has none.

    Raises:
      UserError: as `read_published`.
    """
    file = _read(folder)
    return file.references if file else ()


def _read(folder: Path) -> _File | None:
    path = folder / PUBLISHED
    return read_yaml(_File, path) if path.exists() else None
