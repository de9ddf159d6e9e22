"""A trained model as an MLflow model that loads without this repository."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.engines.interface import FittedModel
from pipelines.tracking.store import Store

EXAMPLES = 4
"""Rows of the input example. More than one: torch.export takes an axis of length one for a constant."""


def log_model(store: Store, run_id: str, fitted: FittedModel, features: tuple[int, ...]) -> str:
    """Logs a model with signature (-1, *features) float32 -> (-1, classes) float32, for batches of any size.

    The input example is synthetic: a real one would publish a person's record beside a private model.

    Args:
      store: where the run is.
      run_id: the run that trained it.
      fitted: the model.
      features: shape of one example.

    Returns:
      The model's URI, for `mlflow.pyfunc.load_model`.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    example = synthetic_inputs(features)
    classes = fitted.logits(example).shape[1]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *features))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
    )
    # The entity is made first, under its run: Model.log alone would put it into the process's default experiment.
    entity = store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run_id)
    with _requirements_taken_as_given():
        logged = Model.log(
            artifact_path=None, name="model", run_id=run_id, model_id=entity.model_id,
            signature=signature, input_example=example, **_flavor(fitted),
        )  # fmt: skip
    return str(logged.model_uri)


@contextmanager
def _requirements_taken_as_given() -> Iterator[None]:
    """Skips MLflow's check of requirements against installed packages: half a second, and ours come from there."""
    from mlflow.utils import environment

    def accept(model_requirements: list[str]) -> None:
        pass

    check, environment.warn_dependency_requirement_mismatches = (
        environment.warn_dependency_requirement_mismatches,
        accept,
    )
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = check


def synthetic_inputs(features: tuple[int, ...]) -> NDArray[np.float32]:
    """A ramp over [0, 1], shape (EXAMPLES, *features)."""
    ramp = np.linspace(0, 1, EXAMPLES * prod(features), dtype=np.float32)
    return ramp.reshape(EXAMPLES, *features)


def _flavor(fitted: FittedModel) -> dict[str, Any]:
    """What differs between frameworks in saving a model."""
    numpy_version = f"numpy=={version('numpy')}"
    if fitted.framework == "tensorflow":
        import mlflow.tensorflow

        requirements = [f"tensorflow=={version('tensorflow')}", numpy_version]
        return {"flavor": mlflow.tensorflow, "model": fitted.native(), "pip_requirements": requirements}
    import mlflow.pytorch

    # On the CPU and as a copy: a program exported on a GPU loads nowhere else, and the caller's module stays as it is.
    module = copy.deepcopy(fitted.native()).cpu().eval()
    # Without the local label (+cpu, +cu126): it names a build, not a release.
    requirements = [f"torch=={version('torch').partition('+')[0]}", numpy_version]
    return {
        "flavor": mlflow.pytorch, "pytorch_model": module, "serialization_format": "pt2",
        "pip_requirements": requirements,
        # This check would load the program again, only to warn.
        "validate_serving_input": False,
    }  # fmt: skip
