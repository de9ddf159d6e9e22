"""The comparison model in PyTorch: 26,010 parameters on 1x28x28 images."""

from torch import nn


def build() -> nn.Sequential:
    """Returns the network with PyTorch's own starting weights."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, padding=3), nn.Tanh(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip
