"""Models load in a process that knows MLflow and the framework, and not this repository."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.tracking.listeners import open_run
from pipelines.tracking.logged_model import log_model
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import Store

TRAIN = """
import sys
import numpy as np
from pipelines.tracking.listeners import open_run
from pipelines.tracking.logged_model import log_model
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import open_store

class Torch:
    framework = "pytorch"
    def __init__(self):
        import torch
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Unflatten(3, (3, 1)), torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.Tanh(),
            torch.nn.Linear(5, 3),
        )
    def native(self):
        return self.net
    def logits(self, inputs):
        import torch
        return self.net(torch.from_numpy(inputs)).detach().numpy()

class TensorFlow:
    framework = "tensorflow"
    def __init__(self):
        import tensorflow as tf
        class Net(tf.Module):
            def __init__(self):
                super().__init__()
                self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32))
            @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3])])
            def __call__(self, inputs):
                return tf.reshape(inputs, [-1, 12]) @ self.kernel
        self.net = Net()
    def native(self):
        return self.net
    def logits(self, inputs):
        return self.net(inputs).numpy()

uri, framework, folder = sys.argv[1:]
fitted = Torch() if framework == "pytorch" else TensorFlow()
inputs = np.random.default_rng(1).random((1000, 2, 2, 3), dtype=np.float32)
np.savez(folder + "/expected.npz", inputs=inputs, logits=fitted.logits(inputs))
store = open_store(uri, "digits")
with open_run(store, RunStart(name="a", params={"seed": 0})) as log:
    model = log_model(store, log.run_id, fitted, (2, 2, 3))
other = {"pytorch": "tensorflow", "tensorflow": "torch"}[framework]
assert other not in sys.modules, other
print(log.run_id, model)
"""

LOAD = """
import sys
import numpy as np
import mlflow
uri, model, folder = sys.argv[1:]
mlflow.set_tracking_uri(uri)
loaded = mlflow.pyfunc.load_model(model)
inputs = np.load(folder + "/expected.npz")["inputs"]
np.savez(folder + "/got.npz", **{str(n): np.asarray(loaded.predict(inputs[:n])) for n in (1, 7, 1000)})
assert not [name for name in sys.modules if name.split(".")[0] == "pipelines"]
signature = loaded.metadata.signature.to_dict()
print(signature["inputs"], signature["outputs"])
"""


def python(script: str, *arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-c", script, *arguments]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_model_predicts_the_same_in_a_fresh_process(framework: str, uri: str, store: Store, tmp_path: Path) -> None:
    pytest.importorskip({"pytorch": "torch"}.get(framework, framework))
    run_id, model = python(TRAIN, uri, framework, str(tmp_path), cwd=Path(__file__).parents[2]).split()
    outputs = store.client.get_run(run_id).outputs
    assert outputs is not None
    assert [f"models:/{output.model_id}" for output in outputs.model_outputs] == [model]

    signature = python(LOAD, uri, f"runs:/{run_id}/model", str(tmp_path), cwd=tmp_path)
    assert '"shape": [-1, 2, 2, 3]' in signature
    assert '"shape": [-1, 3]' in signature
    got, expected = np.load(tmp_path / "got.npz"), np.load(tmp_path / "expected.npz")["logits"]
    for batch in (1, 7, 1000):
        np.testing.assert_allclose(got[str(batch)], expected[:batch], rtol=0, atol=1e-6)


def test_model_belongs_to_the_experiment_of_its_run(store: Store) -> None:
    torch = pytest.importorskip("torch")

    class Linear:
        framework = "pytorch"

        def __init__(self) -> None:
            self.net = torch.nn.Linear(4, 2)

        def native(self) -> object:
            return self.net

        def logits(self, inputs: np.ndarray) -> np.ndarray:
            return np.asarray(self.net(torch.from_numpy(inputs)).detach())

    with open_run(store, RunStart(name="a")) as log:
        model = log_model(store, log.run_id, Linear(), (4,))  # type: ignore[arg-type]
    entity = store.client.get_logged_model(model.removeprefix("models:/"))
    assert (entity.experiment_id, entity.source_run_id) == (store.experiment_id, log.run_id)
    assert str(entity.status) == "READY"
