"""DP-Auditorium's hockey-stick tester, from a checkout or an installation, without other imports of its packages."""

import importlib
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.core.errors import UserError

VARIABLE = "DP_AUDITORIUM"
PACKAGE = "dp_auditorium"
REMEDY = (
    "git clone https://github.com/google/differential-privacy somewhere, "
    f"and give --checkout=<folder> or {VARIABLE}=<folder>"
)
MISSING = f"DP-Auditorium is not here, so nothing is tested: {REMEDY}"
INNER = ("configs", "generators", "testers")
FAILURE_PROBABILITY = 0.05
"""Probability that one lower bound is wrong; by Hoeffding's inequality, so the true probability is far smaller."""
EPOCHS = 10
"""Epochs of the classifier; the default of 2 is for ten times as many samples."""
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Verdict:
    """The tester's verdict on a mechanism.

    Attributes:
      lower_bound: on the hockey-stick divergence at the claimed epsilon, in the worse direction.
      violated: whether it exceeds the claimed delta.
    """

    lower_bound: float
    violated: bool


def located(given: Path | None) -> Path | None:
    """The path of the package: the given one, that of `DP_AUDITORIUM`, or the installed one; None if there is none.

    Args:
      given: a checkout of google/differential-privacy, or any folder above the package in it.

    Raises:
      UserError: the given folder does not have the package.
    """
    told = given or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None)
    if told is None:
        spec = find_spec(PACKAGE)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent
    for place in (told, told / PACKAGE, told / PACKAGE / PACKAGE, told / "python" / PACKAGE / PACKAGE):
        if (place / "testers" / "hockey_stick_tester.py").is_file():
            return place
    raise UserError(f"{told} holds no {PACKAGE}/testers; {REMEDY}")


def load(package: Path) -> Callable[..., Verdict]:
    """Returns `test(mechanism, pair, epsilon, delta, samples, seed)`, which asks the tester.

    Their packages import Vizier, JAX, Flax and more, which are not needed here. Therefore single modules are loaded.
    """
    from pipelines.engines.federated.engine import tf  # imported first, with fewer log lines

    tf.get_logger().setLevel(logging.ERROR)
    for name in (PACKAGE, *(f"{PACKAGE}.{inner}" for inner in INNER)):
        bare = ModuleType(name)
        bare.__path__ = [str(package.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = bare
    parts = {
        name.rpartition(".")[2]: importlib.import_module(f"{PACKAGE}.{name}")
        for name in (
            "configs.privacy_property", "configs.property_tester_config", "configs.privacy_test_runner_config",
            "generators.constant_dataset_generator", "testers.hockey_stick_tester", "privacy_test_runner",
        )
    }  # fmt: skip

    def test(
        mechanism: Any, pair: tuple[Any, Any], *, epsilon: float, delta: float, samples: int, seed: int
    ) -> Verdict:
        runner = _runner(parts, pair, epsilon, delta, samples, seed)
        with redirect_stdout(io.StringIO()):  # Keras' progress bars
            found = runner.test_privacy(mechanism, "one step")
        return Verdict(
            lower_bound=float(max(found.lower_bound_divergence_estimates)),
            violated=found.found_privacy_violation is not None,
        )

    return test


def _runner(parts: dict[str, Any], pair: tuple[Any, Any], epsilon: float, delta: float, samples: int, seed: int) -> Any:
    """One trial on one pair of datasets."""
    from pipelines.engines.federated.engine import tf

    tf.keras.utils.set_random_seed(seed)
    tester, runner = parts["hockey_stick_tester"], parts["privacy_test_runner_config"]
    training = tester.make_default_hs_training_config()
    training.training_epochs = EPOCHS
    config = parts["property_tester_config"].HockeyStickPropertyTesterConfig(
        training_config=training,
        approximate_dp=parts["privacy_property"].ApproximateDp(epsilon=epsilon, delta=delta),
    )
    return parts["privacy_test_runner"].PrivacyTestRunner(
        runner.PrivacyTestRunnerConfig(
            property_tester=runner.PropertyTester.HOCKEY_STICK_TESTER,
            max_num_trials=1,
            failure_probability=FAILURE_PROBABILITY,
            num_samples=samples,
            post_processing=runner.PostProcessing.TANH,  # outputs of unclipped units are far away
        ),
        parts["constant_dataset_generator"].ConstantDatasetGenerator(pair),
        tester.HockeyStickPropertyTester(config, tester.make_default_hs_base_model()),
    )
