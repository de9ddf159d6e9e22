"""Shared by all peers: options, data and the line that they report. Imports numpy only."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def read_options() -> dict[str, Any]:
    """Returns the JSON object that the benchmark passes as the only argument."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    return options


class Mnist:
    """The archive that the benchmark writes.

    Attributes:
      images: float32, shape (60000, 28, 28, 1), in [0, 1].
      labels: int64, shape (60000,).
      clients: int64, shape (1000, 60): the examples of each client.
    """

    def __init__(self, path: str) -> None:
        with np.load(path) as archive:
            self.images = archive["x_train"]
            self.labels = archive["y_train"]
            self.clients = archive["clients"]


def report_rounds(seconds: Sequence[float], *, warm: int, examples: int) -> None:
    """Prints the measurements of a federated peer.

    Args:
      seconds: of each round.
      warm: number of rounds at the start that do not count: tracing, compilation, start of workers.
      examples: number that one round processes.
    """
    median = float(np.median(seconds[warm:]))
    report(examples_per_s=examples / median, round_s=median, first_s=float(seconds[0]))


def report(**metrics: float) -> None:
    """Prints measured values as the one line that the benchmark reads."""
    print(json.dumps({"metrics": metrics}), flush=True)
