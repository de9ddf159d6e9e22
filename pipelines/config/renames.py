"""Keys and values of earlier versions with today's names. An old name keeps working, and a line gives the new one.

The tables are applied to plain values: composed ones, and those of configurations that earlier versions logged.
`pipelines.config.command_renames` lets Hydra accept the older keys before.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.config.pipeline_settings import DpSgdUsersConfig, PrivateCentralConfig
from pipelines.config.pipeline_table import PIPELINES, in_words, private_pipelines
from pipelines.config.unions import UNIONS, keys_of_options
from pipelines.core.errors import UserError

KEYS = {"partition.classes_per_client": "partition.shards_per_client"}
VALUES = {("pipeline.grad_sample", "fast"): "book_keeping"}
PIPELINE_BY_UNIT = {("dp_sgd", "user"): "dp_sgd_users"}
"""Today's pipeline for a pipeline and the unit that `privacy.unit` used to set."""
PRIVACY_BY_PARTS = {
    ("fixed", "gaussian"): "fixed", ("adaptive", "gaussian"): "adaptive", ("fixed", "tree"): "tree",
}  # fmt: skip
"""Options of `privacy` by the old values of `privacy.clipping` and `privacy.mechanism`."""
PARTS = ("privacy.clipping", "privacy.mechanism")
UNIT = "privacy.unit"
OF_USERS = frozenset(
    f"pipeline.{key}" for key in set(DpSgdUsersConfig.model_fields) - set(PrivateCentralConfig.model_fields) - {"name"}
)
"""Keys that dp_sgd had for privacy.unit=user."""
OF_CLIPPING = frozenset(
    {"privacy.target_quantile", "privacy.clip_learning_rate", "privacy.count_stddev", "privacy.restart_every"}
)
"""Keys that every option of privacy had."""
DEFAULTS: dict[str, Any] = {
    "partition.shards_per_client": 2, "model.widths": [], "model.activation": "tanh", "audit.confidence": 0.95,
    "privacy.target_quantile": 0.5, "privacy.clip_learning_rate": 0.2, "pipeline.grad_sample": "auto",
    "pipeline.user_update": "gradient", "pipeline.local_epochs": 1, "pipeline.local_batch_size": 64,
    "pipeline.local_learning_rate": 0.5, "pipeline.user_examples": None,
}  # fmt: skip
"""Values in older files for keys of other options."""
NULL = "null"
"""None as a text, on the command line and in parameters."""


def pipeline_of(name: str, unit: str | None) -> str:
    """Today's name of a logged pipeline, given the unit that it protected."""
    return PIPELINE_BY_UNIT.get((name, unit or ""), name)


def protecting_pipeline(name: str, unit: str) -> str:
    """The pipeline that protects the unit: the named one, or its sibling.

    Raises:
      UserError: there is none.
    """
    row = PIPELINES.get(name)
    if unit not in (NULL, "example", "user"):
        raise UserError(f"{UNIT}={unit} is unknown; drop it: pipeline= now decides which unit is protected")
    if row is None or row.unit is None or unit in (NULL, row.unit):
        return name
    if (name, unit) in PIPELINE_BY_UNIT:
        return PIPELINE_BY_UNIT[name, unit]
    raise UserError(
        f"{UNIT}={unit} does not fit pipeline={name}, which protects every {row.unit}; drop it, or use "
        f"{in_words(private_pipelines(unit))}"
    )


def privacy_option(option: str | None, clipping: str | None, mechanism: str | None) -> str:
    """The option of `privacy` that older keys stand for.

    Args:
      option: the chosen option of `privacy`, if any.
      clipping: value of the older key privacy.clipping, if given.
      mechanism: value of the older key privacy.mechanism, if given.

    Raises:
      UserError: a value is unknown, or no option has that combination.
    """
    parts = {name: pair for pair, name in PRIVACY_BY_PARTS.items()}
    for place, (key, value) in enumerate(zip(PARTS, (clipping, mechanism), strict=True)):
        known = sorted({pair[place] for pair in PRIVACY_BY_PARTS})
        if value is not None and value not in known:
            raise UserError(f"{key}={value} is unknown; drop it, and choose one of privacy={', '.join(sorted(parts))}")
    if option and option not in parts:
        raise UserError(f"privacy={option} goes with neither privacy.clipping nor privacy.mechanism; drop these")
    own = parts[option or "fixed"]
    pair = (clipping or own[0], mechanism or own[1])
    if pair not in PRIVACY_BY_PARTS:
        left = f"privacy.clipping={clipping}" if clipping else f"privacy={option}"
        right = f"privacy.mechanism={mechanism}" if mechanism else f"privacy={option}"
        raise UserError(f"{left} does not fit {right}; choose one of privacy={', '.join(sorted(parts))}")
    return PRIVACY_BY_PARTS[pair]


def renamed_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns plain values of a configuration of any version in today's names, and lines that give the new names.

    Earlier versions wrote every key of a section. Keys of other options that had no effect are dropped.

    Args:
      values: sections by name; other values stay as they are.

    Raises:
      UserError: older names contradict each other, or today's.
    """
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in values.items()}
    logged = _is_logged(found)
    said = [*_renamed_keys(found), *_renamed_unit(found), *_renamed_parts(found)]
    dropped = [text for section in UNIONS for text in _drop_foreign_keys(section, found.get(section), every=logged)]
    if dropped and not logged:
        said.append(f"{', '.join(dropped)}: dropped, since the chosen options have no such keys")
    return found, said


def _is_logged(values: Mapping[str, Any]) -> bool:
    """Whether an earlier version logged these values: each section has the older keys, or is left out."""
    sections = {name: values.get(name) for name in ("privacy", "partition", "model")}
    if not isinstance(sections["privacy"], dict):
        return False
    older = {"privacy": {"clipping"}, "partition": {"classes_per_client", "alpha"}, "model": {"widths"}}
    return all(older[name] <= set(part) for name, part in sections.items() if isinstance(part, dict))


def _renamed_keys(found: dict[str, Any]) -> list[str]:
    """Renames single keys and values in place; returns the lines to print."""
    said = []
    for old, new in KEYS.items():
        (section, key), today = old.split("."), new.partition(".")[2]
        if not isinstance(part := found.get(section), dict) or key not in part:
            continue
        value, other = part.pop(key), part.get(today)
        if value is None and today not in keys_of_options(section).get(str(part.get("name")), ()):
            continue
        if other not in (None, value, DEFAULTS[new]):
            raise UserError(f"{old}={value} is the old name of {new}={other}; give {new} alone, in your own files too")
        part[today] = value
        said += [] if value is None else [f"{old}={value} is now {new}={value}"]
    for (name, value), now in VALUES.items():
        section, key = name.split(".")
        if isinstance(part := found.get(section), dict) and part.get(key) == value:
            part[key] = now
            said.append(f"{name}={value} is now {name}={now}")
    return said


def _renamed_unit(found: dict[str, Any]) -> list[str]:
    """Renames the pipeline by the older key privacy.unit in place; returns the lines to print."""
    privacy, pipeline = found.get("privacy"), found.get("pipeline")
    if not isinstance(privacy, dict) or not isinstance(pipeline, dict) or "unit" not in privacy:
        return []
    unit, name = privacy.pop("unit"), str(pipeline.get("name"))
    if unit is None:
        return []
    protecting, row = protecting_pipeline(name, str(unit)), PIPELINES.get(name)
    if row is not None and row.unit is None:
        return [f"{UNIT}={unit} has no effect on pipeline={name}, which is not private"]
    if protecting == name:
        return []
    pipeline["name"] = protecting
    idle = "" if (way := pipeline.pop("grad_sample", "auto")) == "auto" else f", without pipeline.grad_sample={way}"
    kept = f"this run keeps the values of {name}{idle}"
    return [f"pipeline={name} {UNIT}={unit} is now pipeline={protecting}; {kept}"]


def _renamed_parts(found: dict[str, Any]) -> list[str]:
    """Renames the option of privacy by its older parts in place; returns the lines to print."""
    privacy = found.get("privacy")
    if not isinstance(privacy, dict) or not {"clipping", "mechanism"} & set(privacy):
        return []
    clipping, mechanism = (privacy.pop(key, None) for key in ("clipping", "mechanism"))
    before = privacy.get("name")
    privacy["name"] = privacy_option(before, clipping, mechanism)
    for key in ("target_quantile", "clip_learning_rate"):  # null used to stand for what is now the default
        if key in privacy and privacy[key] is None:
            del privacy[key]
    given = [f"{key}={value}" for key, value in zip(PARTS, (clipping, mechanism), strict=True) if value is not None]
    kept = "; this run keeps its clip norm" if before and privacy["name"] != before else ""
    return [f"{' '.join(given)} is now privacy={privacy['name']}{kept}"] if given else []


def _drop_foreign_keys(section: str, part: Any, *, every: bool) -> list[str]:
    """Drops keys that other options of the section have, but not the chosen one, and returns them as texts.

    Args:
      section: its name.
      part: its values.
      every: whether to drop all of these keys; else only those that are null or at their older default.
    """
    options = keys_of_options(section)
    if not isinstance(part, dict) or part.get("name") not in options:
        return []
    foreign = frozenset[str]().union(*options.values()) - options[part["name"]]
    texts = []
    for key in [key for key in part if key in foreign]:
        value = part[key]
        if every or value is None or _older_default(section, part["name"], key) == value:
            del part[key]
            texts.append(f"{section}.{key}={NULL if value is None else value}")
    return texts


def _older_default(section: str, option: str, key: str) -> Any:
    """The value that an older file of the option had for a key without effect; None if it had none."""
    if section == "pipeline" and option not in ("dp_sgd", "dp_sgd_users"):
        return None
    return None if section == "partition" else DEFAULTS.get(f"{section}.{key}")


def renamed_params(params: Mapping[str, str]) -> dict[str, str]:
    """Returns a run's logged parameters, dotted keys and their texts, in today's names."""
    sections: dict[str, Any] = {}
    for dotted, text in params.items():
        section, dot, key = dotted.partition(".")
        value = None if text == NULL else text
        if dot:
            sections.setdefault(section, {})[key] = value
        else:
            sections[section] = value
    found = dict[str, str]()
    for section, part in renamed_values(sections)[0].items():
        flat = {f"{section}.{key}": value for key, value in part.items()} if isinstance(part, dict) else {section: part}
        found |= {dotted: NULL if value is None else value for dotted, value in flat.items()}
    return found
