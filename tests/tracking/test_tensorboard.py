"""Event files, read back with TensorBoard's own reader."""

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from pipelines.core.errors import DivergedError
from pipelines.core.paths import REPOSITORY
from pipelines.engines.central.training import StepRecorder
from pipelines.tracking import listeners
from pipelines.tracking.mlflow_run import MlflowRun
from pipelines.tracking.read import read_text
from pipelines.tracking.run_log import NOTE, RunStart
from pipelines.tracking.store import open_store
from pipelines.tracking.tensorboard import TensorBoardRun
from tests.conftest import Cli, Outcome

PRIVATE = ("pipeline=dp_sgd", "privacy.noise_multiplier=2", "pipeline.epochs=2", "tracking.tensorboard=true")


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where event files go, for this test alone."""
    monkeypatch.setattr(listeners, "OUTPUTS", tmp_path / "outputs")
    return tmp_path / "outputs"


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    return found


def runs(outputs: Path, experiment: str = "tests") -> dict[str, EventAccumulator]:
    return {folder.name: read(folder) for folder in sorted((outputs / "tensorboard" / experiment).iterdir())}


def text(events: EventAccumulator, name: str) -> str:
    return str(events.Tensors(name)[-1].tensor_proto.string_val[0].decode())


def scalars(events: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(item.step, item.value) for item in events.Scalars(name)]


def recorded(done: Outcome, name: str) -> list[tuple[int, float]]:
    """A metric as MLflow has it."""
    history = open_store(done.uri, done.experiment).client.get_metric_history(done.row.run_id, name)
    return sorted((item.step, item.value) for item in history)


def statement_of(done: Outcome) -> str | None:
    """What the record says of the run's guarantee."""
    return read_text(open_store(done.uri, done.experiment), done.row.run_id, "privacy_statement.md")


def ended(events: EventAccumulator) -> int:
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return int(metadata.parse_session_end_info_plugin_data(content).status)


def test_a_private_run_shows_what_its_record_has(cli: Cli, outputs: Path) -> None:
    done = cli(*PRIVATE, "evaluations=3", "audit=membership")
    assert (done.code, done.err) == (0, "")
    ((name, events),) = runs(outputs).items()
    assert name == f"{done.row.name}-{done.row.run_id[:8]}"
    assert set(events.Tags()["scalars"]) == set(done.row.metrics)
    for metric in done.row.metrics:
        steps, values = zip(*scalars(events, metric), strict=True)
        expected_steps, expected = zip(*recorded(done, metric), strict=True)
        assert steps == expected_steps
        assert values == pytest.approx(expected, rel=1e-6)
    assert len(scalars(events, "privacy/epsilon")) == 3
    assert text(events, "privacy_statement.md") == statement_of(done)
    assert text(events, "note") == done.row.tags["mlflow.note.content"]
    assert {"| privacy.noise_multiplier | 2.0 |", "| privacy.epsilon | null |"} <= set(
        text(events, "params").split("\n")
    )
    assert "| pipeline | dp_sgd |" in text(events, "tags")
    assert events.Images("membership.png")[0].encoded_image_string.startswith(b"\x89PNG")
    assert ended(events) == api_pb2.STATUS_SUCCESS


def test_runs_of_a_sweep_lie_side_by_side(cli: Cli, outputs: Path) -> None:
    done = cli("-m", "pipeline=sgd", "seed=0,1", "pipeline.epochs=1", "evaluations=2", "tracking.tensorboard=true")
    assert done.code == 0
    children = {f"{row.name}-{row.run_id[:8]}": row for row in done.rows if "pipeline" in row.tags}
    found = runs(outputs)
    assert found.keys() == children.keys()
    for name, events in found.items():
        assert len(scalars(events, "test/accuracy")) == 2
        assert scalars(events, "test/loss")[-1][1] == pytest.approx(children[name].metrics["test/loss"])


def test_a_run_that_fails_keeps_its_events_and_epsilon(
    cli: Cli, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = StepRecorder.tick

    def diverge(self: StepRecorder, step: int, examples: float) -> object:
        if step == 3:
            raise DivergedError(step, "a weight")
        return tick(self, step, examples)

    monkeypatch.setattr(StepRecorder, "tick", diverge)
    done = cli(*PRIVATE, "evaluations=1000")
    assert done.code == done.err.count("\n") == 1
    (events,) = runs(outputs).values()
    assert [step for step, _ in scalars(events, "test/accuracy")] == [1, 2]
    (last, spent) = scalars(events, "privacy/epsilon")[-1]
    assert (last, spent) == (3, pytest.approx(done.row.metrics["privacy/epsilon"]))
    assert text(events, "privacy_statement.md") == statement_of(done)
    assert ended(events) == api_pb2.STATUS_FAILURE
    assert "| status | FAILED |" in text(events, "tags")


def test_an_unwritable_folder_costs_one_line_a_sweep(cli: Cli, outputs: Path) -> None:
    outputs.write_text("a file is where the folder should be")
    done = cli("-m", "pipeline=sgd", "seed=0,1", "pipeline.epochs=1", "evaluations=2", "tracking.tensorboard=true")
    assert done.code == 0
    assert done.err.count("TensorBoard") == 1
    assert "Not a directory" in done.err
    assert {row.status for row in done.rows} == {"FINISHED"}


def test_a_disk_that_fills_costs_one_line_and_later_events(
    cli: Cli, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = TensorBoardRun.on_metrics

    def fill(self: TensorBoardRun, step: int, values: dict[str, float]) -> None:
        assert self._file is not None
        write(self, step, values)
        self._file = Path("/dev/full")

    monkeypatch.setattr(TensorBoardRun, "on_metrics", fill)
    done = cli("pipeline=sgd", "pipeline.epochs=1", "evaluations=4", "tracking.tensorboard=true")
    assert (done.code, done.row.status) == (0, "FINISHED")
    assert done.err == "note: no more TensorBoard files (No space left on device); all else is there\n"
    (events,) = runs(outputs).values()
    assert len(scalars(events, "test/accuracy")) == 1
    assert len(recorded(done, "test/accuracy")) == 4


def test_what_the_record_refuses_no_other_listener_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}", "tests")
    record = MlflowRun.create(store, RunStart(name="a"))
    heard = TensorBoardRun(record.run_id, tmp_path, "tests")
    log = listeners.Listeners(record, {"TensorBoard files": heard})
    log.on_start(RunStart(name="a"))
    monkeypatch.setattr(MlflowRun, "on_metrics", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log.on_metrics(1, {"test/accuracy": 0.5})
    log.on_end("FINISHED")
    assert read(tmp_path / "tests" / f"a-{record.run_id[:8]}").Tags()["scalars"] == []


def test_infinity_is_left_out_and_nan_kept(tmp_path: Path) -> None:
    log = TensorBoardRun("0" * 32, tmp_path, "tests")
    log.on_start(RunStart(name="a"))
    log.on_metrics(1, {"privacy/epsilon": float("inf"), "test/loss": float("nan")})
    assert read(tmp_path / "tests" / "a-00000000").Tags()["scalars"] == ["test/loss"]


@pytest.mark.parametrize("name", ["..", "a/b", "../../x", "Kühe 牛" * 90, "", "a\0b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    log = TensorBoardRun("0" * 32, tmp_path / "room", name)
    log.on_start(RunStart(name=name))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.relative_to(tmp_path).parts[0] == "room"
    assert len(file.relative_to(tmp_path).parts) == 4


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    log = TensorBoardRun("0" * 32, tmp_path / "room", "tests")
    log.on_start(RunStart(name="a"))
    assert [path for path in (tmp_path / "room").rglob("*") if path.stat().st_mode & 0o077] == []


def test_text_of_an_error_is_not_written(tmp_path: Path) -> None:
    log = TensorBoardRun("0" * 32, tmp_path, "tests")
    log.on_start(RunStart(name="a", private=True, tags={NOTE: "public"}))
    log.on_end("FAILED", ValueError("batch of 61 rows"))
    (file,) = (path for path in tmp_path.rglob("events*"))
    assert b"61" not in file.read_bytes()


def test_events_need_no_framework(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from matplotlib.figure import Figure\n"
        "from pathlib import Path\n"
        "from pipelines.tracking.run_log import RunStart\n"
        "from pipelines.tracking.tensorboard import TensorBoardRun\n"
        "log = TensorBoardRun('0' * 32, Path(sys.argv[1]), 'tests')\n"
        "log.on_start(RunStart(name='a', params={'x': 1, 'y': None}))\n"
        "log.on_metrics(1, {'test/loss': 1.0})\n"
        "log.on_artifact('a.png', Figure())\n"
        "log.on_artifact('a.md', '# A')\n"
        "log.on_end('FINISHED')\n"
        "print([m for m in ('tensorflow', 'torch', 'mlflow') if m in sys.modules])\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    events = read(tmp_path / "tests" / "a-00000000")
    assert events.Tags()["images"] == ["a.png"]
    assert events.Images("a.png")[0].width == Figure().canvas.get_width_height()[0]
