"""The sections that have options, one class for each option, and the keys of each option."""

from functools import cache
from typing import Any, get_args

from pipelines.config.audit_settings import AuditConfig
from pipelines.config.data_settings import DatasetConfig, FeaturesConfig
from pipelines.config.model_settings import ModelConfig
from pipelines.config.partition_settings import PartitionConfig
from pipelines.config.pipeline_settings import PipelineConfig
from pipelines.config.privacy_settings import PrivacyConfig
from pipelines.config.section import Section
from pipelines.core.paths import REPOSITORY

UNIONS: dict[str, Any] = {
    "dataset": DatasetConfig, "features": FeaturesConfig, "model": ModelConfig, "partition": PartitionConfig,
    "pipeline": PipelineConfig, "privacy": PrivacyConfig, "audit": AuditConfig,
}  # fmt: skip
"""Sections by their name in the configuration."""


def kinds(section: str) -> list[type[Section]]:
    """The classes that a section may be of.

    Args:
      section: one of `UNIONS`.
    """
    members = get_args(get_args(UNIONS[section])[0])
    return [member if isinstance(member, type) else get_args(member)[0] for member in members]


@cache
def keys_of_options(section: str) -> dict[str, frozenset[str]]:
    """The keys that each option of a section has.

    A class whose name is any text, such as a downloaded dataset's, has the options of `conf/` that no other class has.

    Args:
      section: one of `UNIONS`.
    """
    found: dict[str, frozenset[str]] = {}
    open_to_names: list[type[Section]] = []
    for kind in kinds(section):
        names = get_args(kind.model_fields["name"].annotation)
        found |= dict.fromkeys(names, frozenset(kind.model_fields))
        open_to_names += [] if names else [kind]
    for kind in open_to_names:
        presets = sorted(path.stem for path in (REPOSITORY / "conf" / section).glob("*.yaml"))
        found |= {name: frozenset(kind.model_fields) for name in presets if name not in found}
    return found


def foreign_key(key: str, value: object, option: str, owners: list[str]) -> str:
    """One line for a key that the chosen option does not have.

    Args:
      key: dotted, such as privacy.restart_every.
      value: of the key; None where it is not known.
      option: the chosen one.
      owners: options of the same section that have the key; at least one.
    """
    section = key.partition(".")[0]
    given = key if value is None else f"{key}={value}"
    *others, last = sorted(owners)
    have = f"{', '.join(others)} and {last} have" if others else f"{last} has"
    return f"{given}: {section}={option} has no such key; {section}={have}; drop it"
