"""The record of a recipe: its results and their origin. Only `python -m pipelines.reproduce FOLDER --record` writes it.

`results.csv` and `record.json` are the record of the whole recipe. `quick.csv` and `quick.json` are the record of a
quick form that has its own sweeps.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from pipelines.config.files import parse_as, read_text
from pipelines.config.renames import pipeline_of
from pipelines.config.section import Positive, Section
from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from pipelines.runs.result import RunResult


@dataclass(frozen=True)
class RecordFiles:
    """The files of a record.

    Attributes:
      results: one row for each run.
      origin: of the results.
    """

    results: Path
    origin: Path

    @classmethod
    def of(cls, folder: Path, *, quick: bool = False) -> Self:
        """The record of a recipe, or of its quick form."""
        names = ("quick.csv", "quick.json") if quick else ("results.csv", "record.json")
        return cls(*(folder / name for name in names))


class ResultRow(Section):
    """One run. A run without privacy has no epsilon, delta, unit, relation and noise.

    Attributes:
      pipeline: its name.
      variant: of the recipe's part; None if it has none.
      target_epsilon: the requested epsilon; None if nothing is private or the noise was given.
      epsilon, delta, unit, relation: the guarantee of the steps that ran.
      noise_multiplier: sigma.
      steps: steps or rounds that ran.
      seed: the public seed.
      accuracy: on the test set, after the last step.
    """

    pipeline: Annotated[str, Field(min_length=1)]
    variant: str | None = None
    target_epsilon: Positive | None
    epsilon: Positive | None
    delta: Positive | None
    unit: str | None
    relation: str | None
    noise_multiplier: Positive | None
    steps: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]
    accuracy: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="before")
    @classmethod
    def _in_todays_names(cls, values: Any) -> Any:
        """Renames pipelines: earlier records give a pipeline over users the name of the one over examples."""
        if isinstance(values, dict) and isinstance(values.get("pipeline"), str):
            return values | {"pipeline": pipeline_of(values["pipeline"], values.get("unit"))}
        return values

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        absent = {
            value is None for value in (self.epsilon, self.delta, self.unit, self.relation, self.noise_multiplier)
        }
        if len(absent) > 1:
            raise ValueError("epsilon, delta, unit, relation and noise_multiplier go together: all or none of them")
        return self

    @classmethod
    def of(
        cls, result: "RunResult", *, pipeline: str, variant: str | None, target_epsilon: float | None, steps: int
    ) -> Self:
        """The row of a finished run."""
        facts: dict[str, Any] = dict.fromkeys(("epsilon", "delta", "unit", "relation", "noise_multiplier"))
        if (guarantee := result.guarantee) is not None:
            plan = guarantee.executed
            facts = {"epsilon": guarantee.epsilon, "delta": plan.delta, "noise_multiplier": plan.noise_multiplier}
            facts |= {"unit": str(plan.unit), "relation": str(plan.relation)}
        return cls(
            pipeline=pipeline,
            variant=variant,
            target_epsilon=target_epsilon if guarantee else None,
            steps=steps,
            seed=result.provenance.seed,
            accuracy=result.evaluation.accuracy,
            **facts,
        )


class Origin(Section):
    """The origin of a record.

    Attributes:
      command: that ran the sweep; with several parts, one line for each.
      commit: of the checkout, with "-dirty" if it had changes.
      lock_sha256, data_sha256: fingerprints of requirements.lock and of the data.
      seeds: of every row of the table.
      versions: of the packages that affect the numbers.
      platform: operating system and processor.
    """

    command: str
    commit: str
    lock_sha256: str
    data_sha256: str
    seeds: tuple[int, ...]
    versions: dict[str, str]
    platform: str


def read_results(files: RecordFiles, test_examples: int) -> list[ResultRow]:
    """Reads the rows of a record.

    Args:
      files: of the record.
      test_examples: size of the test set; every accuracy is a multiple of 1 / test_examples.

    Raises:
      UserError: the file is missing or has no row, or a row cannot come from a run.
    """
    path = files.results
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(path)))
    for record in reader:
        values = {str(key): value or None for key, value in record.items()}
        rows.append(parse_as(ResultRow, values, f"{path} line {reader.line_num}"))
        check_share(rows[-1], test_examples, f"{path} line {reader.line_num}")
    if not rows:
        raise UserError(f"{path} has no row; write it with --record")
    return rows


def check_share(row: ResultRow, test_examples: int, where: str) -> None:
    """Refuses an accuracy that is no multiple of 1 / test_examples.

    Raises:
      UserError: accuracy times test_examples is not a whole number.
    """
    correct = row.accuracy * test_examples
    if abs(correct - round(correct)) > 1e-6:
        raise UserError(f"{where}: accuracy={row.accuracy} is no multiple of 1 / bands.test_examples={test_examples}")


def read_origin(files: RecordFiles) -> Origin:
    """Reads the origin of a record.

    Raises:
      UserError: the file is missing, or does not fit `Origin`.
    """
    path = files.origin
    try:
        return parse_as(Origin, json.loads(read_text(path)), path)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON: {error}") from None


def write_results(files: RecordFiles, rows: list[ResultRow], origin: Origin) -> None:
    """Writes a record, floats in full.

    Raises:
      UserError: the folder is not writable.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, list(ResultRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    try:
        files.results.write_text(table.getvalue(), encoding="utf-8")
        files.origin.write_text(origin.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{files.results.parent} is not writable ({error.strerror})") from None
