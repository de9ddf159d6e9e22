"""Everything that is decided before training starts: data, clients, model, plan and engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.config import (
    PRIVATE_UNITS,
    Config,
    DpFedAvgConfig,
    DpSgdConfig,
    FedAvgConfig,
    PrivacyConfig,
    SgdConfig,
)
from pipelines.data.dataset import Dataset
from pipelines.data.features.build import with_features
from pipelines.data.load import load_dataset
from pipelines.errors import UserError
from pipelines.model.spec import ModelSpec, build_spec
from pipelines.partition.build import build_partition
from pipelines.partition.partition import Partition
from pipelines.pipeline import Pipeline
from pipelines.privacy.judgement import accountable, judge
from pipelines.privacy.plan import MechanismPlan
from pipelines.privacy.planning import public_plan
from pipelines.privacy.rounding import rounded_up
from pipelines.privacy.tree_plan import Plan
from pipelines.randomness import public_stream


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, planned and not yet trained."""

    config: Config
    dataset: Dataset
    partition: Partition | None
    spec: ModelSpec
    plan: Plan | None
    pipeline: Pipeline
    threads: int

    @property
    def name(self) -> str:
        """Readable, such as "dp_sgd eps=3 seed=0"; a unit that is not the pipeline's own is named."""
        privacy, pipeline = self.config.privacy, self.config.pipeline.name
        parts: list[str] = [pipeline]
        if self.plan is not None:
            if self.plan.unit != PRIVATE_UNITS[pipeline][0]:
                parts.append(f"unit={self.plan.unit}")
            if privacy.mechanism == "tree":
                parts.append("tree")
            parts.append(
                f"eps={rounded_up(privacy.epsilon, 6)}" if privacy.epsilon else f"sigma={privacy.noise_multiplier:g}"
            )
        audit = [f"audit={self.config.audit.name}"] if self.config.audit.plants else []
        return " ".join([*parts, f"seed={self.config.seed}", *audit])


def prepare(config: Config, threads: int) -> Job:
    """Loads the data and plans the run.

    Raises:
      UserError: data missing or corrupt, private labels that tell how many classes, a plan out of bounds or
        beyond what the accountants can compute, an engine that is not installed.
      GuaranteeError: a plan that follows the private number of units, or that the accountants contradict.
    """
    dataset = load_dataset(config.dataset)
    dataset.require_held_out()
    dataset = with_features(dataset, config.features, threads)
    partition = None
    if config.divided:
        seed = config.seed if config.partition.seed is None else config.partition.seed
        partition = build_partition(config.partition, dataset, public_stream(seed, "partition"))
    spec = build_spec(
        config.model.name,
        features=dataset.features,
        classes=dataset.classes,
        widths=config.model.widths,
        activation=config.model.activation,
    )
    plan: Plan | None = None
    if isinstance(config.pipeline, DpSgdConfig | DpFedAvgConfig):
        dataset.require_stated_classes()
        units = len(dataset.train) if partition is None else len(partition)
        plan = judged_plan(config.pipeline, config.privacy, units)
    return Job(
        config=config,
        dataset=dataset,
        partition=partition,
        spec=spec,
        plan=plan,
        pipeline=build_pipeline(config, plan, threads),
        threads=threads,
    )


def judged_plan(pipeline: DpSgdConfig | DpFedAvgConfig, privacy: PrivacyConfig, units: int) -> Plan:
    """The plan of a private run, about which every accountant has been asked.

    Args:
      pipeline: gives samples or cohorts, and steps.
      privacy: gives the mechanism, noise or target, clipping and delta.
      units: how many examples or users the data holds.

    Raises:
      UserError: a plan out of bounds, or beyond what the accountants can compute.
      GuaranteeError: a plan that follows the private number of units, or that the accountants contradict.
    """
    asked = "noise_multiplier" if privacy.epsilon is None else "epsilon"
    length = "epochs" if isinstance(pipeline, DpSgdConfig) else "rounds"
    subject = f"privacy.{asked}={getattr(privacy, asked):g} with pipeline.{length}={getattr(pipeline, length):g}"
    usual = "0.01 to 10000" if privacy.epsilon is None else "0.01 to 100"
    with accountable(subject, f"take privacy.{asked} from {usual}, or fewer {length}"):
        plan = public_plan(pipeline, privacy, units)
        judge(plan)
    return plan


def build_pipeline(config: Config, plan: Plan | None, threads: int) -> Pipeline:
    """The one choice of an engine; each import pulls in its own framework and no other.

    Args:
      config: of the run.
      plan: what a private engine runs; None for the others.
      threads: CPU threads.

    Raises:
      UserError: the engine is not installed, or refuses the plan.
    """
    settings, noise_seed = config.pipeline, config.privacy.noise_seed
    with _installed(settings.name):
        match settings:
            case SgdConfig():
                from pipelines.central.sgd import Sgd
                from pipelines.central.training import Hardware

                return Sgd(settings, seed=config.seed, hardware=Hardware(device=config.device, threads=threads))
            case DpSgdConfig():
                from pipelines.central.dp_sgd import DpSgd
                from pipelines.central.training import Hardware

                hardware = Hardware(device=config.device, threads=threads)
                planned = _planned(plan)
                assert isinstance(planned, MechanismPlan), "trees are for dp_fed_avg"
                return DpSgd(settings, planned, noise_seed=noise_seed, hardware=hardware)
            case FedAvgConfig():
                from pipelines.federated.fed_avg import FedAvg

                return FedAvg(settings, seed=config.seed, threads=threads)
            case DpFedAvgConfig():
                from pipelines.federated.dp_fed_avg import DpFedAvg

                return DpFedAvg(settings, _planned(plan), noise_seed=noise_seed, threads=threads)


def _planned(plan: Plan | None) -> Plan:
    assert plan is not None, "a private pipeline always has a plan"
    return plan


@contextmanager
def _installed(pipeline: str) -> Iterator[None]:
    """Turns a missing framework into one line that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "central" if pipeline in ("sgd", "dp_sgd") else "federated"
        raise UserError(
            f"pipeline={pipeline} needs {error.name}, which is not installed; run: pip install -e '.[{extra}]'"
        ) from None
