"""The benchmark measures in turn, judges by the numbers, and leaves nothing behind. No test looks at a time."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from experiments.speed import environments
from experiments.speed.__main__ import main, parser
from experiments.speed.chapters import chapter
from experiments.speed.probes.problem import SharedPartition, central_settings, population
from experiments.speed.record import BLOCK, FOLDER, README, RESULTS, markdown, write_results
from experiments.speed.results import Origin, Record, judge, read_json
from experiments.speed.runner import Measurement, Setting, measure, take_turns
from experiments.speed.session import command_of, plan_of
from experiments.speed.subject import SECTIONS, Section, Subject, Target
from experiments.speed.table import number, section_table, targets_table
from pipelines.core.errors import UserError

ORIGIN = Origin(
    command="python -m experiments.speed", date="2026-01-01", commit="0" * 40, machine={"cpu": "one", "cores": "2"},
    versions={"project": {"python": "3.11"}}, repeats=3, quick=False, missing=("pfl",),
)  # fmt: skip


def record(**subjects: list[float]) -> Record:
    """Rates of subjects, one measurement a repeat."""
    measurements = [
        Measurement(subject=name, repeat=k, metrics={"rate": value}, facts={}, failure=None, wall_s=1.0)
        for name, values in subjects.items()
        for k, value in enumerate(values, start=1)
    ]
    return Record(origin=ORIGIN, measurements=tuple(measurements))


def target(bound: float | None, *, at_least: bool = True, reference: tuple[str, ...] = ("peer",)) -> Target:
    return Target(
        claim="ours over theirs", metric="rate", bound=bound, at_least=at_least, subject=("ours",), reference=reference
    )


def test_a_target_is_the_ratio_of_medians_with_its_range() -> None:
    verdict = judge(
        target(2.0),
        record(ours=[10.0, 30.0, 20.0], peer=[10.0, 8.0, 5.0]),
    )
    assert verdict.value is not None
    assert (verdict.value.middle, verdict.value.low, verdict.value.high) == (20 / 8, 1.0, 4.0)
    assert verdict.met is True


@pytest.mark.parametrize(
    ("bound", "at_least", "met"), [(2.0, True, True), (2.1, True, False), (2.0, False, True), (1.9, False, False)]
)
def test_a_bound_holds_in_its_own_direction(bound: float, at_least: bool, met: bool) -> None:
    goal = target(bound, at_least=at_least)
    assert judge(goal, record(ours=[4.0], peer=[2.0])).met is met


def test_the_best_of_several_references_counts_and_is_named() -> None:
    goal = target(None, reference=("slow", "fast", "absent"))
    verdict = judge(goal, record(ours=[12.0], slow=[1.0], fast=[4.0]))
    assert verdict.value is not None
    assert (verdict.value.middle, verdict.versus, verdict.met) == (3.0, "fast", None)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdict = judge(target(1.0), record(ours=[1.0]))
    assert verdict.value is verdict.met is None


@pytest.mark.parametrize("section", SECTIONS)
def test_targets_speak_of_subjects_of_their_section(section: Section) -> None:
    built = chapter(section)
    names = [subject.name for subject in built.subjects]
    assert len(set(names)) == len(names)
    assert len({goal.key for goal in built.targets}) == len(built.targets)
    assert {name for goal in built.targets for name in (*goal.subject, *goal.reference)} <= set(names)
    for subject in built.subjects:
        assert set(subject.quick) <= set(subject.options or {})
        for options in (subject.options or {}, {**(subject.options or {}), **subject.quick}):
            # What is left after the rounds or steps that trace has a median.
            assert options.get("rounds", options.get("steps", 99)) >= options.get("warm", 2) + 1
        if not subject.program[0].startswith("-"):
            assert (environments.ROOT / subject.program[0]).is_file()


def setting(folder: Path) -> Setting:
    return Setting(scratch=folder, data=folder / "none.npz", folder="null", threads=2, quick=False)


def script(name: str, code: str, **fields: object) -> Subject:
    return Subject(name=name, label=name, program=("-c", code), **fields)  # type: ignore[arg-type]


REPORT = "import os, sys, json; print('noise'); print(json.dumps({'metrics': {'pid': os.getpid()}})); print('noise')"


def test_subjects_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    subjects = [
        script("a", REPORT, options={}),
        script("b", REPORT, options={}),
        script("c", REPORT, options={}, repeats=1),
    ]
    seen: list[Measurement] = []
    take_turns(subjects, 2, setting(tmp_path), seen.append)
    assert [(m.subject, m.repeat) for m in seen] == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2)]
    assert len({m.metrics["pid"] for m in seen} | {os.getpid()}) == 6


def test_options_reach_the_process_with_their_fields_filled_in(tmp_path: Path) -> None:
    code = (
        "import sys, os, json; o = json.loads(sys.argv[1]); assert o['x'] == os.environ['SCRATCH'] + '/2', o;"
        "print(json.dumps({'metrics': {'threads': o['threads'], 'rounds': o['rounds']}}))"
    )
    subject = script("a", code, options={"x": "{scratch}/{repeat}", "rounds": 9}, variables={"SCRATCH": "{scratch}"})
    found = measure(subject, 2, setting(tmp_path))
    assert found.failure is None
    assert (found.metrics["threads"], found.metrics["rounds"]) == (2, 9)


def test_a_failure_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    subjects = [script("bad", "raise ValueError('out of luck')", options={}), script("good", REPORT, options={})]
    bad, good = take_turns(subjects, 1, setting(tmp_path), lambda _: None)
    assert bad.failure == "exit code 1: ValueError: out of luck"
    assert bad.metrics == {}
    assert good.failure is None
    silent = measure(script("silent", "pass", options={}), 1, setting(tmp_path))
    assert silent.failure is not None


CHILD = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "


def wait_for(path: Path) -> int:
    while not path.is_file() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        psutil.Process(pid).wait(5)
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_left_by_a_subject_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    measure(script("a", f"{CHILD} open({str(note)!r}, 'w').write(str(p.pid))"), 1, setting(tmp_path))
    assert gone(wait_for(note))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Background jobs are started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_subject_and_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    subject = script("a", f"{CHILD} open({str(note)!r}, 'w').write(str(p.pid)); p.wait()")

    def interrupt() -> None:
        wait_for(note)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        measure(subject, 1, setting(tmp_path))
    assert gone(wait_for(note))


def test_a_missing_environment_costs_only_its_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    plan, missing = plan_of(["federated"], [])
    names = {subject.name for _, subjects in plan for subject in subjects}
    assert missing == ("flower", "pfl")
    assert {"fed_avg", "tff_keras"} <= names
    assert not {"pfl", "flower"} & names
    with pytest.raises(UserError, match="make bench"):
        plan_of(["federated"], ["pfl"])
    with pytest.raises(UserError, match="no such subject"):
        plan_of(["central"], ["pfl"])


def test_results_survive_the_disk_and_missing_ones_are_named(tmp_path: Path) -> None:
    measured = [
        Measurement(subject="fed_avg", repeat=k, metrics={"examples_per_s": 2e4 + k}, facts={"a": "b"}, failure=None,
                    wall_s=2.0)
        for k in (1, 2, 3)
    ]  # fmt: skip
    failed = Measurement(subject="tff_keras", repeat=1, metrics={}, facts={}, failure="exit code 1: no", wall_s=1.0)
    records = {"federated": Record(origin=ORIGIN, measurements=(*measured, failed))}
    paths = write_results(records, tmp_path)  # type: ignore[arg-type]
    assert all(path.stat().st_size for path in paths)
    assert read_json(tmp_path / RESULTS) == records
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4
    table = section_table(chapter("federated"), records["federated"], markdown=True)
    assert "20,000" in table
    assert "stock TFF, Keras failed: exit code 1: no" in table
    assert "pfl-research is left out" in table
    assert "not measured" in targets_table(records, markdown=True)  # type: ignore[arg-type]


def test_the_readme_shows_what_was_recorded() -> None:
    records = read_json(FOLDER / RESULTS)
    if not records:
        pytest.skip("nothing is recorded yet")
    block = BLOCK.search((FOLDER / README).read_text())
    assert block is not None
    assert block.group() == markdown(records)
    assert not any(kept.origin.quick for kept in records.values())
    assert json.loads((FOLDER / RESULTS).read_text()).keys() == set(SECTIONS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--record", "--quick"], "drop --quick"),
        (["--record", "--only", "pfl"], "drop --quick and --only"),
        (["federate"], "section federate is unknown"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(arguments) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_the_recorded_command_names_no_path_of_this_machine() -> None:
    arguments = [
        "central",
        "around",
        "--record",
        "--repeats",
        "5",
        "--uri",
        "sqlite:////home/me/x.db",
        "--data",
        "/data",
    ]
    assert command_of(parser().parse_args(arguments)) == (
        "python -m experiments.speed central around --repeats 5 --cores 2 --record"
    )


def test_a_population_may_be_larger_than_its_data() -> None:
    clients = population(2000, 60, outsized=500, examples=1000)
    assert isinstance(clients, SharedPartition)
    assert set(clients.sizes[:-1]) == {60}
    assert clients.sizes[-1] == 500
    assert max(int(held.max()) for held in clients.clients) < 1000


def test_steps_asked_for_are_the_steps_that_run() -> None:
    for steps in range(1, 300):
        settings = central_settings({"pipeline": "sgd", "batch": 512, "steps": steps}, 60_000)
        assert int(np.ceil(settings.epochs * np.ceil(60_000 / 512))) == steps


@pytest.mark.parametrize(
    ("value", "text"),
    [(19_876.0, "19,900"), (123.4, "123"), (2.345, "2.35"), (0.0123, "0.0123"), (0.0, "0"), (1e-5, "1.0e-05")],
)
def test_numbers_keep_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text
