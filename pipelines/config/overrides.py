"""Prepares the command line for Hydra: options go first, and an argument that Hydra would misread ends with a remedy.

Hydra answers a typing mistake with the state of its parser. It takes options only before all overrides, and it reads
`-pipeline=sgd` as an option of its own. This module checks each argument alone, so that the error names the argument
and what to write instead.
"""

import difflib
import shlex
from argparse import Action
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from pipelines.config.command_renames import renamed_overrides
from pipelines.core.errors import UserError
from pipelines.core.paths import require_folder

REQUIRED = ("dataset", "features", "model", "partition", "privacy", "pipeline", "tracking")
"""Groups that every run has an option of."""
CLOSERS = {"[": "]", "{": "}", "(": ")"}
LISTS = ("model.widths", "model.layers", "features.columns")
"""Keys whose value is a list."""
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
"""Keys of folders that Hydra makes before the first run."""


def arranged(arguments: Sequence[str], conf: str) -> list[str]:
    """Returns the arguments in today's names, with options, such as -m, before all overrides.

    Args:
      arguments: of the command line, without the program.
      conf: folder of the configuration.

    Raises:
      UserError: an argument that Hydra would refuse or misread.
    """
    if {"-sc", "--shell-completion"} & set(arguments):  # not written by a person
        return list(arguments)
    _refuse_spaces(arguments)
    options, texts = _separated(arguments)
    swept = any(option in ("-m", "--multirun") for option in options) or "hydra.mode=MULTIRUN" in texts
    texts = renamed_overrides([_parsed(text, Path(conf)) for text in texts], Path(conf), swept=swept)
    overrides = [_parsed(text, Path(conf)) for text in texts]
    further = any(option in ("-cd", "--config-dir", "-cp", "--config-path") for option in options)
    for override in overrides:
        _check_sweep(override, swept)
        if override.key_or_group in FOLDERS and "$" not in str(override.value()):
            require_folder(override.key_or_group, str(override.value()))
        if override.package is None and "/" not in override.key_or_group:
            _check_group(override, Path(conf), further)
    return [*options, *texts]


def _refuse_spaces(arguments: Sequence[str]) -> None:
    """Refuses spaces around =, where the shell ends an argument."""
    for place, text in enumerate(arguments):
        after = arguments[place + 1 : place + 3]
        if text.startswith("=") and place:
            parts = [arguments[place - 1], text, *(after[:1] if text == "=" else [])]
        elif text.endswith("=") and len(text) > 1 and after and "=" not in after[0] and not _is_option(after[0]):
            parts = [text, after[0]]
        else:
            continue
        raise UserError(f"{' '.join(parts)}: no space may stand beside =; write {shlex.quote(''.join(parts))}")


def _is_option(text: str) -> bool:
    return text[:2] == "--" or (text[:1] == "-" and text[1:2].isalpha())


def _separated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates Hydra's own options, with their values, from the overrides.

    Raises:
      UserError: an option that Hydra does not have, or a value that it does not take.
    """
    from hydra._internal.utils import get_args_parser

    known: dict[str, Action] = {name: each for each in get_args_parser()._actions for name in each.option_strings}
    options, overrides, waiting = list[str](), list[str](), list(arguments)
    while waiting:
        text = waiting.pop(0)
        if not text.startswith("-"):
            overrides.append(text)
            continue
        name, equals, value = text.partition("=")
        action = known.get(name)
        if action is None or name == "--experimental-rerun":
            raise UserError(_no_option(text, waiting, known))
        if action.nargs == 0:
            options.append(name)
            continue
        if not equals:
            optional = action.nargs == "?"
            taken = bool(waiting) and (waiting[0] in (action.choices or ()) if optional else not _is_option(waiting[0]))
            value = waiting.pop(0) if taken else str(action.const or "")
        if action.choices and value not in action.choices:
            raise UserError(f"{name} {value}".strip() + f": choose {', '.join(map(str, action.choices))}")
        options += [name, value]
    return options, overrides


def _no_option(text: str, after: Sequence[str], known: dict[str, Action]) -> str:
    bare = text.lstrip("-")
    if text.startswith("--experimental-rerun"):
        return f"{text}: not offered; give the overrides of the run again (its artifact overrides.yaml has them)"
    if near := difflib.get_close_matches(text, known, n=1, cutoff=0.75):
        return f"{text} is no option; did you mean {near[0]}?"
    if bare and "=" not in bare:
        bare += f"={after[0]}" if after and "=" not in after[0] and not _is_option(after[0]) else "=VALUE"
    return f"{text} is no option, and overrides have no dashes; write {shlex.quote(bare or 'key=VALUE')}"


def _parsed(text: str, conf: Path) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        raise UserError(_unparsable(text, conf)) from None


def _parses(text: str, value: str | None = None) -> bool:
    """Whether Hydra can read an override, and reads a certain value from it."""
    try:
        override = OverridesParser.create().parse_override(text)
        return value is None or override.value() == value
    except HydraException:
        return False


def _unparsable(text: str, conf: Path) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return _without_value(text, conf)
    for reason, better in _better(key, value):
        if _parses(better):
            return f"{text}: {reason}; write {shlex.quote(better)}"
    quoted = _quoted(key, value)
    if "${" not in value and _parses(quoted, value):
        return f"{text}: a value with such characters needs quotes within the shell's; write {shlex.quote(quoted)}"
    return f"{text} cannot be read; an override is key=value, such as pipeline=dp_sgd or 'dataset.file=\"a=1.npz\"'"


def _better(key: str, value: str) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with an override, and what its author may have meant."""
    if key.endswith(":"):
        yield "an override has = alone", f"{key[:-1].strip()}={value}"
    if value.startswith("="):
        yield "an override has one =", f"{key}={value.lstrip('=')}"
    if value.startswith("~/"):
        yield "the shell leaves ~ as it is there", f"{key}={Path(value).expanduser()}"
    if value.startswith("(") and value.endswith(")"):
        yield "a list has square brackets", f"{key}=[{value[1:-1]}]"
    missing = "".join(closer * max(0, value.count(opener) - value.count(closer)) for opener, closer in CLOSERS.items())
    if missing and "/" not in value and "$" not in value:
        yield "a bracket is not closed", f"{key}={value}{missing}"
    for mark in "'\"":
        if value.count(mark) == 1 and mark in (value[:1], value[-1:]):
            yield "a quote is not closed", f"{key}={value.replace(mark, '')}"


def _quoted(key: str, value: str) -> str:
    escaped = value.replace('"', '\\"')
    return f'{key}="{escaped}"'


def _without_value(text: str, conf: Path) -> str:
    """What to write instead of a bare word."""
    key, colon, value = text.partition(":")
    if colon and _parses(better := f"{key.strip()}={value.strip()}"):
        return f"{text}: an override has = between key and value; write {shlex.quote(better)}"
    if (conf / f"{text}.yaml").is_file() and "/" in text:
        return f"{text}: an override has = between group and option; write {text.replace('/', '=', 1)}"
    groups = [path.parent.name for path in sorted(conf.glob("*/*.yaml")) if path.stem == text]
    if groups:
        return f"{text} has no key; write {' or '.join(f'{group}={text}' for group in groups)}"
    if (conf / text).is_dir():
        return f"{text} has no value; write {text}=OPTION: {', '.join(_options(conf, text))}"
    return f"{text} is no override; write key=value, such as pipeline=dp_sgd"


def _check_sweep(override: Override, swept: bool) -> None:
    """Refuses several values without -m, and values that cannot be counted."""
    text, key = str(override.input_line), override.key_or_group
    if not override.is_sweep_override():
        return
    if not swept:
        need = "several values are a sweep, which needs -m (python -m pipelines.run -m ...)"
        raise UserError(f"{text}: {need}{_hint(override)}")
    value = override.value()
    if isinstance(value, IntervalSweep):
        raise UserError(
            f"{text}: a sweep needs values that can be counted; name them, such as {key}={value.start:g},{value.end:g}"
        )
    if isinstance(value, RangeSweep) and value.step == 0:
        raise UserError(f"{text}: a range needs a step other than 0, such as '{key}=range(1,3)'")
    if isinstance(value, RangeSweep | ChoiceSweep) and next(iter(override.sweep_string_iterator()), None) is None:
        raise UserError(f"{text} has no values; name some, such as {key}=1,2 or '{key}=range(1,3)'")


def _hint(override: Override) -> str:
    """What else the comma may mean."""
    key, _, value = str(override.input_line).partition("=")
    if key in LISTS:
        return f"; a list has brackets: '{key}=[{value}]'"
    if "/" in value and "(" not in value:
        return f"; a comma within a value needs quotes: {shlex.quote(_quoted(key, value))}"
    whole, _, part = value.partition(",")
    return f"; a number has a point: {key}={whole}.{part}" if whole.isdigit() and part.isdigit() else ""


def _check_group(override: Override, conf: Path, further: bool) -> None:
    """Requires that a group is set once, to the name of one of its options."""
    group, text = override.key_or_group, str(override.input_line)
    parent, _, name = group.rpartition(".")
    if name == "name" and (conf / parent).is_dir() and not override.is_delete():
        raise UserError(f"{text}: choose by the group; write {parent}={override.value()}")
    if not (conf / group).is_dir():
        if isinstance(override.value(), Glob):
            raise UserError(f"{text}: glob() is for groups, such as pipeline; name the values of {group}: {group}=1,2")
        return
    options = _options(conf, group)
    if override.is_delete():
        if group in REQUIRED:
            raise UserError(f"{text}: a run needs a {group}; drop it, or write {group}=OPTION: {', '.join(options)}")
        return
    if override.is_add() or override.is_force_add():
        plain = text.lstrip("+")
        raise UserError(f"{text}: {group} has an option already, which a + cannot replace; write {shlex.quote(plain)}")
    for value in _values(override):
        if not isinstance(value, str):
            remedy = f"; or leave {group} out" if group not in REQUIRED else ""
            raise UserError(f"{text}: {group} takes the name of an option; choose {', '.join(options)}{remedy}")
        if value not in options and not further:
            near = [Path(value).stem] if Path(value).stem in options else difflib.get_close_matches(value, options, n=1)
            hint = f" (did you mean {group}={near[0]}?)" if near else ""
            raise UserError(f"{group}={value} is unknown; choose {', '.join(options)}{hint}")


def _values(override: Override) -> list[Any]:
    """The values of a group's override; none for a glob, which Hydra expands."""
    value = override.value()
    if isinstance(value, Glob):
        return []
    return list(override.sweep_iterator()) if override.is_sweep_override() else [value]


def _options(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))
