"""Every bad value ends in one line that names the field, the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdUsersConfig
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.schema import Config, parse
from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.planning import plan_for

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def config(*overrides: str) -> Config:
    return parse(composed(*overrides))


PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_preset_composes_with_every_pipeline(preset: str, pipeline: str) -> None:
    private = ["privacy.epsilon=3"] if PIPELINES[pipeline].unit else []
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
    extra += ["pipeline=fed_avg"] if choice == "audit=canary_clients" else []
    config(choice, *extra)


def test_tuned_values_fit_their_combination_and_yield_to_overrides() -> None:
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
        (["pipeline=dp_sgd_users", "privacy.epsilon=1", "pipeline.user_update=mean"], "pipeline.user_update=mean: "),
        (["pipeline=dp_sgd", "privacy=tree", "privacy.epsilon=1"], "privacy=tree is for pipeline=dp_fed_avg; use"),
        (
            ["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.population=100", "dataset.limit=100"],
            "dataset.limit=100 always keeps as many",
        ),
        (
            ["pipeline=dp_sgd", "privacy.epsilon=1", "privacy.population=1500", "audit=one_run"],
            "audit=one_run gives canaries places that depend on how many there are",
        ),
        (
            ["pipeline=dp_fed_avg", "privacy=adaptive", "privacy.epsilon=1", "pipeline.secure_aggregation=true"],
            "pipeline.secure_aggregation=true does not fit privacy=adaptive",
        ),
        (
            ["pipeline=fed_avg", "pipeline.engine=stock", "pipeline.secure_aggregation=true"],
            "needs pipeline.engine=fast",
        ),
        (["dataset=npz"], "dataset=npz needs dataset.file=PATH.npz"),
        (["partition=dirichlet", "partition.alpha=null"], "partition.alpha=None: input should be a valid number"),
        (["partition.seed=-1"], "partition.seed=-1: input should be greater than or equal to 0"),
        (["pipeline.learning_rate=fast"], "pipeline.learning_rate=fast: input should be a valid number"),
        (["pipeline.momentum=1"], "pipeline.momentum=1: input should be less than 1"),
        (["pipeline.ema_decay=1"], "pipeline.ema_decay=1: input should be less than 1"),
        (["model=cnn", "model.activation=gelu"], "model.activation=gelu: input should be 'tanh' or 'relu'"),
        (
            ["model=layers", "model.layers=[{pool:2}]"],
            "model.layers.0={'pool': 2}: no such layer; write {conv: {filters",
        ),
        (["model=layers", "model.layers=[relu,gelu]"], "model.layers.1=gelu: no such layer; write"),
        (["model=layers", "model.layers=[relu,{dense:0}]"], "model.layers.1.dense=0: input should be greater than or"),
        (["model=layers", "model.layers=[{conv:16}]"], "model.layers.0.conv=16: input should be settings, such as {fi"),
        (["model=layers", "model.layers=[{conv:{kernel:3}}]"], "model.layers.0.conv.filters is missing; add filters"),
        (
            ["model=layers", "model.layers=[{max_pool:big}]"],
            "model.layers.0.max_pool.window=big: input should be a whole",
        ),
        (
            ["model=layers", "model.layers=[{max_pool:{window:2,by:1}}]"],
            "model.layers.0.max_pool.by=1: unknown key; drop",
        ),
        (["model=layers", "model.layers=relu"], "input should be a list, such as 'model.layers=[relu]'"),
        (["model=layers", "model.layers=[]"], "model.layers=[] has no layer; name some"),
        (["threads=0"], "threads=0: input should be greater than or equal to 1"),
        (["device=gpu"], "device=gpu: input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_bad_values_are_named_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        config(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pipeline", "unit", "divided"),
    [
        ("sgd", None, False),
        ("dp_sgd", "example", False),
        ("dp_sgd_users", "user", True),
        ("fed_avg", None, True),
        ("dp_fed_avg", "user", True),
    ],
)
def test_a_pipeline_decides_who_is_protected(pipeline: str, unit: str | None, divided: bool) -> None:
    chosen = config(f"pipeline={pipeline}", "privacy.epsilon=1")
    assert (chosen.pipeline.name, chosen.unit, chosen.divided) == (pipeline, unit, divided)


@pytest.mark.parametrize("combination", ["dataset=digits", "dataset=adult", "dataset=mnist model=cnn", "model=mlp"])
def test_both_engines_of_user_level_privacy_are_tuned_alike(combination: str) -> None:
    tff, torch = (
        config(*combination.split(), f"pipeline={name}", "privacy.epsilon=1") for name in ("dp_fed_avg", "dp_sgd_users")
    )
    assert isinstance(tff.pipeline, DpFedAvgConfig)
    assert isinstance(torch.pipeline, DpSgdUsersConfig)
    ours, theirs = torch.pipeline, tff.pipeline
    assert (ours.optimizer, ours.user_update, ours.weight_decay) == ("sgd", "delta", 0)
    assert (ours.learning_rate, ours.momentum) == (theirs.server_learning_rate, theirs.server_momentum)
    assert (ours.batch_size, ours.local_epochs) == (theirs.clients_per_round, theirs.local_epochs)
    assert (ours.local_batch_size, ours.local_learning_rate) == (theirs.local_batch_size, theirs.client_learning_rate)
    assert torch.privacy.clip_norm == tff.privacy.clip_norm


def test_the_preset_for_users_gives_both_engines_one_plan() -> None:
    names = ("dp_fed_avg", "dp_sgd_users")
    configs = [config("experiment=digits_users", f"pipeline={name}", "privacy.noise_multiplier=2") for name in names]
    ours, theirs = (plan_for(each.pipeline, each.privacy, 359) for each in configs)  # type: ignore[arg-type]
    assert ours == theirs


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"seed=-1.*evaluations=0|evaluations=0.*seed=-1"):
        config("seed=-1", "evaluations=0")


def test_privacy_does_not_tell_non_private_runs_apart() -> None:
    assert config("privacy.epsilon=1").fingerprint == config("privacy.epsilon=3").fingerprint
    private = [config("pipeline=dp_sgd", f"privacy.epsilon={value}").fingerprint for value in (1, 3)]
    assert private[0] != private[1]
    assert config("partition.clients=7").fingerprint == config().fingerprint
    for chosen in (["pipeline=fed_avg"], ["pipeline=dp_sgd_users", "privacy.epsilon=1"]):
        divided = [config(*chosen, f"partition.clients={value}").fingerprint for value in (7, 8)]
        assert divided[0] != divided[1]
