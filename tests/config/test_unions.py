"""Sections that come in options: each preset has the keys of its type, and the type refuses those of the others."""

from typing import Any, get_args

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from pipelines.config.schema import parse
from pipelines.config.unions import UNIONS, keys_of_options, kinds
from pipelines.core.errors import UserError
from tests.config.test_schema import CONF, composed

NEEDED = {"npz": {"file": "own.npz"}}
"""Values that a preset leaves to its user."""
TOLD = {"census_bins": "bins", "lenet": "layers"}
"""Presets whose option has another name."""
PRESETS = [(section, path.stem) for section in UNIONS for path in sorted((CONF / section).glob("*.yaml"))]


def preset(section: str, name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose(f"{section}/{name}"))[section]  # type: ignore[index,call-overload]
    assert isinstance(values, dict)
    return values | NEEDED.get(name, {})


@pytest.mark.parametrize(("section", "name"), PRESETS)
def test_a_preset_has_every_key_of_its_type(section: str, name: str) -> None:
    values = preset(section, name)
    assert values["name"] == TOLD.get(name, name)
    assert set(values) == keys_of_options(section)[values["name"]]
    TypeAdapter(UNIONS[section]).validate_python(values)


@pytest.mark.parametrize("section", UNIONS)
def test_every_option_has_a_preset(section: str) -> None:
    here = {TOLD.get(name, name) for group, name in PRESETS if group == section}
    assert here == set(keys_of_options(section))


@pytest.mark.parametrize(("section", "name"), PRESETS)
def test_keys_of_other_options_are_refused_by_the_type(section: str, name: str) -> None:
    values = preset(section, name)
    foreign = set[str]().union(*keys_of_options(section).values()) - set(values)
    for key in foreign:
        with pytest.raises(ValidationError) as error:
            TypeAdapter(UNIONS[section]).validate_python(values | {key: 1})
        assert [item["type"] for item in error.value.errors()] == ["extra_forbidden"]


@pytest.mark.parametrize(
    ("section", "key", "line"),
    [
        (
            "privacy",
            "restart_every",
            "privacy.restart_every=5: privacy=fixed has no such key; privacy=tree has; drop it",
        ),
        ("audit", "guesses", "audit=none has no such key; audit=canary_clients and one_run have; drop it"),
        ("partition", "alpha", "partition.alpha=5: partition=auto has no such key; partition=dirichlet has; drop it"),
        ("dataset", "file", "dataset.file=5: dataset=digits has no such key; dataset=npz has; drop it"),
        ("dataset", "folder", "dataset=digits has no such key; dataset=adult, fashion_mnist and mnist have; drop it"),
        ("model", "widths", "model.widths=5: model=linear has no such key; model=mlp has; drop it"),
        ("features", "columns", "features.columns=5: features=none has no such key; features=bins has; drop it"),
        (
            "pipeline",
            "grad_sample",
            "pipeline.grad_sample=5: pipeline=sgd has no such key; pipeline=dp_sgd has; drop",
        ),
        ("pipeline", "user_update", "pipeline=sgd has no such key; pipeline=dp_sgd_users has; drop it"),
        ("pipeline", "nonsense", "pipeline.nonsense=5: unknown key; drop it (python -m pipelines.run --cfg job prints"),
    ],
)
def test_one_line_says_which_options_have_the_key(section: str, key: str, line: str) -> None:
    values = composed()
    values[section][key] = 5
    with pytest.raises(UserError) as error:
        parse(values)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", sorted(set(UNIONS) - {"dataset"}))
def test_an_unknown_option_is_named_in_one_line(section: str) -> None:
    values = composed()
    values[section] = {"name": "nonsense"}
    with pytest.raises(UserError, match=rf"^{section}=nonsense is unknown; choose .*, \w+$"):
        parse(values)


@pytest.mark.parametrize("section", UNIONS)
def test_a_missing_option_is_named_in_one_line(section: str) -> None:
    values = composed()
    values[section] = {}
    with pytest.raises(UserError, match=rf"^{section}.name is missing; choose by the group: {section}=OPTION$"):
        parse(values)


def test_nested_keys_are_named_without_the_option() -> None:
    values = composed("features=census_bins")
    del values["features"]["columns"][0]["bins"]
    with pytest.raises(UserError, match=r"^features\.columns\.0\.bins is missing"):
        parse(values)


def test_no_name_belongs_to_two_options() -> None:
    for section in UNIONS:
        names = [name for kind in kinds(section) for name in get_args(kind.model_fields["name"].annotation)]
        assert len(names) == len(set(names))
