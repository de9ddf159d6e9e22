"""Steps of `sgd` or `dp_sgd` through their public objects: time, first step and peak memory."""

from typing import Any

from experiments.speed.probes import problem
from experiments.speed.probes.process import Stopwatch, peak_mb, read_options, report, resident_mb, restart_peak
from pipelines.engines.interface import Fit, TrainingData
from pipelines.privacy.mechanisms.base import PrivacyUnit


def main() -> None:
    """Measures one configuration."""
    options = read_options()
    data = problem.flat_features() if options["model"] == "linear" else problem.mnist(options["data"])
    pipeline = _pipeline(options, data)
    before = resident_mb()
    restart_peak()
    watch = Stopwatch()
    fit: Fit = pipeline.fit(data, watch)
    seconds = sum(watch.seconds[options["warm"] :])
    steps = len(watch.seconds) - options["warm"]
    compiled = {"compile_s": float(fit.facts["kernel_compile_s"])} if "kernel_compile_s" in fit.facts else {}
    metrics = {
        "examples_per_s": options["batch"] * steps / seconds, "step_s": seconds / steps,
        "first_s": watch.seconds[0] - compiled.get("compile_s", 0.0), **compiled,
        "peak_mb": peak_mb(), "peak_net_mb": peak_mb() - before,
    }  # fmt: skip
    report(metrics, fit.facts)


def _pipeline(options: dict[str, Any], data: TrainingData) -> Any:
    # Both are imported in every case, so that the memory of imports is no part of the peak.
    from pipelines.engines.central.dp_sgd import DpSgd
    from pipelines.engines.central.sgd import Sgd
    from pipelines.engines.central.training import Hardware

    settings: Any = problem.central_settings(options, len(data.labels))
    hardware = Hardware(device=options.get("device", "cpu"), threads=options["threads"])
    if options["pipeline"] == "sgd":
        return Sgd(settings, seed=0, hardware=hardware)
    plan = problem.plan(PrivacyUnit.EXAMPLE, len(data.labels), options["batch"], options["steps"])
    return DpSgd(settings, plan, noise_seed=None, hardware=hardware)


if __name__ == "__main__":
    main()
