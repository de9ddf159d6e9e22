"""The sections that come in options, each with a class of its own: which option has which key."""

from functools import cache
from typing import Any, get_args

from pipelines.config.audit_settings import AuditConfig
from pipelines.config.data_settings import DatasetConfig, FeaturesConfig
from pipelines.config.model_settings import ModelConfig
from pipelines.config.partition_settings import PartitionConfig
from pipelines.config.pipeline_settings import PipelineConfig
from pipelines.config.privacy_settings import PrivacyConfig
from pipelines.config.section import Section

UNIONS: dict[str, Any] = {
    "dataset": DatasetConfig, "features": FeaturesConfig, "model": ModelConfig, "partition": PartitionConfig,
    "pipeline": PipelineConfig, "privacy": PrivacyConfig, "audit": AuditConfig,
}  # fmt: skip
"""Sections by their name in the configuration."""


@cache
def keys_of_options(section: str) -> dict[str, frozenset[str]]:
    """The keys that each option of a section has.

    Args:
      section: one of `UNIONS`.
    """
    found: dict[str, frozenset[str]] = {}
    kinds: tuple[type[Section], ...] = get_args(get_args(UNIONS[section])[0])
    for kind in kinds:
        for name in get_args(kind.model_fields["name"].annotation):
            found[name] = frozenset(kind.model_fields)
    return found


def foreign_key(key: str, value: object, option: str, owners: list[str]) -> str:
    """One line on a key that the chosen option does not have.

    Args:
      key: dotted, such as privacy.restart_every.
      value: that it was given; None where that is not known.
      option: that is chosen.
      owners: options of the same section that have it; at least one.
    """
    section = key.partition(".")[0]
    given = key if value is None else f"{key}={value}"
    *others, last = sorted(owners)
    have = f"{', '.join(others)} and {last} have" if others else f"{last} has"
    return f"{given}: {section}={option} has no such key; {section}={have}; drop it"
