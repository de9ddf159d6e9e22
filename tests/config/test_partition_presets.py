"""The presets of conf/partition fit the schema, key by key."""

from pathlib import Path

import pytest
import yaml

from pipelines.config.data_settings import PartitionConfig

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", ["auto", "iid", "dirichlet", "shards", "natural"])
def test_partition_preset_offers_every_key(name: str) -> None:
    values = yaml.safe_load((CONF / "partition" / f"{name}.yaml").read_text())
    assert set(values) == set(PartitionConfig.model_fields)
    assert PartitionConfig.model_validate(values).name == name
