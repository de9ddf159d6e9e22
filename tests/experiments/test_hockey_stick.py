"""One private step as a mechanism for DP-Auditorium; its tester itself runs where `DP_AUDITORIUM` says where it is."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.kits.hockey_stick.__main__ import main
from experiments.kits.hockey_stick.mutants import BUGS, planted
from experiments.kits.hockey_stick.one_step import SAMPLING_PROBABILITY, OneStep, neighbours
from experiments.kits.hockey_stick.tester import MISSING, VARIABLE, located

ERRORS = 5
"""Standard errors; the seed is fixed."""


@pytest.mark.parametrize(("engine", "draws"), [("dp_sgd", 600), ("dp_fed_avg", 80)])
def test_a_draw_is_unit_noise_plus_the_participating_unit(engine: str, draws: int) -> None:
    data, without = neighbours(engine)
    step = OneStep.of(engine, data, seed=1)
    assert step.epsilon == pytest.approx(0.5256, abs=1e-3)
    error = ERRORS / np.sqrt(draws)
    noise = step(without, draws)
    assert np.abs(noise.mean(axis=0)).max() < error
    assert np.abs(noise.std(axis=0) - 1).max() < error
    # Almost all of the unit's clip norm, which is one standard deviation, shows; the rest is where others are too.
    mean = step(data, draws).mean(axis=0)
    assert (mean > 0.8 * SAMPLING_PROBABILITY - error).all()
    assert (mean < SAMPLING_PROBABILITY + error).all()


def test_each_bug_shows_in_what_is_drawn() -> None:
    data, without = neighbours("dp_sgd")
    step = OneStep.of("dp_sgd", data, seed=1)
    with planted("dp_sgd", BUGS[0]):
        assert step(without, 200).std() == pytest.approx(0.5, abs=0.1)
    for bug, least in zip(BUGS[1:], (10, 1.2), strict=True):
        with planted("dp_sgd", bug):
            assert step(data, 200).mean(axis=0).max() > least
    assert step(without, 200).std() == pytest.approx(1, abs=0.2)


def test_without_dp_auditorium_nothing_is_tested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("experiments.kits.hockey_stick.tester.find_spec", lambda name: None)
    assert main([]) == 0
    assert capsys.readouterr().out == MISSING + "\n"
    with pytest.raises(SystemExit):
        main(["--checkout", str(tmp_path)])
    assert f"{tmp_path} holds no dp_auditorium/testers" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["", "python/dp_auditorium", "python/dp_auditorium/dp_auditorium"])
def test_a_checkout_is_found_from_any_folder_above(tmp_path: Path, told: str) -> None:
    package = tmp_path / "python" / "dp_auditorium" / "dp_auditorium"
    (package / "testers").mkdir(parents=True)
    (package / "testers" / "hockey_stick_tester.py").touch()
    assert located(tmp_path / told) == package


def test_their_tester_objects_to_bugs_and_to_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    if VARIABLE not in os.environ:
        pytest.skip(MISSING)
    assert main(["--engine", "dp_sgd", "--samples", "1500"]) == 0
    assert capsys.readouterr().out.count("a violation") == len(BUGS)
