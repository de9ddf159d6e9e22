"""One row a pipeline: what follows from it."""

from typing import get_args

import pytest

from pipelines.config.pipeline_settings import PipelineConfig, TrainedConfig
from pipelines.config.pipeline_table import PIPELINES, PipelineRow, ceilings, private_pipelines
from pipelines.config.unions import keys_of_options


def test_the_table_has_a_row_for_every_pipeline() -> None:
    assert set(PIPELINES) == set(keys_of_options("pipeline"))
    kinds: tuple[type[TrainedConfig], ...] = get_args(get_args(PipelineConfig)[0])
    assert {row.settings for row in PIPELINES.values()} == set(kinds)


@pytest.mark.parametrize(("name", "row"), PIPELINES.items())
def test_a_row_speaks_of_fields_that_its_settings_have(name: str, row: PipelineRow) -> None:
    fields = row.settings.model_fields
    assert get_args(fields["name"].annotation) == (name,)
    assert {row.sample_size, row.length} <= set(fields)
    assert set(row.without) <= set(keys_of_options("privacy"))
    private = row.unit is not None
    assert private == (row.ceiling is not None)
    assert row.ceiling is None or PIPELINES[row.ceiling].unit is None


def test_each_unit_is_seen_beside_its_pipelines_without_privacy() -> None:
    assert ceilings("example") == ("sgd",)
    assert ceilings("user") == ceilings(None) == ("sgd", "fed_avg")


def test_private_pipelines_are_found_by_unit_and_mechanism() -> None:
    assert private_pipelines() == ("dp_sgd", "dp_sgd_users", "dp_fed_avg")
    assert private_pipelines("example") == ("dp_sgd",)
    assert private_pipelines("user") == ("dp_sgd_users", "dp_fed_avg")
    assert private_pipelines(mechanism="tree") == ("dp_fed_avg",)
