"""A third party checks a guarantee: what holds, what was tampered with, and what is no guarantee at all."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.privacy.accounting import epsilon as accounting
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import AdaptiveClipping, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from pipelines.privacy.verification import verify_guarantee
from pipelines.verify import main

Capture = pytest.CaptureFixture[str]
PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.USER, population=1000, sampling_probability=0.1, steps=100, noise_multiplier=2.2478,
    clip_norm=0.3, delta=1e-5,
)  # fmt: skip


@pytest.fixture(scope="module")
def written() -> str:
    return json.dumps(PrivacyGuarantee.of(PLAN, simulated=False).to_dict())


@pytest.fixture
def values(written: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(written)
    return loaded


@pytest.fixture
def check(tmp_path: Path, capsys: Capture) -> Callable[[Any], tuple[int, str, str]]:
    """Writes privacy.json, verifies it, and returns exit code and output."""

    def call(content: Any) -> tuple[int, str, str]:
        path = tmp_path / "privacy.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        code = main([str(path)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


Check = Callable[[Any], tuple[int, str, str]]


@pytest.mark.parametrize("changes", [
    {}, {"adaptive": AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=5.0)}, {"steps": 0},
    # The discretised loss is coarse for so little of it: PLD exceeds RDP, which is harmless.
    {"sampling_probability": 0.004, "noise_multiplier": 100.0, "steps": 10_000, "delta": 1e-10},
])  # fmt: skip
def test_a_true_guarantee_holds(check: Check, changes: dict[str, Any]) -> None:
    code, out, err = check(PrivacyGuarantee.of(replace(PLAN, **changes), simulated=False).to_dict())
    assert (code, err) == (0, "")
    assert "HOLDS" in out
    assert "1,000 users" in out.replace("\n", " ")
    assert out.count("agrees") == (1 if changes == {"steps": 0} else 3)


def test_a_folder_and_a_result_are_understood(written: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "privacy.json").write_text(written)
    (tmp_path / "result.json").write_text(json.dumps({"evaluation": {}, "guarantee": json.loads(written)}))
    assert main([str(tmp_path)]) == main([str(tmp_path / "result.json")]) == 0
    assert capsys.readouterr().out.count("HOLDS: ") == 2


def tampered(values: dict[str, Any], name: str) -> dict[str, Any]:
    first, rdp, prv = values["accountants"]
    changes: dict[str, dict[str, Any]] = {
        "epsilon lowered": {"epsilon": 1.0},
        "epsilon lowered everywhere": {
            "epsilon": 1.0, "accountants": [{**item, "epsilon": 1.0} for item in values["accountants"]],
        },
        "epsilon raised everywhere": {"epsilon": 2.5, "accountants": [{**first, "epsilon": 2.5}, rdp, prv]},
        "steps changed": {"steps": 50},
        "noise raised": {"noise_multiplier": 4.0},
        "rate lowered": {"sampling_probability": 0.01},
        "delta raised": {"delta": 1e-4},
        "population raised": {"population": 60_000},
        "the realised batch size": {"expected_batch_size": 93.0},
        "another sampler": {"sampler": "shuffled"},
        "contradiction invented": {"contradictions": ["PLD exceeds RDP"]},
        "an accountant left out": {"accountants": [first, rdp]},
        "an accountant added": {"accountants": [first, rdp, prv, {**rdp, "accountant": "Opacus GDP"}]},
        "the guarantee's accountant swapped": {"accountants": [rdp, first, prv], "epsilon": rdp["epsilon"]},
        "an opinion lowered": {"accountants": [first, {**rdp, "epsilon": first["epsilon"]}, prv]},
        "a promise added": {"also_protects": "everybody"},
    }  # fmt: skip
    return values | changes[name]


NAMES = [
    "epsilon lowered", "epsilon lowered everywhere", "epsilon raised everywhere", "steps changed", "noise raised",
    "rate lowered", "delta raised", "population raised", "the realised batch size", "another sampler",
    "contradiction invented", "an accountant left out", "an accountant added", "the guarantee's accountant swapped",
    "an opinion lowered", "a promise added",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_tampering_shows(check: Check, values: dict[str, Any], name: str) -> None:
    code, out, err = check(tampered(values, name))
    assert (code, err) == (1, "")
    assert out.rstrip().endswith("DOES NOT HOLD")
    assert "\n- " in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": None}, "the guarantee has no epsilon"),
        ({"adaptive_clipping": None}, "the guarantee has no adaptive_clipping"),
        ({"steps": "100"}, "steps='100' must be a whole number"),
        ({"steps": 100.5}, "steps='100.5' must be a whole number"),
        ({"steps": True}, "steps='True' must be a whole number"),
        ({"steps": 10**12}, "more than any training takes"),
        ({"steps": -1}, "must be positive"),
        ({"population": 10**30}, "must be a whole number"),
        ({"epsilon": float("nan")}, "epsilon='nan' must be a finite number"),
        ({"delta": 0.01}, "must lie in (0, 0.001)"),
        ({"unit": "household"}, "'household' is not a valid PrivacyUnit"),
        ({"relation": "replace_me"}, "'replace_me' is not a valid NeighboringRelation"),
        ({"sampling_probability": 1.5}, "must lie in (0, 1]"),
        ({"noise_multiplier": 0}, "noise_multiplier=0 gives no finite epsilon"),
        ({"noise_multiplier": 1e-3, "steps": 10**6}, "too large to recompute"),
        ({"simulated": 0}, "simulated='0' must be true or false"),
        ({"adaptive_clipping": {"rate": 1}}, "malformed"),
        ({"adaptive_clipping": 3}, "malformed"),
        ({"accountants": []}, "the first one must have an epsilon"),
        ({"accountants": [3]}, "each needs accountant, version and epsilon"),
        ({"accountants": {}}, "must be a list"),
    ],
)
def test_a_malformed_guarantee_is_one_clear_line(
    check: Check, values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    # None takes the key away.
    broken = {key: value for key, value in (values | changes).items() if changes.get(key, 0) is not None}
    code, out, err = check(broken)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", '"text"', "[" * 100_000, "\x00"])
def test_what_is_no_guarantee_is_one_clear_line(check: Check, content: str) -> None:
    code, out, err = check(content)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_a_wrong_place_is_one_clear_line(tmp_path: Path, capsys: Capture) -> None:
    for source in ("nowhere.json", str(tmp_path), "f" * 32):
        assert main([source, "--uri", f"sqlite:///{tmp_path}/none.db"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
    (tmp_path / "result.json").write_text('{"guarantee": null}')
    assert main([str(tmp_path / "result.json")]) == 1
    assert "without privacy" in capsys.readouterr().err


def test_another_version_is_named_and_judged_by_the_stated_error(values: dict[str, Any]) -> None:
    values["accountants"][0] |= {"version": "0.4.2", "epsilon": values["epsilon"] + 1e-4}
    values["epsilon"] += 1e-4
    found = verify_guarantee(values)
    assert found.holds
    assert "written by version 0.4.2, this is 0.4.3" in found.comparisons[0].remark
    values["accountants"][0]["version"] = "0.4.3"
    assert not verify_guarantee(values).holds


@pytest.mark.parametrize("share", [1e-5, 9e-4])
def test_no_version_excuses_an_epsilon_that_is_too_low(values: dict[str, Any], share: float) -> None:
    lower = values["epsilon"] * (1 - share)
    values["accountants"][0] |= {"version": "0.4.2", "epsilon": lower}
    assert not verify_guarantee(values | {"epsilon": lower}).holds


@pytest.mark.parametrize(
    ("accountant", "remark", "holds"),
    [
        (1, "failed: no convergence", False), (2, "failed: its epsilon is nan", False), (2, "", False),
        (1, "Opacus is not installed", False), (2, "Opacus is not installed", True),
        (2, "no answer within 20 s of computing", True),
    ],
)  # fmt: skip
def test_an_accountant_that_failed_only_on_paper_has_no_result(
    values: dict[str, Any], accountant: int, remark: str, holds: bool
) -> None:
    values["accountants"][accountant] |= {"version": "0.1", "epsilon": None, "remark": remark}
    assert verify_guarantee(values).holds is holds


def test_a_tree_epsilon_by_another_accountant_is_invented() -> None:
    plan = TreeMechanism(
        population=400, clients_per_round=40, steps=20, restart_every=10, noise_multiplier=6.0, clip_norm=1.0,
        delta=1e-5,
    )  # fmt: skip
    values = PrivacyGuarantee.of(plan, simulated=False).to_dict()
    assert verify_guarantee(values).holds
    values["accountants"][1] |= {"epsilon": 0.1, "remark": ""}
    assert not verify_guarantee(values).holds


def test_without_opacus_prv_is_skipped_and_reported(
    check: Check, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(**_: float) -> float:
        raise accounting.PackageNotFoundError("opacus")

    monkeypatch.setattr(accounting, "prv_epsilon", absent)
    accounting.accountant_results.cache_clear()
    code, out, _ = check(values)
    accounting.accountant_results.cache_clear()
    assert code == 0
    assert "not compared: Opacus is not installed" in out


def test_what_no_epsilon_depends_on_is_named_as_unchecked(check: Check, values: dict[str, Any]) -> None:
    code, out, _ = check(values | {"unit": "example", "clip_norm": 7.0})
    said = " ".join(out.split()).partition("Not checked")[2]
    assert code == 0
    for unchecked in ("unit is example", "clipped to 7", "1,000 examples", "secret"):
        assert unchecked in said


def test_verification_of_a_file_needs_no_framework(written: str, tmp_path: Path) -> None:
    (tmp_path / "privacy.json").write_text(written)
    code = (
        "import sys; from pipelines.verify import main; assert main([sys.argv[1]]) == 0; "
        "assert not {'torch', 'tensorflow', 'opacus', 'mlflow', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)


def test_an_unknown_value_is_refused_in_the_library_too() -> None:
    with pytest.raises(UserError, match="JSON object"):
        verify_guarantee([1])
