"""A recipe of experiments/: which sweep it is, what it found, and on what.

A folder holds `recipe.yaml` (written by a person) and `results.csv`, `record.json` and `frontier.png` (written only by
`python -m pipelines.reproduce FOLDER --record`).
"""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.result import RunResult

RECIPE, RESULTS, RECORD = "recipe.yaml", "results.csv", "record.json"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Overrides = Annotated[tuple[str, ...], Field(min_length=1)]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Checked = TypeVar("Checked", bound=_Checked)


class Bands(_Checked):
    """How far an accuracy may lie from its record.

    Attributes:
      confidence: probability that no row of an unchanged program drifts.
      test_examples: size of the test set; one example of it is the narrowest band.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    test_examples: Annotated[int, Field(gt=0)]


class Recipe(_Checked):
    """A sweep in its three sizes, each as overrides of `python -m pipelines.run -m`.

    Attributes:
      sweep: what all three share.
      record, check, quick: added for the record, for a comparison with it, and for a short one.
      bands: of the comparison.
    """

    sweep: Overrides
    record: Overrides
    check: Overrides
    quick: Overrides
    bands: Bands


class ResultRow(_Checked):
    """One run, as `results.csv` keeps it. A run without privacy has no epsilon, delta, unit, relation and noise.

    Attributes:
      pipeline: its name.
      target_epsilon: the epsilon asked for; None where nothing is private or the noise was given.
      epsilon, delta, unit, relation: the guarantee of the steps that ran.
      noise_multiplier: sigma.
      steps: steps or rounds that ran.
      seed: the public seed.
      accuracy: on the test set, after the last step.
    """

    pipeline: Annotated[str, Field(min_length=1)]
    target_epsilon: Positive | None
    epsilon: Positive | None
    delta: Positive | None
    unit: str | None
    relation: str | None
    noise_multiplier: Positive | None
    steps: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]
    accuracy: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        absent = {
            value is None for value in (self.epsilon, self.delta, self.unit, self.relation, self.noise_multiplier)
        }
        if len(absent) > 1:
            raise ValueError("epsilon, delta, unit, relation and noise_multiplier go together: all or none of them")
        return self

    @classmethod
    def of(cls, result: "RunResult", *, pipeline: str, target_epsilon: float | None, steps: int) -> Self:
        """The row of a run that finished."""
        facts: dict[str, Any] = dict.fromkeys(("epsilon", "delta", "unit", "relation", "noise_multiplier"))
        if (guarantee := result.guarantee) is not None:
            plan = guarantee.executed
            facts = {"epsilon": guarantee.epsilon, "delta": plan.delta, "noise_multiplier": plan.noise_multiplier}
            facts |= {"unit": str(plan.unit), "relation": str(plan.relation)}
        return cls(
            pipeline=pipeline,
            target_epsilon=target_epsilon if guarantee else None,
            steps=steps,
            seed=result.provenance.seed,
            accuracy=result.evaluation.accuracy,
            **facts,
        )


class Origin(_Checked):
    """What made `results.csv`.

    Attributes:
      command: that ran the sweep.
      commit: of the checkout, with "-dirty" if it had changes.
      lock_sha256, data_sha256: fingerprints of requirements.lock and of the data.
      seeds: of every row of the table.
      versions: of the packages that decide the numbers.
      platform: operating system and processor.
    """

    command: str
    commit: str
    lock_sha256: str
    data_sha256: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    platform: str


def read_recipe(folder: Path) -> Recipe:
    """Reads `recipe.yaml`.

    Raises:
      UserError: missing, or not as `Recipe` has it.
    """
    try:
        return _parse(Recipe, yaml.safe_load(_text(folder / RECIPE)), folder / RECIPE)
    except yaml.YAMLError as error:
        raise UserError(f"{folder / RECIPE} is no YAML: {' '.join(str(error).split())}") from None


def read_results(folder: Path, test_examples: int) -> list[ResultRow]:
    """Reads `results.csv`.

    Args:
      folder: of the recipe.
      test_examples: size of the test set, of which every accuracy is a share.

    Raises:
      UserError: missing, no row, or a row that cannot be what a run left behind.
    """
    path = folder / RESULTS
    rows = []
    reader = csv.DictReader(io.StringIO(_text(path)))
    for record in reader:
        values = {str(key): value or None for key, value in record.items()}
        rows.append(_parse(ResultRow, values, f"{path} line {reader.line_num}"))
        check_share(rows[-1], test_examples, f"{path} line {reader.line_num}")
    if not rows:
        raise UserError(f"{path} has no row; write it with --record")
    return rows


def check_share(row: ResultRow, test_examples: int, where: str) -> None:
    """Refuses an accuracy that is no share of the test set.

    Raises:
      UserError: accuracy times test_examples is not a whole number.
    """
    correct = row.accuracy * test_examples
    if abs(correct - round(correct)) > 1e-6:
        raise UserError(f"{where}: accuracy={row.accuracy} is no share of bands.test_examples={test_examples}")


def read_origin(folder: Path) -> Origin:
    """Reads `record.json`.

    Raises:
      UserError: missing, or not as `Origin` has it.
    """
    path = folder / RECORD
    try:
        return _parse(Origin, json.loads(_text(path)), path)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON: {error}") from None


def write_results(folder: Path, rows: list[ResultRow], origin: Origin) -> None:
    """Writes `results.csv`, floats in full, and `record.json`.

    Raises:
      UserError: the folder is not writable.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, list(ResultRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    try:
        (folder / RESULTS).write_text(table.getvalue(), encoding="utf-8")
        (folder / RECORD).write_text(origin.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} is not writable ({error.strerror})") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        remedy = "name a folder of experiments/" if path.name == RECIPE else "write it with --record"
        raise UserError(f"{path} cannot be read ({reason}); {remedy}") from None


def _parse(kind: type[Checked], values: Any, where: object) -> Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise UserError(f"{where}: {field}={first['input']!r:.80}: {first['msg']}") from None
