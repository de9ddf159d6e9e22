"""Who may import whom, in source and in running processes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "pipelines"


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def forbidden(folder: str, packages: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOMS / folder).rglob("*.py"))
        for name in imports_of(path)
        if name.partition(".")[0] in packages or any(name.startswith(f"pipelines.{package}") for package in packages)
    ]


@pytest.mark.parametrize(
    ("folder", "packages"),
    [
        ("central", {"tensorflow", "tensorflow_federated", "hydra", "mlflow", "federated", "tracking", "data"}),
        ("federated", {"torch", "opacus", "hydra", "mlflow", "central", "tracking", "data"}),
        ("privacy", {"torch", "tensorflow", "tensorflow_federated", "hydra", "mlflow", "central", "federated", "data"}),
        ("data", {"torch", "tensorflow", "hydra", "mlflow", "central", "federated", "privacy", "tracking"}),
        ("partition", {"torch", "tensorflow", "hydra", "mlflow", "central", "federated", "privacy", "tracking"}),
        ("model", {"torch", "tensorflow", "hydra", "mlflow", "central", "federated", "privacy", "tracking", "data"}),
        (
            "audit",
            {"torch", "opacus", "tensorflow", "tensorflow_federated", "hydra", "mlflow", "central", "federated"},
        ),
        ("report", {"torch", "tensorflow", "hydra", "mlflow", "central", "federated"}),
    ],
)
def test_rooms_know_only_what_they_may(folder: str, packages: set[str]) -> None:
    assert forbidden(folder, packages) == []


def test_only_the_tracking_room_imports_mlflow() -> None:
    users = {path.parent.name for path in ROOMS.rglob("*.py") if any(i.startswith("mlflow") for i in imports_of(path))}
    assert users == {"tracking"}


@pytest.mark.parametrize(
    ("pipeline", "absent"),
    [
        ("sgd", ("tensorflow", "tensorflow_federated", "opacus")),
        ("dp_sgd_users", ("tensorflow", "tensorflow_federated")),  # loads all that dp_sgd does
        ("dp_fed_avg", ("torch", "opacus")),  # and this all that fed_avg does
    ],
)
def test_a_run_of_one_engine_never_loads_the_other(pipeline: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    arguments = [
        "experiment=smoke", f"pipeline={pipeline}", f"tracking.uri=sqlite:///{tmp_path / 'runs.db'}", "evaluations=1",
        *(["privacy.noise_multiplier=1"] if pipeline.startswith("dp") else []),
        *(["pipeline.rounds=1"] if "fed" in pipeline else ["pipeline.epochs=1"]),
    ]  # fmt: skip
    code = (
        "import sys; from pipelines.run import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        f"assert not set({absent!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], check=True, cwd=tmp_path)


def test_files_stay_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob("[pte]*/**/*.py")}
    assert {path: lines for path, lines in sizes.items() if lines > 500} == {}
