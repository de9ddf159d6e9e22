"""What plain and private training share: device, tensors, optimizer, learning rate and step recorder."""

import ctypes
import platform
import time
from dataclasses import dataclass
from functools import lru_cache
from math import cos, isfinite, pi

import torch
from torch import Tensor, nn

from pipelines.config.pipeline_settings import CentralConfig
from pipelines.core.errors import DivergedError, UserError
from pipelines.engines.central.torch_model import TorchModel, build_module
from pipelines.engines.interface import OnRound, RoundRecord, TrainingData
from pipelines.model.averaging import share_of_newest
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.sampling import Participation

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where PyTorch computes.

    Attributes:
      device: auto (CUDA where torch sees it), cpu or cuda.
      threads: CPU threads of one operation.
    """

    device: str
    threads: int

    def resolve(self) -> torch.device:
        """Sets the threads and the allocator, and returns the device.

        Raises:
          UserError: the device is cuda, and PyTorch sees none.
        """
        torch.set_num_threads(self.threads)
        _keep_freed_memory()
        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise UserError("device=cuda but PyTorch sees no CUDA device; use device=auto or device=cpu")
        return torch.device("cuda" if available and self.device != "cpu" else "cpu")


@dataclass(frozen=True)
class TrainState:
    """A model and its data on one device.

    Attributes:
      device: where everything is.
      module: the module that is trained.
      released: the module that is evaluated and kept: `module` itself, or an average of its weights over the steps.
      inputs: (n, *features) float32.
      labels: (n,) int64.
    """

    device: torch.device
    module: nn.Sequential
    released: nn.Sequential
    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls, data: TrainingData, hardware: Hardware, *, contiguous: bool = False, averaged: bool = False
    ) -> "TrainState":
        """Moves everything to the device once.

        Args:
          data: gives model and examples.
          hardware: gives the device.
          contiguous: as in `build_module`.
          averaged: whether the released module is a separate one, for an average.
        """
        device = hardware.resolve()
        module = build_module(data.spec, data.initial_weights, contiguous=contiguous).to(device)
        released = build_module(data.spec, data.initial_weights).to(device) if averaged else module
        inputs, labels = torch.from_numpy(data.inputs).to(device), torch.from_numpy(data.labels).to(device)
        return cls(device, module, released, inputs, labels)

    def average(self, share: float) -> None:
        """Moves the released weights towards the trained ones by a share of the way."""
        if self.released is not self.module:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.released.parameters()), list(self.module.parameters()), share)

    def facts(self) -> dict[str, str]:
        """Returns facts about the engine, for the log."""
        return {
            "engine": f"torch {torch.__version__}",
            "device": str(self.device),
            "threads": str(torch.get_num_threads()),
        }


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Makes glibc keep blocks of up to 32 MiB, and 256 MiB of free memory, for the next step.

    By default it returns activations to the kernel and fetches them again, page by page, in every step. That takes a
    fifth to a half of the step's time, depending on what else the process did.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**28)


def build_optimizer(module: nn.Module, settings: CentralConfig) -> torch.optim.Optimizer:
    """Builds the optimizer that the settings name."""
    parameters, rate, decay = module.parameters(), settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def learning_rate(settings: CentralConfig, step: int, steps: int) -> float:
    """The rate of a step, counted from 1: constant, or half a cosine from the full rate down towards zero.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + cos(pi * (step - 1) / steps)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Applies a rate to every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class StepRecorder:
    """Reports steps, and measures training time without the callbacks."""

    def __init__(
        self,
        steps: int,
        on_round: OnRound,
        state: TrainState,
        ema_decay: float,
        plan: Mechanism | None = None,
        sampler: Participation | None = None,
    ) -> None:
        self._steps, self._on_round, self._state = steps, on_round, state
        self._plan, self._sampler = plan, sampler
        self._ema_decay = ema_decay
        self._train_s, self._since = 0.0, time.perf_counter()

    def tick(self, step: int, examples: float) -> RoundRecord:
        """Ends a step.

        Raises:
          DivergedError: a weight is no longer finite.
        """
        state = self._state
        state.average(share_of_newest(step, self._ema_decay))
        self._train_s += time.perf_counter() - self._since
        if not isfinite(sum(float(parameter.detach().sum()) for parameter in state.module.parameters())):
            raise DivergedError(step, "a weight")
        record = RoundRecord(
            step=step, steps=self._steps, examples=examples, train_s=self._train_s, model=TorchModel(state.released),
            plan=self._plan, sampler=self._sampler,
        )  # fmt: skip
        self._on_round(record)
        self._since = time.perf_counter()
        return record
