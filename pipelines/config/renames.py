"""Keys and values of earlier versions with today's names. An old name keeps working, and a line gives the new one.

The tables are applied twice: to the command line before Hydra reads it (`pipelines.config.command_renames`), and here
to the plain values of configurations that earlier versions logged.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.config.pipeline_table import PIPELINES, in_words, private_pipelines
from pipelines.config.unions import UNIONS, keys_of_options
from pipelines.core.errors import UserError
from pipelines.core.terminal import remark

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
      UserError: no option has that combination.
    """
    parts = {name: pair for pair, name in PRIVACY_BY_PARTS.items()}
    if option and option not in parts:
        raise UserError(f"privacy={option} goes with neither privacy.clipping nor privacy.mechanism; drop these")
    own = parts.get(option or "fixed", ("fixed", "gaussian"))
    pair = (clipping or own[0], mechanism or own[1])
    if pair not in PRIVACY_BY_PARTS:
        raise UserError(
            f"privacy.clipping={pair[0]} does not fit privacy.mechanism={pair[1]}; choose one of privacy="
            f"{', '.join(sorted(parts))}"
        )
    return PRIVACY_BY_PARTS[pair]


def renamed_values(values: Mapping[str, Any], *, aloud: bool = True) -> dict[str, Any]:
    """Returns plain values of a configuration of any version, in today's names.

    Earlier versions wrote every key of a section. Keys of other options had no effect; they are dropped.

    Args:
      values: sections by name; other values stay as they are.
      aloud: whether a line gives each new name.

    Raises:
      UserError: parts of the privacy section contradict each other.
    """
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in values.items()}
    said = []
    for old, new in KEYS.items():
        (section, key), today = old.split("."), new.partition(".")[2]
        if isinstance(part := found.get(section), dict) and key in part:
            value = part.pop(key)
            part.setdefault(today, value)
            said += [] if value is None else [f"{old} is now {new}"]
    for (name, value), today in VALUES.items():
        section, key = name.split(".")
        if isinstance(part := found.get(section), dict) and part.get(key) == value:
            part[key] = today
            said.append(f"{name}={value} is now {name}={today}")
    said += _renamed_privacy(found)
    for line in said if aloud else ():
        remark(line)
    return found


def _renamed_privacy(found: dict[str, Any]) -> list[str]:
    """Renames an older privacy section and its pipeline in place; returns the lines to print."""
    privacy, pipeline = found.get("privacy"), found.get("pipeline")
    if not isinstance(privacy, dict) or not isinstance(pipeline, dict):
        return []
    said = []
    older = [key for key in ("clipping", "mechanism") if key in privacy]
    if (unit := privacy.pop("unit", None)) is not None and (row := PIPELINES.get(str(pipeline.get("name")))):
        protecting = protecting_pipeline(name := str(pipeline["name"]), str(unit)) if row.unit else name
        if protecting != name:
            pipeline["name"] = protecting
            pipeline.pop("grad_sample", None)
            said.append(f"pipeline={name} {UNIT}={unit} is now pipeline={protecting}")
    if older:
        clipping, mechanism = (privacy.pop(key, None) for key in ("clipping", "mechanism"))
        privacy["name"] = privacy_option(privacy.get("name"), clipping, mechanism)
        said.append(f"privacy.clipping={clipping} privacy.mechanism={mechanism} is now privacy={privacy['name']}")
        for key in ("target_quantile", "clip_learning_rate"):  # null used to stand for what is now the default
            if key in privacy and privacy[key] is None:
                del privacy[key]
        for section in UNIONS:
            _drop_foreign_keys(section, found.get(section))
    return said


def _drop_foreign_keys(section: str, part: Any) -> None:
    """Drops the keys of other options of the section that the chosen option does not have."""
    options = keys_of_options(section)
    if isinstance(part, dict) and part.get("name") in options:
        foreign = frozenset[str]().union(*options.values()) - options[part["name"]]
        for key in foreign & set(part):
            del part[key]


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
    for section, part in renamed_values(sections, aloud=False).items():
        flat = {f"{section}.{key}": value for key, value in part.items()} if isinstance(part, dict) else {section: part}
        found |= {dotted: NULL if value is None else value for dotted, value in flat.items()}
    return found
