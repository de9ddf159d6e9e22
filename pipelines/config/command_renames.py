"""Lets Hydra accept keys of earlier versions, on the command line and in a preset's sweep.

Hydra refuses a key that no file has, so an older key is force-added here. Which option it stands for is known only
after composition: `pipelines.config.renames` then renames it on the composed values.
"""

from collections.abc import Sequence

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, open_dict, read_write

from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.renames import KEYS, OF_CLIPPING, OF_USERS, PARTS, UNIT
from pipelines.core.errors import UserError


def accepted_overrides(overrides: Sequence[Override]) -> list[str]:
    """Returns the overrides as texts in which Hydra accepts keys of earlier versions.

    Args:
      overrides: of the command line.

    Raises:
      UserError: a key is given under its old and its new name.
    """
    given = {override.key_or_group for override in overrides if not override.is_delete()}
    for old, new in KEYS.items():
        if {old, new} <= given:
            raise UserError(f"{old} is the old name of {new}; give {new} alone")
    accepted = _accepted_keys(given, overrides)
    return [_accepted(override, accepted) for override in overrides]


def accept_swept_keys(config: DictConfig) -> None:
    """Renames keys of earlier versions in a preset's sweep, in place, so that Hydra accepts them.

    Args:
      config: as Hydra composed it, with its own section.
    """
    params = config.hydra.sweeper.params
    if not params:
        return
    given = {text.partition("=")[0].lstrip("+") for text in (*map(str, params), *config.hydra.overrides.task)}
    accepted = _accepted_keys(given | ({UNIT} if "unit" in (config.get("privacy") or {}) else set()), None)
    with read_write(config), open_dict(config):
        config.hydra.sweeper.params = {
            f"++{str(key).lstrip('+')}" if str(key).lstrip("+") in accepted else key: params[key] for key in params
        }


def _accepted_keys(given: set[str], overrides: Sequence[Override] | None) -> set[str]:
    """The keys of earlier versions that these overrides may use."""
    accepted = {*KEYS, *PARTS, UNIT}
    if given & set(PARTS):
        accepted |= OF_CLIPPING
    if UNIT in given or (overrides is not None and _may_be_dp_sgd(overrides)):
        accepted |= OF_USERS
    return accepted


def _may_be_dp_sgd(overrides: Sequence[Override]) -> bool:
    """Whether the pipeline, which a preset may choose, may be dp_sgd."""
    chosen = [override for override in overrides if override.key_or_group == "pipeline"]
    if not chosen:
        return any(override.key_or_group == "experiment" for override in overrides)
    value = chosen[-1].value()
    if isinstance(value, Glob):
        return True
    names = list(chosen[-1].sweep_iterator()) if chosen[-1].is_sweep_override() else [value]
    return any(name == "dp_sgd" or name not in PIPELINES for name in map(str, names))


def _accepted(override: Override, accepted: set[str]) -> str:
    text = str(override.input_line)
    if override.is_delete() or override.key_or_group not in accepted:
        return text
    return f"++{text.lstrip('+')}"
