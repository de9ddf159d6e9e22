"""One line for what Hydra and OmegaConf say in many."""

import difflib
import re

from omegaconf import DictConfig, OmegaConf

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
    return " ".join(text.partition("See https://hydra.cc")[0].split())


def _unknown_key(key: str, conf: str) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(conf, version_base="1.3"):
        keys = _keys(compose("config"))
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see python -m pipelines.run --cfg job"
    return f"unknown key {key}; {hint}"


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in config:
        found.append(f"{prefix}{key!s}")
        if OmegaConf.is_dict(config[key]):
            found += _keys(config[key], f"{prefix}{key!s}.")
    return found
