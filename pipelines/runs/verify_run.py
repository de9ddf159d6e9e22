"""Checks a run's guarantee without training: `python -m pipelines.verify <run id, file or folder>`.

Rebuilds the mechanism from privacy.json, recomputes every accountant, and compares. Exits 0 if the guarantee holds.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.tracking.address import URI_HELP

if TYPE_CHECKING:
    from pipelines.privacy.verification import Verification

FILE = "privacy.json"
WIDTH = 100
CHECKED = (
    "Checked: every accountant's epsilon follows from mechanism, schedule, steps, noise multiplier and delta as "
    "written; delta is below 1/population; the expected batch size is that of population and schedule; "
    "the file holds nothing else."
)
UNCHECKED = (
    "Not checked, because no epsilon depends on it: that the unit is {unit}, that contributions were clipped to "
    "{clip_norm:g}, that there are {population:,} {unit}s, and that noise and sampling were {secrecy}.{logged} The "
    "run's own checks, the tests and the audits check that training followed the plan."
)
LOGGED = " Unit, clip norm, population, steps and sampling were compared with what the run logged when it began."
LOGGED_AS = {
    "unit": "privacy.unit", "relation": "privacy.relation", "delta": "privacy.delta",
    "noise_multiplier": "privacy.noise_multiplier", "population": "privacy.population",
}  # fmt: skip
"""Tags of a run that repeat values of privacy.json."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 if the guarantee holds."""
    chosen = _parser().parse_args(arguments)
    try:
        source, values, objections = _find(chosen.source, chosen.uri)
        # Imported late, so that --help answers at once.
        from pipelines.privacy.verification import verify_guarantee

        found = verify_guarantee(values)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_report(source, found, objections))
    return 0 if found.holds and not objections else 1


def _find(source: str, uri: str | None) -> tuple[str, Any, list[str] | None]:
    """Returns where the guarantee is, its values, and the objections from the run's log; None if there is no log.

    Raises:
      UserError: there is no guarantee.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path /= FILE
        if not path.is_file():
            raise UserError(f"folder {source} holds no {FILE}; give the folder of a private run's artifacts")
    if path.is_file():
        return str(path), _from_file(path), None
    if re.fullmatch(r"[0-9a-f]{32}", source):
        return _from_run(source, uri)
    raise UserError(
        f"{source} is not a file, a folder or a run id (32 hexadecimal digits); copy the id that a run printed"
    )


def _from_file(path: Path) -> Any:
    """Returns the guarantee in a privacy.json or a result.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UserError(f"{path} cannot be read: {reason}; give the {FILE} of a private run") from None
    if isinstance(values, dict) and "guarantee" in values:
        if values["guarantee"] is None:
            raise UserError(f"{path} is of a run without privacy, so it has no guarantee; give a private one")
        return values["guarantee"]
    return values


def _from_run(run_id: str, uri: str | None) -> tuple[str, Any, list[str]]:
    """Returns the guarantee of a run in a store, and where the run's log contradicts it."""
    from pipelines.config.renames import renamed_params
    from pipelines.tracking.read import read_examples, read_json, read_row
    from pipelines.tracking.run_log import REFUTED_TAG
    from pipelines.tracking.store import store_of_run

    store = store_of_run(uri, run_id)
    row, values = read_row(store, run_id), read_json(store, run_id, FILE)
    refuted = row.tags.get(REFUTED_TAG)
    if values is None:
        why = "it is not private" if "privacy.unit" not in row.tags else f"it ended {row.status}"
        why = why if "pipeline" in row.tags else "it is a sweep; give the id of one of its runs"
        why = f"its own checks refute it: {refuted}" if refuted else why
        raise UserError(f"run {run_id} ({row.name}) has no {FILE}: {why}")
    objections = [f"the run is refuted: {refuted}"] if refuted else []
    logged = row.metrics.get("privacy/epsilon")
    stated = values.get("epsilon") if isinstance(values, dict) else None
    simulated = isinstance(values, dict) and values.get("simulated")
    if row.tags.get("privacy.simulated", "false") != str(simulated).lower():
        objections.append(f"the run is tagged privacy.simulated={row.tags.get('privacy.simulated')}, its {FILE} is not")
    if row.status == "FINISHED" and logged != stated:
        objections.append(f"the run's metric privacy/epsilon is {logged}, its {FILE} has {stated}")
    if isinstance(values, dict):
        objections += _differences(values, {key: row.tags.get(tag) for key, tag in LOGGED_AS.items()})
        objections += _differences(values, {"clip_norm": row.params.get("privacy.clip_norm")})
        planned = _planned(renamed_params(row.params), row.tags.get("privacy.unit"), read_examples(store, run_id))
        if row.status != "FINISHED" and _fewer(values.get("steps"), planned.get("steps")):
            planned["steps"] = None  # it was cut short
        objections += _differences(values, planned)
    return f"run {run_id} ({row.name}, {row.status})", values, objections


def _planned(params: dict[str, str], unit: str | None, examples: int | None) -> dict[str, str | None]:
    """Returns the mechanism's numbers that follow from the logged configuration; it leaves out unknown ones.

    Args:
      params: the run's parameters, under today's names.
      unit: the privacy unit.
      examples: training examples of the logged dataset: the population if the unit is an example and the
        configuration states no other.
    """
    from pipelines.privacy.mechanisms.planning import KINDS
    from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

    given = {key: float(value) for key, value in params.items() if re.fullmatch(r"[0-9.]+(e[-+]?[0-9]+)?", value)}
    sample = given.get("pipeline.clients_per_round", given.get("pipeline.batch_size"))
    natural = params.get("partition.name") == "natural"
    units = examples if unit != "user" else None if natural else given.get("partition.clients")
    population = given.get("privacy.population", units)
    if sample is None or population is None:
        return {}
    steps = given.get("pipeline.rounds")
    if steps is None and "pipeline.epochs" in given:
        steps = max(1, round(given["pipeline.epochs"] * population / sample))
    kind = KINDS.get(params.get("privacy.name", ""), PoissonGaussianMechanism)
    schedule = kind.logged_schedule(sample, population, params)
    found = {"population": population, "steps": steps, "expected_batch_size": sample, **schedule}
    return {key: None if value is None else repr(value) for key, value in found.items()}


def _fewer(steps: Any, planned: str | None) -> bool:
    return isinstance(steps, int) and planned is not None and steps < float(planned)


def _differences(values: dict[str, Any], logged: dict[str, str | None]) -> list[str]:
    """Returns where privacy.json differs from what the run logged before training; older runs logged less."""
    return [
        f"the run logged {key}={then}, its {FILE} has {values.get(key)}"
        for key, then in logged.items()
        if then is not None and not _same(values.get(key), then)
    ]


def _same(value: Any, logged: str) -> bool:
    if isinstance(value, int | float):
        return isclose(value, float(logged), rel_tol=1e-5)  # tags have six digits
    return str(value) == logged


def _report(source: str, found: "Verification", objections: list[str] | None) -> str:
    from pipelines.privacy.rounding import rounded_up
    from pipelines.privacy.statement import promise

    plan = found.guarantee.executed
    lines = [source, "", fill(promise(found.guarantee), WIDTH), ""]
    lines.append(
        f"plan: {plan.steps} steps, {plan.schedule_in_words}, noise multiplier {plan.noise_multiplier:.6g}, "
        f"clip norm {plan.clip_norm:g}"
    )
    lines.append(f"{'accountant':20s} {'version':9s} {'written':>10s} {'recomputed':>11s}")
    for item in found.comparisons:
        written = "-" if item.written is None or item.written.epsilon is None else rounded_up(item.written.epsilon, 6)
        here = "-" if item.here.epsilon is None else rounded_up(item.here.epsilon, 6)
        lines.append(f"{item.here.accountant:20s} {item.here.version:9s} {written:>10s} {here:>11s}  {item.remark}")
    every = [*found.objections, *(objections or ())]
    unchecked = UNCHECKED.format(
        unit=plan.unit, clip_norm=plan.clip_norm, population=plan.population,
        secrecy="from a known seed" if found.guarantee.simulated else "secret",
        logged="" if objections is None else LOGGED,
    )  # fmt: skip
    lines += ["", fill(CHECKED, WIDTH), fill(unchecked, WIDTH), "", *(f"- {objection}" for objection in every)]
    lines.append("DOES NOT HOLD" if every else "HOLDS: everything that can be recomputed follows from the plan")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.verify",
        description="Recomputes a run's privacy guarantee from its privacy.json, without training.",
    )
    parser.add_argument(
        "source", metavar="RUN", help="run id, privacy.json or result.json, or a folder with privacy.json"
    )
    parser.add_argument("--uri", help=f"of a run id: {URI_HELP}")
    return parser
