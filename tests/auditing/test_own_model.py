"""The audit of the run's own model: a correct engine shows what its plan says, in every way to clipped sums."""

import itertools
from typing import Any

import numpy as np
import pytest

from pipelines.auditing.contributions import OwnModelRuns
from pipelines.auditing.own_model import OwnModel
from pipelines.engines.central.compiled import kernel_layers
from pipelines.engines.interface import FittedModel
from pipelines.model.spec import build_spec
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.auditing.conftest import config_of, plan_of

MLP = build_spec("mlp", features=(12,), classes=3, widths=(8,))
IMAGES = build_spec("cnn", features=(6, 6, 1), classes=3)
TINY = build_spec("linear", features=(2,), classes=2)
ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=4.0)


def seen_of(pipeline: str, plan: Mechanism, spec: Any = MLP, **changes: Any) -> OwnModelRuns:
    own = OwnModel(config=config_of(pipeline, **changes), plan=plan, spec=spec, threads=1)
    return OwnModelRuns(own, itertools.count(1))


@pytest.mark.parametrize("mode", ["auto", "hooks", "ghost", "functorch"])
def test_contributions_to_all_weights_are_clipped_gradients(mode: str) -> None:
    assert kernel_layers(IMAGES) is not None
    seen = seen_of("dp_sgd", plan_of("dp_sgd"), IMAGES, grad_sample=mode)
    assert seen.faults() == []
    lengths = np.concatenate([twin.gradients for twin in seen.twins])
    assert lengths.min() < 0.1
    assert lengths.max() > 2
    assert seen.evidence()["own_model_sensitivity_in_clip_norms"] == pytest.approx(1, abs=1e-3)
    assert all(0 < twin.joined.sum() < twin.joined.size for twin in seen.twins)


@pytest.mark.parametrize("features", [1, 5, 30, 104])
@pytest.mark.parametrize("classes", [2, 4])
def test_small_tables_with_adaptive_clipping_are_not_blamed(classes: int, features: int) -> None:
    plan = plan_of("dp_sgd", adaptive=ADAPTIVE, noise_multiplier=3.0)
    for name in ("linear", "mlp"):
        spec = build_spec(name, features=(features,), classes=classes, widths=(8,))
        assert seen_of("dp_sgd", plan, spec).faults() == []


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("clip_norm", [1e-3, 1e6])
@pytest.mark.parametrize("pipeline", ["dp_sgd", "dp_sgd_users"])
def test_no_scale_of_noise_or_clipping_blames_a_correct_engine(pipeline: str, clip_norm: float, sigma: float) -> None:
    plan = plan_of(pipeline, noise_multiplier=sigma, clip_norm=clip_norm)
    assert seen_of(pipeline, plan).faults() == []


@pytest.mark.parametrize(
    ("pipeline", "plan", "spec", "changes"),
    [
        ("dp_sgd", plan_of("dp_sgd", adaptive=ADAPTIVE), MLP, {}),
        ("dp_sgd_users", plan_of("dp_sgd_users", adaptive=ADAPTIVE), MLP, {"user_update": "delta"}),
        ("dp_sgd", plan_of("dp_sgd", sampling_probability=1.0), TINY, {}),
    ],
)
def test_other_plans_of_examples_and_users_hold(
    pipeline: str, plan: Mechanism, spec: Any, changes: dict[str, Any]
) -> None:
    seen = seen_of(pipeline, plan, spec, **changes)
    assert seen.faults() == []
    if plan.adaptive:
        assert min(twin.levels.min() for twin in seen.twins) < 0.6  # the clip norm moved, and noise with it


@pytest.mark.parametrize(
    ("plan", "changes"),
    [
        (plan_of("dp_fed_avg", clip_norm=1e6, noise_multiplier=1e3), {}),
        (plan_of("dp_fed_avg"), {"engine": "stock"}),
        (plan_of("dp_fed_avg"), {"secure_aggregation": True}),
        (plan_of("dp_fed_avg", adaptive=ADAPTIVE), {}),
        pytest.param(
            TreeMechanism(
                population=1000, clients_per_round=50, steps=70, restart_every=20, noise_multiplier=2.0, clip_norm=0.5,
                delta=1e-5,
            ),
            {},
            marks=pytest.mark.thorough,  # the mutants' suite always audits trees as they are
        ),
    ],
    ids=["fixed", "stock", "secure", "adaptive", "tree"],
)  # fmt: skip
def test_rounds_hold_what_their_plan_says(
    plan: Mechanism, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.auditing.own_model.MOST_STILL", 24)
    monkeypatch.setattr("pipelines.auditing.contributions.TWINS", 1)
    assert seen_of("dp_fed_avg", plan, **changes).faults() == []


def models() -> list[FittedModel]:
    from pipelines.engines.central.torch_model import TorchModel, build_module
    from pipelines.engines.federated.tff_model import TensorFlowModel

    zeros = [np.zeros(shape, np.float32) for shape in IMAGES.weight_shapes()]
    return [TorchModel(build_module(IMAGES, zeros)), TensorFlowModel(IMAGES, zeros)]


def test_both_engines_have_the_same_reference_gradients() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in IMAGES.weight_shapes()]
    inputs, labels = rng.random((5, 6, 6, 1)).astype(np.float32), np.arange(5) % 3
    ours, theirs = (model.example_gradients(weights, inputs, labels) for model in models())
    assert ours.shape == (5, IMAGES.parameters)
    assert ours == pytest.approx(theirs, abs=1e-12)
    # By hand: with weights of zero all classes are as likely, and the last bias sees their distance from the label.
    zeros = [np.zeros_like(value) for value in weights]
    assert models()[0].example_gradients(zeros, inputs[:1], labels[:1])[0, -3:] == pytest.approx([-2 / 3, 1 / 3, 1 / 3])
