"""Every bad value ends in one line that names the field, the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipelines.config import Config, parse
from pipelines.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def config(*overrides: str) -> Config:
    return parse(composed(*overrides))


PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("pipeline", ["sgd", "dp_sgd", "fed_avg", "dp_fed_avg"])
def test_every_preset_composes_with_every_pipeline(preset: str, pipeline: str) -> None:
    private = ["privacy.epsilon=3"] if pipeline.startswith("dp") else []
    assert config(f"experiment={preset}", f"pipeline={pipeline}", *private).pipeline.name == pipeline


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_opens_with_its_command(preset: str) -> None:
    head = (CONF / "experiment" / f"{preset}.yaml").read_text().splitlines()[:3]
    assert any("python -m pipelines.run" in line and f"experiment={preset}" in line for line in head)


@pytest.mark.parametrize(
    "choice",
    [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "tuning"],
)
def test_every_group_option_composes(choice: str) -> None:
    extra = ["dataset.file=mine.npz"] if choice == "dataset=npz" else []
    extra += ["privacy.epsilon=1"] if choice.startswith("pipeline=dp") else []
    config(choice, *extra)


def test_tuned_values_apply_to_their_combination_and_yield_to_the_command_line() -> None:
    assert config("pipeline=dp_sgd", "privacy.epsilon=1").privacy.clip_norm == 0.1
    assert config("pipeline=dp_sgd", "privacy.epsilon=1", "privacy.clip_norm=2").privacy.clip_norm == 2
    assert config("pipeline=dp_sgd", "privacy.epsilon=1", "model=cnn").privacy.clip_norm == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pipeline=dp_sgd", "privacy.epsilon=0"], "privacy.epsilon=0: input should be greater than 0"),
        (["pipeline=dp_sgd", "privacy.epsilon=-1"], "privacy.epsilon=-1: input should be greater than 0"),
        (["pipeline=dp_sgd", "privacy.epsilon=inf"], "privacy.epsilon=inf: input should be a finite number"),
        (["pipeline=dp_sgd"], "needs exactly one of privacy.epsilon and privacy.noise_multiplier; got None and None"),
        (["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.noise_multiplier=1"], "needs exactly one of"),
        (["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.delta=0"], "privacy.delta=0: input should be greater"),
        (["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.delta=1"], "privacy.delta=1: input should be less than 1"),
        (["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.unit=user"], "privacy.unit=user does not fit"),
        (["pipeline=dp_fed_avg", "privacy.epsilon=1", "privacy.unit=example"], "privacy.unit=example does not fit"),
        (["pipeline=dp_sgd", "privacy=adaptive", "privacy.epsilon=1"], "privacy.clipping=adaptive is for"),
        (["dataset=npz"], "dataset=npz needs dataset.file=PATH.npz"),
        (["partition=dirichlet", "partition.alpha=null"], "partition=dirichlet needs partition.alpha"),
        (["partition.alpha=1"], "partition=iid does not take partition.alpha"),
        (["pipeline.learning_rate=fast"], "pipeline.learning_rate=fast: input should be a valid number"),
        (["pipeline.momentum=1"], "pipeline.momentum=1: input should be less than 1"),
        (["threads=0"], "threads=0: input should be greater than or equal to 1"),
        (["device=gpu"], "device=gpu: input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_bad_values_are_named_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        config(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"seed=-1.*evaluations=0|evaluations=0.*seed=-1"):
        config("seed=-1", "evaluations=0")


def test_privacy_does_not_tell_non_private_runs_apart() -> None:
    assert config("privacy.epsilon=1").fingerprint == config("privacy.epsilon=3").fingerprint
    private = [config("pipeline=dp_sgd", f"privacy.epsilon={value}").fingerprint for value in (1, 3)]
    assert private[0] != private[1]
    assert config("partition.clients=7").fingerprint == config().fingerprint
    federated = [config("pipeline=fed_avg", f"partition.clients={value}").fingerprint for value in (7, 8)]
    assert federated[0] != federated[1]
