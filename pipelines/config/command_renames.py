"""Renames overrides of earlier versions on the command line before Hydra reads them."""

from collections.abc import Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Glob, Override

from pipelines.config.renames import (
    KEYS,
    NULL,
    PARTS,
    UNIT,
    VALUES,
    privacy_option,
    protecting_pipeline,
)
from pipelines.core.terminal import remark


def renamed_overrides(overrides: Sequence[Override], conf: Path, *, swept: bool) -> list[str]:
    """Returns the overrides in today's names, as texts.

    Args:
      overrides: of the command line.
      conf: folder of the configuration.
      swept: whether they are for a sweep.

    Raises:
      UserError: an old and a new name contradict each other.
    """
    texts = {place: str(override.input_line) for place, override in enumerate(overrides)}
    for place, override in enumerate(overrides):
        texts[place] = _renamed(override)
    further = [*_by_parts(overrides, texts), *_by_unit(overrides, texts, conf, swept=swept)]
    return [*texts.values(), *further]


def _renamed(override: Override) -> str:
    """One override with today's key and values."""
    text, key = str(override.input_line), override.key_or_group
    if key in KEYS:
        remark(f"{key} is now {KEYS[key]}")
        text = text.replace(key, KEYS[key], 1)
    old = [value for known, value in VALUES if known == key]
    if old and not override.is_delete() and set(old) & set(values := _values(override, [])):
        now = ",".join(VALUES.get((key, value), value) for value in values)
        remark(f"{key}={','.join(values)} is now {key}={now}")
        text = f"{key}={now}"
    return text


def _by_parts(overrides: Sequence[Override], texts: dict[int, str]) -> list[str]:
    """Removes `privacy.clipping` and `privacy.mechanism`, and returns the option that replaces them."""
    given = {key: _taken(overrides, texts, key) for key in PARTS}
    if not any(given.values()):
        return []
    asked = _taken(overrides, texts, "privacy") or ["fixed"]
    clippings, mechanisms = (given[key] or [""] for key in PARTS)
    found = [privacy_option(*each) for each in product(asked, clippings, mechanisms)]
    now = f"privacy={','.join(dict.fromkeys(found))}"
    before = " ".join(f"{key}={','.join(values)}" for key, values in given.items() if values)
    remark(f"{before} is now {now}")
    return [now]


def _by_unit(overrides: Sequence[Override], texts: dict[int, str], conf: Path, *, swept: bool) -> list[str]:
    """Removes `privacy.unit`, and returns the pipelines that protect that unit."""
    units = _taken(overrides, texts, UNIT)
    if not units:
        return []
    options = sorted(path.stem for path in (conf / "pipeline").glob("*.yaml"))
    place = next((place for place, each in enumerate(overrides) if each.key_or_group == "pipeline"), None)
    asked = _preset_pipelines(overrides, conf, swept=swept) if place is None else _values(overrides[place], options)
    now = list(dict.fromkeys(protecting_pipeline(name, unit) for name, unit in product(asked, units)))
    if now == asked:
        return []
    remark(f"pipeline={','.join(asked)} {UNIT}={','.join(units)} is now pipeline={','.join(now)}")
    if place is not None:
        del texts[place]
    return [f"pipeline={','.join(now)}"]


def _preset_pipelines(overrides: Sequence[Override], conf: Path, *, swept: bool) -> list[str]:
    """The pipelines of a sweep's preset, or the default pipeline."""
    chosen = [override.value() for override in overrides if override.key_or_group == "experiment"]
    path = conf / "experiment" / f"{chosen[-1] if chosen else ''}.yaml"
    if swept and path.is_file():
        preset: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = preset.get("hydra", {}).get("sweeper", {}).get("params", {}).get("pipeline")
        if names:
            return str(names).split(",")
    return ["sgd"]


def _taken(overrides: Sequence[Override], texts: dict[int, str], key: str) -> list[str]:
    """Removes a key's overrides and returns the values of the last one."""
    found: list[str] = []
    for place, override in enumerate(overrides):
        if override.key_or_group == key and place in texts:
            found = [] if override.is_delete() else _values(override, [])
            del texts[place]
    return found


def _values(override: Override, options: list[str]) -> list[str]:
    """The values of an override, as texts; a glob gives the options that match it."""
    value = override.value()
    if isinstance(value, Glob):
        return [name for name in options if any(fnmatch(name, each) for each in value.include)]
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [value]
    return [NULL if value is None else str(value) for value in values]
