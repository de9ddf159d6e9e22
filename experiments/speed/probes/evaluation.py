"""Evaluates the 10,000 test images with either engine's fitted model, as `pipelines.runs.result.evaluate` does."""

import time
from typing import Any

import numpy as np

from experiments.speed.probes import problem
from experiments.speed.probes.process import read_options, report
from pipelines.data.split import Split
from pipelines.engines.evaluation import score

REPEATS = 7


def main() -> None:
    """Measures the first evaluation, which includes tracing, and the median of the later ones."""
    options = read_options()
    data, images = problem.mnist(options["data"]), problem.test_images(options["data"])
    split, model = Split(images, np.zeros(len(images), np.int64)), _model(options, data)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        score(model.logits(split.inputs), split.labels)
        seconds.append(time.perf_counter() - start)
    report({"evaluation_s": float(np.median(seconds[1:])), "first_s": seconds[0]})


def _model(options: dict[str, Any], data: Any) -> Any:
    if options["engine"] == "torch":
        import torch

        from pipelines.engines.central.torch_model import TorchModel, build_module

        torch.set_num_threads(options["threads"])
        return TorchModel(build_module(data.spec, data.initial_weights))
    from pipelines.engines.federated.tff_model import TensorFlowModel

    return TensorFlowModel(data.spec, data.initial_weights)


if __name__ == "__main__":
    main()
