"""Given a run id, verify holds a guarantee against what the run logged."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.paths import REPOSITORY
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.runs.verify_run import _planned, main
from pipelines.tracking.listeners import open_run
from pipelines.tracking.run_log import REFUTED_TAG, RunStart
from pipelines.tracking.store import Store, open_store

Capture = pytest.CaptureFixture[str]
PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.USER, population=1000, sampling_probability=0.1, steps=100, noise_multiplier=2.2478,
    clip_norm=0.3, delta=1e-5,
)  # fmt: skip


@pytest.fixture
def values() -> dict[str, Any]:
    return PrivacyGuarantee.of(PLAN, simulated=False).to_dict()


@pytest.fixture(scope="module")
def store(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    database = shutil.copy(migrated_database, tmp_path_factory.mktemp("store"))
    return open_store(f"sqlite:///{database}", "elsewhere")


CONFIGURED = {
    "privacy.population": None, "partition.name": "iid", "partition.clients": 1000, "pipeline.clients_per_round": 100,
    "pipeline.rounds": 100, "privacy.clip_norm": 0.3,
}  # fmt: skip


def logged(store: Store, guarantee: Any, metric: float, refuted: str = "", simulated: str = "false") -> str:
    tags = {"privacy.unit": "user", "privacy.simulated": simulated, "privacy.noise_multiplier": "2.2478"}
    tags |= {REFUTED_TAG: refuted} if refuted else {}
    with open_run(store, RunStart(name="dp_fed_avg", tags=tags, params=CONFIGURED)) as log:
        log.on_metrics(1, {"privacy/epsilon": metric})
        if guarantee is not None:
            log.on_artifact("privacy.json", guarantee)
    return log.run_id


def test_a_run_is_verified_from_its_store(store: Store, values: dict[str, Any], capsys: Capture) -> None:
    assert main([logged(store, values, values["epsilon"]), "--uri", store.uri]) == 0
    assert "(dp_fed_avg, FINISHED)" in capsys.readouterr().out


def test_a_run_that_contradicts_its_guarantee_does_not_hold(
    store: Store, values: dict[str, Any], capsys: Capture
) -> None:
    assert main([logged(store, values, 0.5), "--uri", store.uri]) == 1
    assert "the run's metric privacy/epsilon is 0.5" in capsys.readouterr().out
    assert main([logged(store, values, values["epsilon"], refuted="too little noise"), "--uri", store.uri]) == 1
    assert "the run is refuted: too little noise" in capsys.readouterr().out
    assert main([logged(store, values, values["epsilon"], simulated="true"), "--uri", store.uri]) == 1
    assert "tagged privacy.simulated=true" in capsys.readouterr().out
    for source in (logged(store, None, 1.0), "0" * 32):
        assert main([source, "--uri", store.uri]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_run_of_an_older_release_holds(store: Store, values: dict[str, Any], capsys: Capture) -> None:
    older = dict(values)
    older["normaliser"] = older.pop("expected_batch_size")
    assert main([logged(store, older, values["epsilon"]), "--uri", store.uri]) == 0
    older["normaliser"] *= 2
    assert main([logged(store, older, values["epsilon"]), "--uri", store.uri]) == 1
    assert "expected_batch_size=100.0" in capsys.readouterr().out


def test_an_override_of_the_store_is_told_the_option(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["0" * 32, "tracking.uri=sqlite:///a.db"])
    found = capsys.readouterr().err
    assert "--uri sqlite:///a.db" in found
    assert found.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "example"}, "the run logged unit=user, its privacy.json has example"),
        ({"clip_norm": 7.0}, "the run logged clip_norm=0.3, its privacy.json has 7.0"),
        (
            {"population": 5000, "expected_batch_size": 500.0},
            "the run logged population=1000.0, its privacy.json has 5000",
        ),
        (
            {"population": 5000, "expected_batch_size": 500.0},
            "the run logged expected_batch_size=100.0, its privacy.json has 500.0",
        ),
        ({"steps": 90}, "the run logged steps=100.0, its privacy.json has 90"),
        ({"sampling_probability": 0.05}, "the run logged sampling_probability=0.1, its privacy.json has 0.05"),
    ],
)
def test_a_run_shows_what_no_epsilon_depends_on(
    store: Store, values: dict[str, Any], changes: dict[str, Any], words: str, capsys: Capture
) -> None:
    for content, code in ((values, 0), (values | changes, 1)):
        assert main([logged(store, content, values["epsilon"]), "--uri", store.uri]) == code
        out = capsys.readouterr().out
        assert "compared with what the run logged" in " ".join(out.split())
    assert words in out


@pytest.mark.parametrize(
    ("unit", "params", "planned"),
    [
        ("example", {"pipeline.batch_size": "64", "pipeline.epochs": "2.0"}, (1280, 40, 0.05)),
        ("example", {"pipeline.batch_size": "64", "pipeline.epochs": "1", "privacy.population": "640"}, (640, 10, 0.1)),
        ("user", {"pipeline.batch_size": "10", "pipeline.epochs": "1", "partition.clients": "50"}, (50, 5, 0.2)),
    ],
)
def test_the_plan_follows_from_the_logged_configuration(
    unit: str, params: dict[str, str], planned: tuple[float, ...]
) -> None:
    found = _planned({"partition.name": "iid", "privacy.population": "null", **params}, unit, 1280)
    assert tuple(float(found[key] or 0) for key in ("population", "steps", "sampling_probability")) == planned


def test_users_that_only_the_data_tell_are_not_guessed() -> None:
    params = {"partition.name": "natural", "partition.clients": "null", "pipeline.clients_per_round": "5"}
    assert _planned(params | {"pipeline.rounds": "9"}, "user", 1280) == {}


def test_verification_of_a_run_needs_no_training_framework(store: Store, values: dict[str, Any]) -> None:
    code = (
        "import sys; from pipelines.verify import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'tensorflow', 'opacus'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, logged(store, values, values["epsilon"]), "--uri", store.uri]
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
