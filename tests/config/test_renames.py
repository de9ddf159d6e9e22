"""Names of earlier versions keep working, and each says what it is called now."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.overrides import arranged
from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.config.privacy_settings import AdaptiveConfig, FixedConfig, TreeConfig
from pipelines.config.renames import pipeline_of, renamed_params
from pipelines.config.schema import parse
from pipelines.core.errors import UserError
from pipelines.core.terminal import remark
from tests.config.test_schema import composed

CONF = str(Path(__file__).resolve().parents[2] / "conf")
DP_SGD: dict[str, Any] = {
    "name": "dp_sgd", "optimizer": "sgd", "learning_rate": 8.0, "momentum": 0.9, "weight_decay": 0.0,
    "schedule": "constant", "ema_decay": 0.0, "batch_size": 60, "epochs": 4.0, "max_physical_batch": 1024,
    "grad_sample": "auto", "user_update": "delta", "user_examples": None, "local_epochs": 1, "local_batch_size": 64,
    "local_learning_rate": 1.0,
}  # fmt: skip
PRIVACY: dict[str, Any] = {
    "unit": None, "epsilon": 3.0, "noise_multiplier": None, "delta": 1e-4, "clip_norm": 0.1, "clipping": "fixed",
    "mechanism": "gaussian", "restart_every": None, "target_quantile": None, "clip_learning_rate": None,
    "count_stddev": None, "population": None, "noise_seed": None, "release_copies": False,
}  # fmt: skip


def logged(**changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration as versions before discriminated sections logged it: every section with every key."""
    values: dict[str, Any] = {
        "dataset": {"name": "digits", "folder": None, "file": None, "classes": None, "bounds": None, "limit": None},
        "features": {"name": "none"},
        "model": {"name": "linear", "widths": [], "activation": "tanh"},
        "partition": {"name": "iid", "clients": 359, "alpha": None, "classes_per_client": None, "seed": None},
        "pipeline": DP_SGD,
        "privacy": PRIVACY,
        "tracking": {"uri": None, "experiment": None, "log_model": True},
        "federated": {"require_private_worker": False},
        "audit": {
            "name": "none", "confidence": 0.95, "canaries": None, "guesses": None, "canary": None, "score": None,
        },
        "seed": 0, "device": "auto", "threads": None, "evaluations": 10, "debug": False,
    }  # fmt: skip
    return {name: part | changes.get(name, {}) if isinstance(part, dict) else part for name, part in values.items()}


@pytest.fixture(autouse=True)
def _every_line_is_said() -> None:
    remark.cache_clear()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("pipeline=dp_sgd privacy.unit=user", "pipeline=dp_sgd_users"),
        ("-m pipeline=dp_sgd privacy.unit=example,user", "-m pipeline=dp_sgd,dp_sgd_users"),
        ("-m pipeline=glob(dp*) privacy.unit=user", "-m pipeline=dp_fed_avg,dp_sgd_users"),
        ("-m experiment=smoke privacy.unit=user", "-m experiment=smoke pipeline=sgd,dp_sgd_users,fed_avg,dp_fed_avg"),
        ("pipeline=dp_sgd pipeline.grad_sample=fast", "pipeline=dp_sgd pipeline.grad_sample=book_keeping"),
        ("-m pipeline.grad_sample=fast,hooks", "-m pipeline.grad_sample=book_keeping,hooks"),
        ("partition=shards partition.classes_per_client=3", "partition=shards partition.shards_per_client=3"),
        ("privacy.clipping=adaptive", "privacy=adaptive"),
        ("privacy.mechanism=tree seed=1", "seed=1 privacy=tree"),
        ("-m privacy.clipping=fixed,adaptive", "-m privacy=fixed,adaptive"),
        ("privacy=adaptive privacy.mechanism=gaussian", "privacy=adaptive"),
        ("privacy=adaptive privacy.clipping=fixed", "privacy=fixed"),
    ],
)
def test_an_older_name_says_the_new_one(given: str, read: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert arranged(given.split(), CONF) == read.split()
    (line,) = capsys.readouterr().err.splitlines()
    old, _, new = line.partition(" is now ")
    assert old.startswith("note: ")
    assert new.split(",")[-1] in " ".join(read.split())


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("pipeline=dp_sgd privacy.unit=example", "pipeline=dp_sgd"),
        ("pipeline=dp_sgd_users privacy.unit=user", "pipeline=dp_sgd_users"),
        ("pipeline=dp_fed_avg privacy.unit=user", "pipeline=dp_fed_avg"),
        ("pipeline=dp_fed_avg privacy.unit=null", "pipeline=dp_fed_avg"),
        ("pipeline=sgd privacy.unit=user", "pipeline=sgd"),
        ("privacy.unit=user", ""),
    ],
)
def test_a_pipelines_own_unit_is_accepted_silently(given: str, read: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert arranged(given.split(), CONF) == read.split()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pipeline=dp_fed_avg privacy.unit=example", "privacy.unit=example does not fit .* use pipeline=dp_sgd$"),
        ("pipeline=dp_sgd_users privacy.unit=example", "privacy.unit=example does not fit .* use pipeline=dp_sgd$"),
        ("pipeline=dp_sgd privacy.unit=client", "^privacy.unit=client is unknown"),
        ("privacy=tree privacy.clipping=adaptive", "^privacy.clipping=adaptive does not fit privacy.mechanism=tree"),
    ],
)
def test_older_names_that_contradict_each_other_are_refused(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arranged(shlex.split(given), CONF)


def test_a_logged_configuration_over_examples_parses(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(logged(pipeline={"grad_sample": "fast"}))
    assert isinstance(config.pipeline, DpSgdConfig)
    assert (config.pipeline.grad_sample, config.pipeline.batch_size) == ("book_keeping", 60)
    assert isinstance(config.privacy, FixedConfig)
    assert "privacy=fixed" in capsys.readouterr().err


def test_a_logged_configuration_over_users_parses(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(logged(privacy={"unit": "user"}))
    assert isinstance(config.pipeline, DpSgdUsersConfig)
    assert (config.pipeline.user_update, config.pipeline.local_learning_rate) == ("delta", 1.0)
    assert config.unit == "user"
    assert "pipeline=dp_sgd privacy.unit=user is now pipeline=dp_sgd_users" in capsys.readouterr().err


def test_other_logged_sections_parse() -> None:
    adaptive = parse(logged(privacy={"clipping": "adaptive", "count_stddev": 2.5, "target_quantile": 0.7}))
    assert isinstance(adaptive.privacy, AdaptiveConfig)
    assert (adaptive.privacy.target_quantile, adaptive.privacy.clip_learning_rate) == (0.7, 0.2)
    federated = composed("pipeline=dp_fed_avg")["pipeline"]
    old = logged(privacy={"mechanism": "tree", "restart_every": 5}) | {"pipeline": federated}
    tree = parse(old).privacy
    assert isinstance(tree, TreeConfig)
    assert tree.restart_every == 5
    shards = parse(logged(partition={"name": "shards", "classes_per_client": 2})).partition
    assert shards.model_dump() == {"name": "shards", "clients": 359, "shards_per_client": 2, "seed": None}
    canaries = {"name": "one_run", "canaries": 500, "guesses": 100, "canary": "noise", "score": "loss"}
    assert parse(logged(audit=canaries)).audit.model_dump() == canaries | {"confidence": 0.95}


def test_what_is_parsed_is_parsed_again_unchanged() -> None:
    config = parse(logged(privacy={"unit": "user"}))
    assert parse(config.model_dump(mode="json")) == config


def test_parameters_of_older_runs_read_as_those_of_newer_ones() -> None:
    old, new = logged(privacy={"unit": "user"}), parse(logged(privacy={"unit": "user"})).model_dump(mode="json")
    flat = [
        {
            f"{name}.{key}" if isinstance(part, dict) else name: "null" if value is None else str(value)
            for name, part in values.items()
            for key, value in (part if isinstance(part, dict) else {"": part}).items()
        }
        for values in (old, new)
    ]
    added = {"tracking.tensorboard": "False"}
    assert renamed_params(flat[0]) | added == flat[1] == renamed_params(flat[1])


def test_recorded_pipelines_are_known_by_their_unit() -> None:
    assert pipeline_of("dp_sgd", "user") == "dp_sgd_users"
    assert pipeline_of("dp_sgd", "example") == "dp_sgd"
    assert pipeline_of("dp_fed_avg", "user") == "dp_fed_avg"
    assert pipeline_of("sgd", None) == "sgd"
