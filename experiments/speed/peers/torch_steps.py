"""Central training in plain PyTorch, with or without Opacus: a DataLoader's loop or indexed tensors."""

import time
import warnings

warnings.filterwarnings("ignore")
import cnn
import numpy as np
import torch
import torch.nn.functional as F
import work
from torch.utils.data import DataLoader, TensorDataset

FEATURES = 3969  # size of a scattering transform of depth 2 of a 28 x 28 image: 81 x 7 x 7


def load(options):
    """Returns the network and its inputs and labels, on the device."""
    if options["model"] == "linear":
        rng = np.random.default_rng(0)
        inputs = torch.from_numpy(rng.standard_normal((60_000, FEATURES), np.float32))
        labels, net = torch.from_numpy(rng.integers(0, 10, 60_000)), torch.nn.Linear(FEATURES, 10)
    else:
        data = work.Mnist(options["data"])
        inputs = torch.from_numpy(np.ascontiguousarray(data.images.transpose(0, 3, 1, 2)))
        labels, net = torch.from_numpy(data.labels), cnn.build()
    device = options.get("device", "cpu")
    return net.to(device), inputs.to(device), labels.to(device)


def indexed(inputs, labels, batch):
    """Yields shuffled batches cut out of the whole tensors, epoch after epoch."""
    while True:
        for index in torch.randperm(len(labels)).split(batch):
            yield inputs[index], labels[index]


def endless(loader):
    """Yields a loader's batches, epoch after epoch."""
    while True:
        yield from loader


def main():
    options = work.read_options()
    torch.set_num_threads(options["threads"])
    net, inputs, labels = load(options)
    batch, optimizer = options["batch"], torch.optim.SGD(net.parameters(), lr=0.1)
    if options["loop"] == "indexed":
        batches = indexed(inputs, labels, batch)
    else:
        loader = DataLoader(TensorDataset(inputs, labels), batch_size=batch, shuffle=True)
        if options["loop"] == "opacus":
            from opacus import PrivacyEngine

            net, optimizer, loader = PrivacyEngine().make_private(
                module=net, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
            )
        batches = endless(loader)
    wait = torch.cuda.synchronize if inputs.is_cuda else lambda: None
    warm, seen, first = options["warm"], 0, time.perf_counter()
    for step in range(1, options["steps"] + 1):
        x, y = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        seen += len(y)
        if step == 1:
            wait()
            first = time.perf_counter() - first
        if step == warm:
            wait()
            seen, start = 0, time.perf_counter()
    wait()
    seconds = time.perf_counter() - start
    work.report(examples_per_s=seen / seconds, step_s=seconds / (options["steps"] - warm), first_s=first)


main()
