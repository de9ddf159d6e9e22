"""The choice of an engine by the pipeline's settings."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config.pipeline_settings import (
    DpFedAvgConfig,
    DpSgdConfig,
    DpSgdUsersConfig,
    FedAvgConfig,
    SgdConfig,
)
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.schema import Config
from pipelines.core.errors import UserError
from pipelines.engines.interface import Pipeline
from pipelines.privacy.mechanisms.base import Mechanism


def build_pipeline(config: Config, plan: Mechanism | None, threads: int) -> Pipeline:
    """Builds the engine of a pipeline; each case imports its own framework alone.

    Args:
      config: the run's configuration.
      plan: the plan of a private engine; None for the others.
      threads: CPU threads.

    Raises:
      UserError: the engine is not installed, or refuses the plan.
    """
    settings, noise_seed = config.pipeline, config.privacy.noise_seed
    with _installed(settings.name):
        match settings:
            case SgdConfig():
                from pipelines.engines.central.sgd import Sgd
                from pipelines.engines.central.training import Hardware

                return Sgd(settings, seed=config.seed, hardware=Hardware(device=config.device, threads=threads))
            case DpSgdConfig() | DpSgdUsersConfig():
                from pipelines.engines.central.dp_sgd import DpSgd
                from pipelines.engines.central.training import Hardware

                hardware = Hardware(device=config.device, threads=threads)
                return DpSgd(settings, _planned(plan), noise_seed=noise_seed, hardware=hardware)
            case FedAvgConfig():
                from pipelines.engines.federated.fed_avg import FedAvg

                return FedAvg(settings, seed=config.seed, threads=threads, private_worker=_private_worker(config))
            case DpFedAvgConfig():
                from pipelines.engines.federated.dp_fed_avg import DpFedAvg

                private_worker = _private_worker(config)
                return DpFedAvg(
                    settings, _planned(plan), noise_seed=noise_seed, threads=threads, private_worker=private_worker
                )


def _private_worker(config: Config) -> bool:
    """Returns whether only this user may reach TFF's worker, and checks that before anything is logged."""
    from pipelines.engines.federated.home import require_private_home

    if config.federated.require_private_worker:
        require_private_home()
    return config.federated.require_private_worker


def _planned(plan: Mechanism | None) -> Mechanism:
    assert plan is not None, "a private pipeline always has a plan"
    return plan


@contextmanager
def _installed(pipeline: str) -> Iterator[None]:
    """Turns a missing framework into one line that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = PIPELINES[pipeline].framework
        raise UserError(
            f"pipeline={pipeline} needs {error.name}, which is not installed; run: pip install -e '.[{extra}]'"
        ) from None
