"""FedAvg with Flower's simulation in PyTorch, on Ray: as many actors as cores, one thread each."""

import logging
import os
import time
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
# Ray's actors unpickle the client from this folder's modules.
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
import cnn
import numpy as np
import torch
import torch.nn.functional as F
import work
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

OPTIONS, CACHE, TICKS = work.read_options(), {}, []


def data():
    if not CACHE:
        mnist = work.Mnist(OPTIONS["data"])
        images = torch.from_numpy(mnist.images.transpose(0, 3, 1, 2))
        CACHE.update(images=images, labels=torch.from_numpy(mnist.labels), clients=mnist.clients)
    return CACHE


class Client(NumPyClient):
    """One client's epoch."""

    def __init__(self, user, batch):
        self.user, self.batch = user, batch

    def fit(self, parameters, config):
        torch.set_num_threads(1)
        held, net = data(), cnn.build()
        net.load_state_dict({key: torch.tensor(value) for key, value in zip(net.state_dict(), parameters, strict=True)})
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        examples = np.random.permutation(held["clients"][self.user])
        for at in range(0, len(examples), self.batch):
            index = examples[at : at + self.batch]
            optimizer.zero_grad()
            F.cross_entropy(net(held["images"][index]), held["labels"][index]).backward()
            optimizer.step()
        return [value.numpy() for value in net.state_dict().values()], len(examples), {}


def client_fn(context):
    return Client(int(context.node_config["partition-id"]), OPTIONS["batch"]).to_client()


def tick(server_round, parameters, config):
    TICKS.append(time.perf_counter())
    return 0.0, {}


def server_fn(context):
    clients = len(data()["clients"])
    strategy = FedAvg(
        fraction_fit=OPTIONS["cohort"] / clients, fraction_evaluate=0.0, min_fit_clients=OPTIONS["cohort"],
        min_available_clients=clients, evaluate_fn=tick,
        initial_parameters=ndarrays_to_parameters([value.numpy() for value in cnn.build().state_dict().values()]),
    )  # fmt: skip
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=OPTIONS["rounds"]))


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.WARNING)
    clients, size = data()["clients"].shape
    run_simulation(
        server_app=ServerApp(server_fn=server_fn), client_app=ClientApp(client_fn=client_fn), num_supernodes=clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": OPTIONS["threads"], "include_dashboard": False},
        },
    )  # fmt: skip
    work.report_rounds(np.diff(TICKS), warm=1, examples=OPTIONS["cohort"] * size)
