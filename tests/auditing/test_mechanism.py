"""The mechanism audit agrees with a correct engine, and notices one that is not."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from pipelines.auditing import probe
from pipelines.auditing.finding import AuditError, Finding
from pipelines.auditing.mechanism import audit_mechanism, judge
from pipelines.auditing.observation import Observation
from pipelines.auditing.probe import Probe
from pipelines.config.schema import Config
from pipelines.engines.build import build_pipeline
from pipelines.engines.central import book_keeping, gradients
from pipelines.engines.interface import Pipeline
from pipelines.model.spec import build_spec
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.auditing.conftest import config_of, plan_of
from tests.mutants import central

THREADS = 2
SPEC = build_spec("mlp", features=(12,), classes=3, widths=(8,))


def audit(pipeline: str = "dp_sgd", plan: PoissonGaussianMechanism | None = None, **changes: Any) -> Finding:
    plan = plan or plan_of(pipeline)
    return audit_mechanism(
        config_of(pipeline, **changes), plan, SPEC, claim=plan.epsilon(), confidence=0.95, threads=THREADS
    )


@pytest.mark.parametrize(
    ("q", "sigma", "clip", "mode"),
    [(0.1, 1.0, 0.5, "auto"), (0.004, 0.8, 30.0, "auto"), (1.0, 5.0, 0.1, "hooks"), (0.5, 2.0, 1.0, "ghost")],
)
def test_dp_sgd_is_what_its_plan_says(q: float, sigma: float, clip: float, mode: str) -> None:
    plan = plan_of("dp_sgd", sampling_probability=q, noise_multiplier=sigma, clip_norm=clip)
    found = audit(plan=plan, grad_sample=mode)
    assert found.faults == ()
    found.require()
    claim = plan.epsilon()
    assert 0.6 * claim < found.epsilon_lower_bound < claim
    assert found.epsilon_estimate == pytest.approx(claim, rel=0.02)
    assert found.evidence["observations_with_unit"] >= 4500
    assert found.evidence["observations_without"] >= 4500
    assert Finding.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    low, high = found.evidence["noise_multiplier_interval"]
    assert low < sigma < high < 1.06 * low
    assert found.evidence["sensitivity_in_clip_norms"] == pytest.approx([1, 1], abs=1e-4)


def observed(plan: Mechanism) -> Observation:
    """A fifth of the observations: a round of TFF takes as long as 50 of PyTorch's steps."""
    return Observation.of(config_of("dp_fed_avg"), Probe.of(plan, observations=1000), THREADS)


def judged(plan: Mechanism, seen: Observation) -> Finding:
    return judge(seen, plan, claim=plan.epsilon(), confidence=0.95)


def test_dp_fed_avg_is_what_its_plan_says() -> None:
    found = judged(plan := plan_of("dp_fed_avg"), observed(plan))
    assert found.faults == ()
    found.require()
    assert 0.5 * plan.epsilon() < found.epsilon_lower_bound < plan.epsilon()


ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=4.0)


def assert_adaptive(found: Finding, plan: PoissonGaussianMechanism, *, estimate_within: float) -> None:
    assert found.faults == ()
    found.require()
    claim = plan.epsilon()
    assert 0.3 * claim < found.epsilon_lower_bound < claim
    assert found.epsilon_estimate == pytest.approx(claim, rel=estimate_within)
    # The update's own noise is larger than the step's, which the count shares.
    assert found.evidence["noise_multiplier_claimed"] == pytest.approx(plan.update_noise_multiplier)
    low, high = found.evidence["count_stddev_interval"]
    # A twentieth of the probe's sample of 50, which is less than the plan's.
    assert low < 2.5 < high
    assert found.evidence["count_stddev_claimed"] == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("pipeline", "clip_norm", "changes"),
    [
        ("dp_sgd", 0.05, {}),
        ("dp_sgd", 30.0, {"grad_sample": "ghost"}),
        ("dp_sgd_users", 1.0, {"user_update": "delta"}),
    ],
)
def test_adaptive_clipping_is_what_its_plan_says(pipeline: str, clip_norm: float, changes: dict[str, Any]) -> None:
    plan = plan_of(pipeline, clip_norm=clip_norm, adaptive=ADAPTIVE)
    seen = Observation.of(config_of(pipeline, **changes), Probe.of(plan, observations=2000), THREADS)
    assert_adaptive(judged(plan, seen), plan, estimate_within=0.05)
    assert seen.sizes.min() < 0.4  # half of the units are not clipped


def test_adaptive_clipping_in_rounds_is_what_its_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LEAST_COUNTS", 40)
    plan = plan_of("dp_fed_avg", adaptive=ADAPTIVE)
    seen = Observation.of(config_of("dp_fed_avg"), Probe.of(plan, observations=1000), THREADS)
    assert_adaptive(judged(plan, seen), plan, estimate_within=0.1)


def tree_plan(**changes: Any) -> TreeMechanism:
    values: dict[str, Any] = {
        "population": 1000, "clients_per_round": 50, "steps": 70, "restart_every": 20, "noise_multiplier": 2.0,
        "clip_norm": 0.5, "delta": 1e-5,
    }  # fmt: skip
    return TreeMechanism(**values | changes)


def test_trees_are_what_their_plan_says() -> None:
    plan = tree_plan(restart_every=6)
    seen = observed(plan)
    found = judged(plan, seen)
    assert found.faults == ()
    found.require()
    low, high = found.evidence["noise_multiplier_interval"]
    assert low < 2.0 < high < 1.1 * low
    assert found.epsilon_estimate == pytest.approx(plan.epsilon(), rel=0.03)
    assert 0.4 * plan.epsilon() < found.epsilon_lower_bound < plan.epsilon()
    # Somebody who joins in two rounds of a tree, which a run's own record of turns would refuse before.
    parallel = seen.with_units.parallel.copy()
    parallel[1] += seen.shifts[0]
    twice = replace(seen, with_units=replace(seen.with_units, parallel=parallel))
    assert judged(plan, twice).faults == ("a user joins a tree more than once", "rounds have 50 to 100 users, not 50")


def test_bounds_of_correct_runs_keep_their_confidence() -> None:
    plan, config = plan_of("dp_sgd"), config_of("dp_sgd")
    claim, small = plan.epsilon(), Probe.of(plan, observations=400)
    found = [judge(Observation.of(config, small, THREADS), plan, claim=claim, confidence=0.95) for _ in range(40)]
    assert not [one.faults for one in found if one.faults]
    assert sum(one.refuted for one in found) <= binom.ppf(0.999, 40, 0.05)
    assert np.median([one.epsilon_lower_bound for one in found]) > 0.3 * claim


def too_much_noise(patch: pytest.MonkeyPatch) -> None:
    add_noise = gradients.KeyedOptimizer.add_noise

    def more(self: gradients.KeyedOptimizer) -> None:
        add_noise(self)
        for parameter in self.params:
            parameter.grad += 0.3 * self.max_grad_norm * torch.from_numpy(self._rng.standard_normal(parameter.shape))

    patch.setattr(gradients.KeyedOptimizer, "add_noise", more)


def clip_of_the_sum(patch: pytest.MonkeyPatch) -> None:
    clipped = book_keeping.clipped_sums

    def after_summing(layers: Any, clip_norm: float, *rest: Any) -> Any:
        sums, squared = clipped(layers, 1e9, *rest)
        length = torch.sqrt(sum((total**2).sum() for total in sums))  # type: ignore[arg-type]
        return [total * (clip_norm / length).clamp(max=1) for total in sums], squared

    patch.setattr(gradients, "clipped_sums", after_summing)
    patch.setattr(gradients, "require_sound", lambda *_: None)  # or the trial has hooks in its place


def noise_with_every_part(patch: pytest.MonkeyPatch) -> None:
    sums = gradients.SummedGradients._sums

    def noisy(self: gradients.SummedGradients, part: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        optimizer = self.optimizer
        assert isinstance(optimizer, gradients.KeyedOptimizer)
        scale = optimizer.noise_multiplier * optimizer.max_grad_norm
        totals, clipped = sums(self, part)
        noise = (torch.from_numpy(optimizer._rng.standard_normal(total.shape, np.float32)) for total in totals)
        return [total + scale * each for total, each in zip(totals, noise, strict=True)], clipped

    patch.setattr(gradients.SummedGradients, "_sums", noisy)


def larger_samples(patch: pytest.MonkeyPatch) -> None:
    def build(config: Config, plan: PoissonGaussianMechanism, threads: int) -> Pipeline:
        q, population = plan.sampling_probability * 1.25, round(plan.population / 1.25)  # the expected batch size stays
        return build_pipeline(config, replace(plan, sampling_probability=q, population=population), threads)

    patch.setattr(probe, "build_pipeline", build)


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (central.half_noise, r"multiplier of 0\.(49|50)"),
        (too_much_noise, r"multiplier of 1\.0[345]"),
        (central.no_clipping, "clip norms, not 1"),
        (clip_of_the_sum, "clip norms, not 1"),
        (central.realised_normaliser, "clip norms, not 1"),
        (noise_with_every_part, r"multiplier of (1\.9|2)"),
        (central.skipped_empty, "where samples are empty, noise"),
        (central.bare_bias, "noise on some weight has a multiplier of 0,"),
        (central.frozen_noise, "noise "),
        (larger_samples, r"units join with probability 0\.12"),
    ],
)
def test_an_engine_that_is_not_its_plan_is_refused(
    mutate: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(AuditError, match="REFUTES THIS RUN") as refusal:
        audit().require()
    assert re.search(words, str(refusal.value))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mutate", [central.half_noise, central.no_clipping])
def test_a_bound_above_the_claim_needs_no_further_checks(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    found = audit()
    assert found.refuted
    assert found.claim is not None
    assert found.epsilon_lower_bound > 1.2 * found.claim
