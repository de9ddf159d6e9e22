"""Names of earlier versions keep working, and each says what it is called now."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from pipelines.config.command_renames import accept_swept_keys
from pipelines.config.overrides import arranged
from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.config.privacy_settings import AdaptiveConfig, FixedConfig, TreeConfig
from pipelines.config.renames import pipeline_of, renamed_params
from pipelines.config.schema import Config, parse
from pipelines.core.errors import UserError
from pipelines.core.terminal import remark
from tests.config.test_schema import composed

CONF = str(Path(__file__).resolve().parents[2] / "conf")
OVER_EXAMPLES = "pipeline=dp_sgd privacy.epsilon=3"
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


def run_of(command: str) -> Config:
    """The configuration of a command, as `pipelines.run` reads it."""
    return parse(composed(*arranged(shlex.split(command), CONF)))


def notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("pipeline=dp_sgd privacy.unit=user", "pipeline=dp_sgd ++privacy.unit=user"),
        ("-m pipeline=dp_sgd privacy.unit=example,user", "-m pipeline=dp_sgd ++privacy.unit=example,user"),
        ("experiment=smoke +privacy.unit=user", "experiment=smoke ++privacy.unit=user"),
        ("partition.classes_per_client=3", "++partition.classes_per_client=3"),
        ("privacy.clipping=adaptive seed=1", "++privacy.clipping=adaptive seed=1"),
        ("privacy.mechanism=tree privacy.restart_every=5", "++privacy.mechanism=tree ++privacy.restart_every=5"),
        ("privacy.restart_every=5", "privacy.restart_every=5"),
        ("pipeline=dp_sgd pipeline.user_update=delta", "pipeline=dp_sgd ++pipeline.user_update=delta"),
        ("pipeline=dp_fed_avg pipeline.local_epochs=2", "pipeline=dp_fed_avg pipeline.local_epochs=2"),
    ],
)
def test_hydra_accepts_an_older_key(given: str, read: str) -> None:
    assert arranged(given.split(), CONF) == read.split()


@pytest.mark.parametrize(
    ("command", "section", "name", "note"),
    [
        (f"{OVER_EXAMPLES} privacy.unit=user", "pipeline", "dp_sgd_users", "pipeline=dp_sgd privacy.unit=user is now"),
        (f"{OVER_EXAMPLES} pipeline.grad_sample=fast", "pipeline", "dp_sgd", "fast is now pipeline.grad_sample=book_"),
        (f"{OVER_EXAMPLES} privacy.clipping=adaptive", "privacy", "adaptive", "note: privacy.clipping=adaptive is now"),
        ("privacy=adaptive privacy.clipping=fixed", "privacy", "fixed", "note: privacy.clipping=fixed is now"),
        ("privacy.mechanism=tree privacy.restart_every=5", "privacy", "tree", "note: privacy.mechanism=tree is now"),
        ("partition=shards partition.classes_per_client=3", "partition", "shards", "partition.shards_per_client=3"),
        ("pipeline=sgd privacy.unit=user", "pipeline", "sgd", "privacy.unit=user has no effect on pipeline=sgd"),
    ],
)
def test_an_older_name_says_the_new_one(
    command: str, section: str, name: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert getattr(run_of(command), section).name == name
    said = notes(capsys)
    assert note in said[0]
    assert "None" not in said[0]
    run_of(command)
    assert notes(capsys) == []


@pytest.mark.parametrize(
    "command",
    [
        f"{OVER_EXAMPLES} privacy.unit=example",
        f"{OVER_EXAMPLES} privacy.unit=null",
        "pipeline=dp_sgd_users privacy.epsilon=3 privacy.unit=user",
        "pipeline=dp_fed_avg privacy.epsilon=3 privacy.unit=user",
    ],
)
def test_a_pipelines_own_unit_is_accepted_silently(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(command)
    assert notes(capsys) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pipeline=dp_fed_avg privacy.unit=example", "privacy.unit=example does not fit .* use pipeline=dp_sgd$"),
        ("pipeline=dp_sgd_users privacy.unit=example", "privacy.unit=example does not fit .* use pipeline=dp_sgd$"),
        ("pipeline=dp_sgd privacy.unit=client", "^privacy.unit=client is unknown"),
        ("pipeline=sgd privacy.clipping=foo", "^privacy.clipping=foo is unknown"),
        ("privacy.mechanism=foo", "^privacy.mechanism=foo is unknown"),
        ("privacy=tree privacy.clipping=adaptive", "^privacy.clipping=adaptive does not fit privacy=tree"),
        ("privacy=adaptive privacy.mechanism=tree", "^privacy=adaptive does not fit privacy.mechanism=tree"),
        ("privacy=banded privacy.clipping=fixed", "^privacy=banded goes with neither"),
        ("privacy=adaptive privacy.clipping=fixed privacy.target_quantile=0.7", "^privacy.target_quantile=0.7: "),
        (f"{OVER_EXAMPLES} pipeline.user_update=delta", "^pipeline.user_update=delta: pipeline=dp_sgd has no such"),
        ("partition.classes_per_client=3", "^partition.shards_per_client=3: partition=auto has no such key"),
        ("partition=shards partition.classes_per_client=3 partition.shards_per_client=4", "old name of .*give"),
    ],
)
def test_older_names_that_cannot_be_honoured_are_refused(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message):
        run_of(command)
    assert notes(capsys) == []


def test_a_user_is_protected_with_the_values_of_dp_sgd() -> None:
    examples, users = run_of(OVER_EXAMPLES), run_of(f"{OVER_EXAMPLES} privacy.unit=user pipeline.user_examples=5")
    assert users.unit == "user"
    own = {"user_update": "gradient", "user_examples": 5, "local_epochs": 1, "local_batch_size": 64}
    before = examples.pipeline.model_dump(exclude={"name", "grad_sample"})
    assert users.pipeline.model_dump() == before | own | {"name": "dp_sgd_users", "local_learning_rate": 0.5}
    assert users.privacy == examples.privacy


def test_older_clipping_keeps_the_clip_norm() -> None:
    command = "model=mlp pipeline=dp_sgd privacy.epsilon=3"
    privacy = run_of(f"{command} privacy.clipping=adaptive privacy.target_quantile=0.7").privacy
    assert isinstance(privacy, AdaptiveConfig)
    assert (privacy.clip_norm, privacy.target_quantile, privacy.clip_learning_rate) == (1.0, 0.7, 0.2)
    fixed = run_of(f"{command} privacy=adaptive privacy.clipping=fixed").privacy
    assert (fixed.name, fixed.clip_norm) == ("fixed", 0.1)


def test_users_are_protected_wherever_the_pipeline_is_chosen(tmp_path: Path) -> None:
    own = (Path(CONF) / "pipeline" / "dp_sgd.yaml").read_text()
    write(tmp_path / "pipeline" / "my2.yaml", own)
    choice = "# @package _global_\ndefaults: [{override /pipeline: dp_sgd}]\n"
    write(tmp_path / "experiment" / "mine.yaml", choice)
    write(tmp_path / "experiment" / "whole.yaml", f"{choice}privacy: {{unit: user}}\n")
    for command in ("experiment=mine privacy.unit=user", "pipeline=my2 privacy.unit=user", "experiment=whole"):
        command = f"--config-dir {tmp_path} {command} privacy.epsilon=3 pipeline.user_update=delta"
        overrides = arranged(command.split(), CONF)[2:]
        config = parse(composed(*overrides, f"hydra.searchpath=[file://{tmp_path}]"))
        assert config.unit == "user"
        assert isinstance(config.pipeline, DpSgdUsersConfig)
        assert config.pipeline.user_update == "delta"


def test_older_group_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path / "partition" / "p.yaml", "{name: shards, clients: 9, alpha: null, classes_per_client: 3, seed: null}"
    )
    own = (Path(CONF) / "pipeline" / "dp_sgd.yaml").read_text()
    users = "user_update: gradient\nuser_examples: null\nlocal_epochs: 1\nlocal_batch_size: 64\n"
    write(tmp_path / "pipeline" / "q.yaml", f"{own}{users}local_learning_rate: 0.5\n")
    write(tmp_path / "privacy" / "r.yaml", yaml.safe_dump({**PRIVACY, "clip_norm": 0.3}))
    write(tmp_path / "model" / "s.yaml", "{name: linear, widths: []}")
    config = parse(
        composed("partition=p", "pipeline=q", "privacy=r", "model=s", f"hydra.searchpath=[file://{tmp_path}]")
    )
    assert config.partition.model_dump() == {"name": "shards", "clients": 9, "shards_per_client": 3, "seed": None}
    assert isinstance(config.pipeline, DpSgdConfig)
    assert isinstance(config.privacy, FixedConfig)
    assert config.privacy.clip_norm == 0.3
    remark.cache_clear()
    notes(capsys)
    parse(composed("pipeline=q", "privacy.epsilon=3", f"hydra.searchpath=[file://{tmp_path}]"))
    (line,) = notes(capsys)
    assert "pipeline.user_update=gradient" in line
    assert "pipeline.user_examples=null" in line


def test_hydra_accepts_older_keys_in_a_presets_sweep() -> None:
    params = {"privacy.unit": "user,example", "pipeline.user_update": "delta", "privacy.epsilon": "1,3"}
    hydra = {"sweeper": {"params": params}, "overrides": {"task": ["seed=1"]}}
    config = OmegaConf.create({"hydra": hydra, "privacy": {"name": "fixed"}})
    OmegaConf.set_readonly(config, True)
    accept_swept_keys(config)
    assert list(config.hydra.sweeper.params) == ["++privacy.unit", "++pipeline.user_update", "privacy.epsilon"]


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
