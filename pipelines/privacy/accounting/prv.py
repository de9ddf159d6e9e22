"""Opacus' PRV accountant without PyTorch.

The accountant needs only numpy and scipy, but importing it runs the package's `__init__`, which imports torch. This
takes seconds (1.14 times the CPU of experiment=smoke pipeline=dp_fed_avg, in three turns) and puts a second framework
into the process of a federated run. Here its modules are loaded under a temporary parent package. The only name that
depends on torch, a type annotation, is replaced.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

LARGEST_GRID = 2**24
"""Points, about 2 GB. Opacus' own grid grows with the width of the loss: to terabytes if there is almost no noise."""


def prv_epsilon(*, sigma: float, q: float, steps: int, delta: float) -> float:
    """Upper bound on epsilon of a self-composed Poisson-subsampled Gaussian, with an error of at most 0.01.

    Args:
      sigma: noise multiplier, > 0.
      q: sampling probability, in (0, 1].
      steps: compositions, >= 1.
      delta: in (0, 1).

    Raises:
      PackageNotFoundError: Opacus is not installed.
      MemoryError: the grid would have more than `LARGEST_GRID` points.

    Source: Gopi et al. 2021, arXiv:2106.02848, as implemented in Opacus.
    """
    accountant = _accountant_class()()
    accountant.history = [(sigma, q, steps)]
    whole, accountant._get_domain = accountant._get_domain, lambda **options: _bounded(whole(**options))
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # at q = 1 it takes the logarithm of 1 - q
        # Opacus uses RDP only for the size of the domain; RDP warns that more orders would be tighter.
        warnings.filterwarnings("ignore", "Optimal order")
        return float(accountant.get_epsilon(delta))


def _bounded(domain: Any) -> Any:
    if domain.size > LARGEST_GRID:
        raise MemoryError(f"its grid would have {domain.size:,} points")
    return domain


@lru_cache(maxsize=1)
def _accountant_class() -> Any:
    if "opacus" in sys.modules:
        return importlib.import_module("opacus.accountants.prv").PRVAccountant
    found = find_spec("opacus")
    if found is None or found.submodule_search_locations is None:
        raise PackageNotFoundError("opacus")
    with _stand_in(list(found.submodule_search_locations)):
        return importlib.import_module("opacus.accountants.prv").PRVAccountant


@contextmanager
def _stand_in(locations: list[str]) -> Iterator[None]:
    """Puts an empty `opacus` package into `sys.modules`, and removes it and its modules afterwards."""
    package, optimizers = ModuleType("opacus"), ModuleType("opacus.optimizers")
    package.__path__ = locations
    optimizers.DPOptimizer = object  # type: ignore[attr-defined]
    sys.modules.update({"opacus": package, "opacus.optimizers": optimizers})
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == "opacus" or name.startswith("opacus.")]:
            del sys.modules[name]
