"""The presets of conf/dataset fit the schema, key by key."""

from pathlib import Path

import pytest
import yaml

from pipelines.config.data_settings import DatasetConfig

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "adult", "npz"])
def test_dataset_preset_offers_every_key(name: str) -> None:
    values = yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text())
    assert set(values) == set(DatasetConfig.model_fields)
    assert values["name"] == name
    DatasetConfig.model_validate(values | ({"file": "own.npz"} if name == "npz" else {}))
