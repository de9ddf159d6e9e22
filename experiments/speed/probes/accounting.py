"""Measures what calibration and accounting cost a run, the first time and later; ours and dp-accounting's own.

Importing the accountants is measured separately, since a process, and so a sweep, does it once.
"""

import time

from experiments.speed.probes.process import read_options, report
from pipelines.privacy.accounting.calibration import DECIMALS, LEAST_NOISE, calibrate
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

EVALUATIONS = 10


def main() -> None:
    """Measures the accounting of a run: noise, epsilon at each evaluation, the guarantee."""
    options = read_options()
    start = time.perf_counter()
    import dp_accounting.pld
    import dp_accounting.rdp  # noqa: F401

    imported = time.perf_counter() - start
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit(options["unit"]), population=options["population"], steps=options["steps"],
        sampling_probability=options["sample"] / options["population"], noise_multiplier=0.0, clip_norm=1.0,
        delta=options["delta"],
    )  # fmt: skip
    if options.get("library"):
        return report({"import_s": imported, "calibration_s": _library(plan, options["epsilon"])})
    first, again = _run(plan, options["epsilon"]), _run(plan, options["epsilon"])
    report(
        {
            "import_s": imported,
            "calibration_s": first[0],
            "accounting_s": first[1],
            "run_s": sum(first),
            "again_s": sum(again),
        }
    )


def _library(plan: PoissonGaussianMechanism, target: float) -> float:
    """Seconds of dp-accounting's search with its own privacy loss distributions, on the guarantee's grid."""
    from dp_accounting import mechanism_calibration
    from dp_accounting.pld import PLDAccountant

    start = time.perf_counter()
    mechanism_calibration.calibrate_dp_mechanism(
        PLDAccountant, lambda sigma: plan.with_noise(sigma).dp_event(), target, plan.delta,
        mechanism_calibration.LowerEndpointAndGuess(LEAST_NOISE, 1.0), tol=1 / DECIMALS,
    )  # fmt: skip
    return time.perf_counter() - start


def _run(plan: PoissonGaussianMechanism, target: float) -> tuple[float, float]:
    start = time.perf_counter()
    calibrated = calibrate(plan, target)
    between = time.perf_counter()
    for k in range(1, EVALUATIONS):  # as in a run: the quick form during training, the form of the guarantee at the end
        calibrated.executed(plan.steps * k // EVALUATIONS).quick_epsilon()
    calibrated.epsilon()
    PrivacyGuarantee.of(calibrated, simulated=False)
    return between - start, time.perf_counter() - between


if __name__ == "__main__":
    main()
