"""FedAvg with pfl-research in PyTorch, in one process."""

import os
import time

os.environ["PFL_PYTORCH_DEVICE"] = "cpu"
import numpy as np
import torch
import torch.nn.functional as F
from pfl.internal.ops import pytorch_ops
from pfl.internal.ops.selector import set_framework_module

set_framework_module(pytorch_ops)
import cnn
import work
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel


class Net(torch.nn.Module):
    """The network with the loss and metrics that pfl asks for."""

    def __init__(self):
        super().__init__()
        self.net = cnn.build()

    def loss(self, x, y, is_eval=False):
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x, y, is_eval=True):
        return {"accuracy": Weighted((self.net(x).argmax(1) == y).sum().item(), len(y))}


class StepRecorder(TrainingProcessCallback):
    """Notes when each round ends."""

    def __init__(self):
        self.ticks = []

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.ticks.append(time.perf_counter())
        return False, Metrics()


def main():
    options = work.read_options()
    torch.set_num_threads(options["threads"])
    data, net, clock = work.Mnist(options["data"]), Net(), StepRecorder()
    images, labels = torch.from_numpy(data.images.transpose(0, 3, 1, 2)), torch.from_numpy(data.labels)
    users = FederatedDataset(
        lambda user: Dataset([images[data.clients[user]], labels[data.clients[user]]], user_id=user),
        get_user_sampler("random", range(len(data.clients))),
    )
    start = time.perf_counter()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=options["rounds"], evaluation_frequency=1000,
            train_cohort_size=options["cohort"], val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=None),
        model=PyTorchModel(
            net, local_optimizer_create=torch.optim.SGD, central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0)
        ),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=0.1, local_num_epochs=1, local_batch_size=options["batch"]
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=1000), callbacks=[clock], send_metrics_to_platform=False,
    )  # fmt: skip
    work.report_rounds(np.diff([start, *clock.ticks]), warm=1, examples=options["cohort"] * data.clients.shape[1])


main()
