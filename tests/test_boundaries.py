"""Who may import whom, in source and in running processes."""

import ast
import shutil
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pipelines.config.pipeline_table import PIPELINES

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "pipelines"


ORDER = (
    "core", "config", "data", "model", "privacy", "engines", "tracking", "report", "auditing", "runs", "recipes",
)  # fmt: skip
"""The rooms from the ground up: a room imports from itself and from those before it, the doors from all."""
DOORS = {"audit", "frontier", "reproduce", "run", "verify"}
MOST_ROOMS = 18
FRAMEWORKS = {"torch", "opacus", "tensorflow", "tensorflow_federated"}
PACKAGES = {  # outside the rooms that are named here, or given, nobody imports them, at any place of a file
    "mlflow": {"tracking"},
    "tensorboard": {"tracking"},
    "hydra": {"config", "runs"},
    "omegaconf": {"config", "runs"},
    **{framework: {"engines"} for framework in FRAMEWORKS},
}
NEVER_MEET = {
    "engines/central": ("pipelines.engines.federated", "tensorflow", "tensorflow_federated"),
    "engines/federated": ("pipelines.engines.central", "torch", "opacus"),
}


def imports_of(source: str) -> set[str]:
    """What a file imports, at its top or within a function, for types alone or not."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def faults(house: Path) -> list[str]:
    """Every import that a room may not have."""
    found = []
    for path in sorted(house.rglob("*.py")):
        place = path.relative_to(house)
        room = place.parts[0] if len(place.parts) > 1 else None
        names = imports_of(path.read_text())
        for name in names:
            parts = name.split(".")
            if room is not None and parts[0] == "pipelines" and len(parts) > 1:
                other = parts[1]
                if other in DOORS or (other in ORDER and ORDER.index(other) > ORDER.index(room)):
                    found.append(f"{place}: {name} is further up")
            if parts[0] in PACKAGES and room not in PACKAGES[parts[0]]:
                found.append(f"{place}: {name}")
        for folder, others in NEVER_MEET.items():
            if str(place).startswith(folder):
                met = [name for name in names if f"{name}.".startswith(tuple(f"{other}." for other in others))]
                found += [f"{place}: {name} is the other engine's" for name in met]
    return found


def test_rooms_import_only_from_rooms_below() -> None:
    assert faults(ROOMS) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("core/errors.py", "from pipelines.config.schema import Config"),
        ("privacy/mechanisms/tree.py", "from pipelines.engines import interface"),
        ("engines/central/sgd.py", "import pipelines.engines.federated.rounds"),
        ("engines/central/sgd.py", "from pipelines.engines import federated"),
        ("engines/federated/rounds.py", "def late():\n    import torch"),
        ("engines/federated/rounds.py", "from opacus.accountants import RDPAccountant"),
        ("report/points.py", "import mlflow"),
        ("runs/execute.py", "from mlflow.tracking import MlflowClient"),
        ("auditing/probe.py", "from pipelines.runs.prepare import Job"),
        ("data/load.py", "import torch"),
        ("tracking/read.py", "from pipelines.run import main"),
    ],
)
def test_a_planted_import_is_found(place: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(ROOMS, tmp_path / "pipelines")
    planted = tmp_path / "pipelines" / place
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    assert any(fault.startswith(f"{place}: ") for fault in faults(tmp_path / "pipelines"))


def mentions(house: Path) -> list[str]:
    """Files outside tracking/ that name MLflow, in code or in words: who keeps the record is that room's affair."""
    found = [path.relative_to(house) for path in house.rglob("*.py") if "mlflow" in path.read_text().lower()]
    return sorted(str(place) for place in found if place.parts[0] != "tracking")


def test_nothing_outside_tracking_names_mlflow() -> None:
    assert mentions(ROOMS) == []


def test_a_planted_mention_of_mlflow_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOMS, tmp_path / "pipelines")
    planted = tmp_path / "pipelines" / "report" / "points.py"
    planted.write_text(planted.read_text() + "# as the MLflow UI shows it\n")
    assert mentions(tmp_path / "pipelines") == ["report/points.py"]


def modules() -> dict[str, Path]:
    """Every module of the house by its dotted name."""
    found = {}
    for path in ROOMS.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {name: imports_of(path.read_text()) & (known.keys() - {name}) for name, path in known.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_rooms_are_few_and_only_doors_are_loose() -> None:
    rooms = {path.name for path in ROOMS.iterdir() if (path / "__init__.py").exists()}
    loose = {path.stem for path in ROOMS.glob("*.py")} - {"__init__"}
    assert (rooms, loose) == (set(ORDER), DOORS)
    assert len(rooms) + len(loose) <= MOST_ROOMS


def test_a_file_name_occurs_once() -> None:
    names = Counter(path.name for path in ROOMS.rglob("*.py") if path.name != "__init__.py")
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize(
    "absent",
    [
        # The second loads all that dp_sgd does.
        {"sgd": ("tensorflow", "tensorflow_federated", "opacus"), "dp_sgd_users": ("tensorflow",)},
        {"dp_fed_avg": ("torch", "opacus")},  # loads all that fed_avg does
    ],
    ids=["central", "federated"],
)
def test_a_run_of_one_engine_never_loads_the_other(absent: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    code = f"import sys; from pipelines.run import main\nuri = 'tracking.uri=sqlite:///{tmp_path / 'runs.db'}'\n"
    for pipeline, packages in absent.items():
        overrides = [
            f"pipeline={pipeline}", "evaluations=1", "tracking.log_model=false",
            *(["privacy.noise_multiplier=1"] if PIPELINES[pipeline].unit else []),
            f"pipeline.{PIPELINES[pipeline].length}=1",
        ]  # fmt: skip
        code += (
            f"sys.argv[1:] = [*{overrides!r}, uri]\n"
            "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
            f"assert not set({packages!r}) & set(sys.modules)\n"
        )
    # Ends only when nothing of the run, nor a worker of it, holds the pipes.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_stay_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob("[pte]*/**/*.py")}
    assert {path: lines for path, lines in sizes.items() if lines > 500} == {}


def test_names_of_tests_are_short_and_unique() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        functions = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        names = Counter(name.removeprefix("test_") for name in functions if name.startswith("test_"))
        assert {name: count for name, count in names.items() if count > 1 or len(name.split("_")) > 10} == {}, path
