"""Reads the recorded points of recipes, and draws their figures without a run."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.renames import pipeline_of
from pipelines.core.errors import UserError
from pipelines.recipes.recipe import recipe_names
from pipelines.report.frontier_files import FrontierFiles, write_frontier
from pipelines.report.points import Point, Privacy
from pipelines.report.published_results import read_published, read_references

FILE = "frontier.csv"


def draw_recorded(folders: Sequence[Path], output: Path) -> FrontierFiles:
    """Draws the records of recipes together, with published results and references.

    Args:
      folders: of the recipes, in the order of their published points.
      output: folder of the files.

    Raises:
      UserError: a record is missing or corrupt, or the output is not writable.
    """
    points = [point for folder in folders for point in read_points(folder)]
    published = [point for folder in folders for point in read_published(folder)]
    references = [reference for folder in folders for reference in read_references(folder)]
    return write_frontier(points, output, published, references)


def read_points(folder: Path) -> list[Point]:
    """Reads the points of a recipe's record. A record keeps the overrides of their runs, and no other settings.

    Raises:
      UserError: there is no record, or this program did not write it.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; the recipes are: {', '.join(recipe_names())}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_point(record) for record in csv.DictReader(file)]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); python -m pipelines.reproduce {folder} --record writes it"
        ) from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is no frontier of this program: {error}; record it again") from None


def _point(record: dict[str, str]) -> Point:
    return Point(
        pipeline=pipeline_of(record["pipeline"], record["unit"]),
        dataset=record["dataset"],
        model=record["model"],
        variant=record["variant"],
        data_sha256=record["data_sha256"],
        settings=(),
        accuracy=float(record["accuracy"]),
        interval=_number(record["accuracy_interval"]),
        seeds=tuple(record["seeds"].split()),
        run_ids=tuple(record["run_ids"].split()),
        majority=_number(record["majority"]),
        overrides=record["overrides"] or None,
        privacy=_privacy(record) if record["unit"] else None,
    )


def _privacy(record: dict[str, str]) -> Privacy:
    return Privacy(
        epsilon=float(record["epsilon"]),
        target=_number(record["target_epsilon"]),
        delta=float(record["delta"]),
        unit=record["unit"],
        relation=record["relation"],
        accountant=record["accountant"],
        noise_multiplier=_number(record["noise_multiplier"]),
        simulated=record["simulated"] == "True",
        audited=_number(record["epsilon_lower_bound"]),
        population=int(record["population"]) if record.get("population") else None,  # older records lack this column
    )


def _number(text: str) -> float | None:
    return float(text) if text else None
