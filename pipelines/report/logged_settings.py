"""The parameters of a run that shape its outcome, the same for equal configurations of any release."""

from collections.abc import Mapping
from typing import get_args

from pipelines.config.renames import NULL, renamed_params
from pipelines.config.section import Section
from pipelines.config.unions import UNIONS, kinds

REPEATED = {
    "seed", "device", "threads", "debug", "evaluations", "privacy.noise_seed", "privacy.release_copies",
    "dataset.folder", "dataset.file", "dataset.bounds",
}  # fmt: skip
"""Parameters in which runs of one point may differ: repetition, hardware, and location and bounds of the data.

The fingerprint of the data says whether it is the same."""
OUTSIDE = {"tracking", "federated", "audit"}
"""Sections that change no outcome, as `Config.effective` has it; an audit that plants canaries makes no point."""


def logged_settings(params: Mapping[str, str], *, private: bool, divided: bool) -> dict[str, str]:
    """Returns the parameters that shape the outcome, in today's names and sorted.

    A key that an older release did not log has the default of its option: the release behaved like that. A key that
    the option does not have is left out: it had no effect.

    Args:
      params: as logged, dotted keys and texts.
      private: whether the run gives a guarantee; otherwise its privacy section has no effect.
      divided: whether its data is divided among clients or users; otherwise the partition has no effect.
    """
    unused = OUTSIDE | (set() if private else {"privacy"}) | (set() if divided else {"partition"})
    found = {key: value for key, value in renamed_params(params).items() if key.partition(".")[0] not in unused}
    for section in UNIONS.keys() - unused:
        _complete(section, found)
    return {key: found[key] for key in sorted(found.keys() - REPEATED)}


def option_of(key: str, settings: Mapping[str, str]) -> str | None:
    """Returns the option that the key's section has; None for a key outside sections with options."""
    return settings.get(f"{key.partition('.')[0]}.name")


def _complete(section: str, found: dict[str, str]) -> None:
    """Adds the section's defaults in place, and drops keys that its option does not have: they had no effect."""
    kind = _kind(section, found.get(f"{section}.name"))
    if kind is None:
        return
    for name, field in kind.model_fields.items():
        optional = type(None) in get_args(field.annotation)
        if not field.is_required() or optional:
            default = None if field.is_required() else field.default
            found.setdefault(f"{section}.{name}", _text(default))
    for key in [key for key in found if key.startswith(f"{section}.")]:
        if key.partition(".")[2] not in kind.model_fields:
            del found[key]


def _kind(section: str, option: str | None) -> type[Section] | None:
    """The class of a section's option; without an option, the one that the schema takes; None if there is none."""
    for kind in kinds(section):
        name = kind.model_fields["name"]
        options = get_args(name.annotation)
        if (name.default if option is None else option) in options or (option is not None and not options):
            return kind
    return None


def _text(default: object) -> str:
    """The text that a run logs for a default."""
    if isinstance(default, tuple):
        default = list(default)
    return NULL if default is None else str(default)
