"""One line for what Hydra and OmegaConf say in many."""

import difflib
import re
import sys
from pathlib import Path

from omegaconf import OmegaConf

from pipelines.errors import UserError


def explain(error: Exception, conf: str) -> str:
    """Returns the error as one line that names the key or value at fault and what exists instead.

    Args:
      error: what was raised.
      conf: folder of the configuration, for suggestions.
    """
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    unknown_option = re.search(r"Could not find '([^']+)'", text)
    options = re.search(r"Available options in '[^']*':((?:\n\t\S+)+)", text)
    if unknown_option and options:
        group, _, option = unknown_option.group(1).rpartition("/")
        return f"{group}={option} is unknown; choose {', '.join(options.group(1).split())}"
    unknown_key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if unknown_key:
        return _unknown_key(unknown_key.group(1) or unknown_key.group(2), conf)
    ambiguous = re.search(r"Ambiguous value for argument '([^']+)'", text)
    if ambiguous:
        return f"{ambiguous.group(1)}: a list of values is a sweep; add -m (python -m pipelines.run -m ...)"
    return " ".join(text.partition("See https://hydra.cc")[0].split())


def _unknown_key(key: str, conf: str) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    # The groups that were chosen decide which keys there are.
    groups = [item for item in sys.argv[1:] if Path(conf, item.partition("=")[0]).is_dir() and "," not in item]
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose("config", overrides=groups)
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(siblings):
        siblings, parent = config, ""
    names = [str(item) for item in siblings]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {parent}{'.' if parent else ''}{near[0]}? " if near else ""
    return f"unknown key {key}; {hint}{parent or 'the configuration'} has {', '.join(names)}"
