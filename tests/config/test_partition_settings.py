"""Whose users a run trains on: the data's own wherever it names them."""

from pathlib import Path

import pytest
import yaml

from pipelines.config.partition_settings import DEALT_CLIENTS, AutoPartition, IidPartition, NaturalPartition
from pipelines.core.errors import UserError

AUTO = AutoPartition(name="auto")


def test_clients_of_the_data_are_the_clients() -> None:
    assert AUTO.resolved(has_clients=True, divided=True) == NaturalPartition(name="natural")


def test_data_without_clients_is_dealt_as_by_iid() -> None:
    preset = yaml.safe_load((Path(__file__).parents[2] / "conf" / "partition" / "iid.yaml").read_text())
    assert preset["clients"] == DEALT_CLIENTS
    assert AUTO.resolved(has_clients=False, divided=True) == IidPartition.model_validate(preset)
    told = AutoPartition(name="auto", clients=30, seed=4)
    expected = IidPartition(name="iid", clients=30, seed=4)
    assert told.resolved(has_clients=False, divided=True) == expected


@pytest.mark.parametrize("told", [{"clients": 50}, {"seed": 0}])
def test_auto_does_not_deal_users_who_are_named(told: dict[str, int]) -> None:
    config = AutoPartition.model_validate({"name": "auto", **told})
    with pytest.raises(UserError, match=r"^partition\.\w+=\d+ .*set partition\.\w+=null .* partition=iid to simulate$"):
        config.resolved(has_clients=True, divided=True)
    # Nothing is dealt in a pipeline over examples, which a sweep may set beside one over users.
    assert config.resolved(has_clients=True, divided=False).name == "natural"
