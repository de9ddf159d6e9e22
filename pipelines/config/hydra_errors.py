"""Turns the long errors of Hydra and OmegaConf into one line that says what to write instead."""

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipelines.config.unions import UNIONS, foreign_key
from pipelines.core.errors import UserError

REMEDIES = {
    r"Additional config directory '([^']*)'": "--config-dir={0} is no folder; give one that exists, or drop it",
    r"Primary config directory not found.*?'([^']*)'": "--config-path={0} is no folder; drop it",
    r"Cannot find primary config '([^']*)'": "--config-name={0} is unknown; drop it",
}
"""What Hydra says of its own options, and the line that replaces it."""
UNKNOWN_KEY = (
    "Could not override '([^']+)'",
    "Key '([^']+)' is not in struct",
    r"Could not delete from config\. '([^']+)' does not",
)


def explain(error: Exception, conf: str) -> str:
    """Returns the error as one line that names the key or value at fault and what exists instead.

    Args:
      error: what was raised.
      conf: folder of the configuration, for suggestions.
    """
    text = str(error)
    if isinstance(error, UserError):
        return text
    for pattern, remedy in REMEDIES.items():
        if found := re.search(pattern, text, re.DOTALL):
            return remedy.format(*found.groups())
    unknown_option = re.search(r"Could not find '([^']+)'", text)
    options = re.search(r"Available options in '[^']*':((?:\n\t\S+)+)", text)
    if unknown_option and options:
        group, _, option = unknown_option.group(1).rpartition("/")
        return f"{group}={option} is unknown; choose {', '.join(options.group(1).split())}"
    if unknown_key := re.search("|".join(UNKNOWN_KEY), text):
        return _unknown_key(next(filter(None, unknown_key.groups())), conf)
    line = " ".join(text.partition("See https://hydra.cc")[0].partition("\n    full_key")[0].split())
    if isinstance(error, OmegaConfBaseException) and error.full_key and "nterpolation" in text:
        reason = f"{error.full_key}: {line.replace('KeyError raised while resolving interpolation: ', '')}"
        return f"{reason}; ${{...}} takes another key or oc.env:VARIABLE, and \\${{...}} is that text itself"
    cause = " ".join(str(error.__cause__ or "").partition("\n    full_key")[0].split())
    return f"{line}: {cause}" if cause and line.startswith("Error merging override") else line


def _unknown_key(key: str, conf: str) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if key.startswith("hydra."):
        return f"unknown key {key}; python -m pipelines.run --cfg hydra prints the known ones"
    # The chosen groups decide which keys exist.
    groups = [item for item in sys.argv[1:] if Path(conf, item.partition("=")[0]).is_dir() and "," not in item]
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose("config", overrides=groups)
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(config, parent) if parent else config
    if parent in _paths(config):
        return f"unknown key {key}; {parent} is a value, without keys: write {parent}=VALUE"
    if not OmegaConf.is_dict(siblings):
        siblings, parent = config, ""
    if owned := _of_another_option(key, conf, str(siblings.get("name"))):
        return owned
    names = [str(item) for item in siblings]
    near = [".".join(filter(None, (parent, name))) for name in difflib.get_close_matches(name, names, n=1)]
    near = near or [path for path in _paths(config) if path.rpartition(".")[2] == name][:1]
    hint = f"did you mean {near[0]}? " if near and near[0] != key else ""
    return f"unknown key {key}; {hint}{parent or 'the configuration'} has {', '.join(names)}"


def _of_another_option(key: str, conf: str, chosen: str) -> str | None:
    """One line if another option of the group has the key; None if no option has it."""
    group, _, name = key.partition(".")
    options = {
        path.stem: list(OmegaConf.load(path)) for path in sorted(Path(conf, group).glob("*.yaml")) if group in UNIONS
    }
    if not (owners := [option for option, names in options.items() if name in names]):
        return None
    given = [text.partition("=")[2] for text in sys.argv[1:] if text.lstrip("+").startswith(f"{group}=")]
    asked = given[-1].split(",") if given else [chosen]
    option = next((option for option in asked if option not in owners), asked[0])
    values = [text.partition("=")[2] for text in sys.argv[1:] if text.startswith(f"{key}=")]
    return foreign_key(key, values[-1] if values else None, option, owners)


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    """Every key with a value, dotted."""
    for name in config:
        if isinstance(found := config._get_node(name), DictConfig):
            yield from _paths(found, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
