"""One row for each pipeline: every fact that other modules ask about it.

`pipelines.engines.build` builds the engines, with one explicit choice by settings type.
"""

from dataclasses import dataclass
from typing import Literal

from pipelines.config.pipeline_settings import (
    DpFedAvgConfig,
    DpSgdConfig,
    DpSgdUsersConfig,
    FedAvgConfig,
    SgdConfig,
    TrainedConfig,
)

Unit = Literal["example", "user"]
Framework = Literal["central", "federated"]


@dataclass(frozen=True, kw_only=True)
class PipelineRow:
    """Facts of one pipeline.

    Attributes:
      settings: type of its section in the configuration.
      framework: the extra to install, pip install -e '.[central]' or '.[federated]'; figures give each one colour.
      sample_size: its setting for the size of a step's sample.
      length: its setting for how long it trains.
      divided: whether the data is divided among clients or users.
      unit: the protected one; None where nothing is private.
      without: options of `privacy` that its engine has no noise for.
      ceiling: the same pipeline without privacy; None where nothing is private.
    """

    settings: type[TrainedConfig]
    framework: Framework
    sample_size: Literal["batch_size", "clients_per_round"]
    length: Literal["epochs", "rounds"]
    divided: bool
    unit: Unit | None = None
    without: tuple[str, ...] = ()
    ceiling: str | None = None


PIPELINES: dict[str, PipelineRow] = {
    "sgd": PipelineRow(
        settings=SgdConfig, framework="central", sample_size="batch_size", length="epochs", divided=False,
    ),
    "dp_sgd": PipelineRow(
        settings=DpSgdConfig, framework="central", sample_size="batch_size", length="epochs", divided=False,
        unit="example", without=("tree",), ceiling="sgd",
    ),
    "dp_sgd_users": PipelineRow(
        settings=DpSgdUsersConfig, framework="central", sample_size="batch_size", length="epochs", divided=True,
        unit="user", without=("tree",), ceiling="sgd",
    ),
    "fed_avg": PipelineRow(
        settings=FedAvgConfig, framework="federated", sample_size="clients_per_round", length="rounds", divided=True,
    ),
    "dp_fed_avg": PipelineRow(
        settings=DpFedAvgConfig, framework="federated", sample_size="clients_per_round", length="rounds", divided=True,
        unit="user", ceiling="fed_avg",
    ),
}  # fmt: skip


def ceilings(unit: str | None) -> tuple[str, ...]:
    """The non-private pipelines to show beside the private ones of a unit.

    They show what privacy costs, and what dividing the data costs.

    Args:
      unit: the protected one; None, or a unit that no pipeline protects, returns all non-private pipelines.
    """
    beside = {row.ceiling for row in PIPELINES.values() if row.unit == unit and row.ceiling is not None}
    return tuple(name for name, row in PIPELINES.items() if row.unit is None and (name in beside or not beside))


def private_pipelines(unit: str | None = None, mechanism: str | None = None) -> tuple[str, ...]:
    """Names of the private pipelines.

    Args:
      unit: the protected one; None takes any.
      mechanism: an option of `privacy` that they run; None takes any.
    """
    return tuple(
        name
        for name, row in PIPELINES.items()
        if row.unit is not None and unit in (None, row.unit) and mechanism not in row.without
    )


def in_words(names: tuple[str, ...]) -> str:
    """Overrides that choose one of these pipelines, joined by "or"."""
    return " or ".join(f"pipeline={name}" for name in names)
