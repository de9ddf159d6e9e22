"""FedAvg as a plain PyTorch loop over clients, without a framework."""

import time

import cnn
import numpy as np
import torch
import torch.nn.functional as F
import work

RATE = 0.1


def run_round(net, images, labels, cohort, batch):
    """Trains one round and leaves the average in `net`.

    Args:
      net: holds the weights that all clients start from.
      images: float32, (n, 1, 28, 28), of all clients.
      labels: int64, (n,).
      cohort: for each client its examples, in the order of training.
      batch: examples of a local step.
    """
    start = [parameter.detach().clone() for parameter in net.parameters()]
    total = [torch.zeros_like(value) for value in start]
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for client in cohort:
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), start, strict=True):
                parameter.copy_(value)
        for index in torch.from_numpy(client).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(net(images[index]), labels[index]).backward()
            optimizer.step()
        with torch.no_grad():
            for held, parameter in zip(total, net.parameters(), strict=True):
                held.add_(parameter)
    with torch.no_grad():
        for parameter, held in zip(net.parameters(), total, strict=True):
            parameter.copy_(held / len(cohort))


def main():
    options = work.read_options()
    torch.set_num_threads(options["threads"])
    data, rng, net, seconds = work.Mnist(options["data"]), np.random.default_rng(0), cnn.build(), []
    images, labels = torch.from_numpy(data.images.transpose(0, 3, 1, 2)), torch.from_numpy(data.labels)
    for _ in range(options["rounds"]):
        start = time.perf_counter()
        cohort = rng.choice(len(data.clients), options["cohort"], replace=False)
        run_round(net, images, labels, rng.permuted(data.clients[cohort], axis=1), options["batch"])
        seconds.append(time.perf_counter() - start)
    work.report_rounds(seconds, warm=2, examples=options["cohort"] * data.clients.shape[1])


if __name__ == "__main__":
    main()
