"""Pages lead somewhere: every relative link exists, and every printed training command composes."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pipelines.config.overrides import arranged
from pipelines.config.schema import parse
from pipelines.core.paths import REPOSITORY
from pipelines.runs.launch import CONF

PAGES = sorted(
    {
        *REPOSITORY.glob("*.md"),
        *(path for folder in ("pipelines", "experiments", "tests") for path in (REPOSITORY / folder).rglob("*.md")),
    }
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = "python -m pipelines.run"


def anchors(page: Path) -> set[str]:
    """What a link may follow the page's name with: its headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Iterator[str]:
    """Every training command in a fenced block, without its comment."""
    lines = {line for page in PAGES for block in FENCE.findall(page.read_text()) for line in block.splitlines()}
    yield from sorted(line for line in lines if line.startswith(RUN))


@cache
def swept_by(experiment: str) -> dict[str, str]:
    """What a preset sweeps, as its own overrides."""
    preset = compose("config", [experiment], return_hydra_config=True)
    return {key: f"{key}={value}" for key, value in (preset.hydra.sweeper.params or {}).items()}


def last_run(overrides: list[str]) -> list[str]:
    """The overrides of a run; of a sweep's last one, whose preset may sweep more keys."""
    presets = [text for text in overrides if text.startswith("experiment=")]
    swept = {key: text for preset in presets for key, text in swept_by(preset).items()}
    given = {text.partition("=")[0]: text for text in overrides}
    parsed = OverridesParser.create().parse_overrides(list((swept | given).values()))
    return [
        f"{one.key_or_group}={list(one.sweep_string_iterator())[-1]}" if one.is_sweep_override() else str(text)
        for one, text in zip(parsed, (swept | given).values(), strict=True)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("command", commands())
def test_every_training_command_composes(command: str) -> None:
    overrides = [text for text in arranged(shlex.split(command, comments=True)[3:], CONF) if "=" in text]
    with initialize_config_dir(CONF, version_base="1.3"):
        values = compose("config", last_run(overrides))
    parse(OmegaConf.to_container(values, resolve=True))  # type: ignore[arg-type]
