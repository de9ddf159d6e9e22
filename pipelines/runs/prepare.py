"""Everything that is decided before training starts: data, clients, model, plan and engine."""

from dataclasses import dataclass

from pipelines.config.audit_settings import PlantingAudit
from pipelines.config.data_settings import require_columns_of
from pipelines.config.model_settings import CnnConfig, LayersConfig, LinearConfig, MlpConfig
from pipelines.config.partition_settings import AutoPartition, DealtPartition, NaturalPartition
from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdConfig, DpSgdUsersConfig, PrivatePipelineConfig
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.privacy_settings import PrivacyConfig
from pipelines.config.schema import Config
from pipelines.core.randomness import public_stream
from pipelines.data.dataset import Dataset
from pipelines.data.equal_rows import EqualRows
from pipelines.data.features.apply import with_features
from pipelines.data.load import load_dataset
from pipelines.data.partition.divide import build_partition
from pipelines.data.partition.division import Partition
from pipelines.engines.build import build_pipeline
from pipelines.engines.interface import Pipeline
from pipelines.model.spec import ModelSpec, build_layers, build_spec
from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.accounting.limits import accountable, judge
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.planning import public_plan
from pipelines.privacy.rounding import rounded_up
from pipelines.privacy.several_units import OWN_USERS, simulated_users

USELESS = 100.0
"""An epsilon above this promises nothing useful, so its digits are not shown."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, planned and not yet trained.

    Attributes:
      config: the configuration, with partition=auto resolved for this data.
      copies: size of the largest group of equal training examples; this is private data.
      remarks: warnings about the data, for the terminal; some of them reveal private data.
    """

    config: Config
    dataset: Dataset
    partition: Partition | None
    spec: ModelSpec
    plan: Mechanism | None
    pipeline: Pipeline
    threads: int
    copies: int = 1
    remarks: tuple[str, ...] = ()

    @property
    def users_in_words(self) -> str | None:
        """Says whether the users are the data's own or simulated; None where the data is not divided among users."""
        if self.partition is None:
            return None
        if isinstance(self.config.partition, NaturalPartition):
            return OWN_USERS
        own = self.dataset.client_ids is not None
        return simulated_users(self.config.partition.name, len(self.partition), own=own)

    @property
    def released_copies(self) -> int | None:
        """`copies`, if examples are protected and the run may publish it; None otherwise."""
        return self.copies if self.config.privacy.release_copies and self.config.unit == "example" else None

    @property
    def name(self) -> str:
        """Readable, such as "dp_sgd eps=3 seed=0"; it includes the mechanism unless that is the default."""
        privacy = self.config.privacy
        parts: list[str] = [self.config.pipeline.name]
        if self.plan is not None:
            if self.plan.label:
                parts.append(self.plan.label)
            parts.append(
                f"eps={rounded_up(privacy.epsilon, 6)}" if privacy.epsilon else f"sigma={privacy.noise_multiplier:g}"
            )
        audit = [f"audit={self.config.audit.name}"] if isinstance(self.config.audit, PlantingAudit) else []
        return " ".join([*parts, f"seed={self.config.seed}", *audit])


def prepare(config: Config, threads: int) -> Job:
    """Loads the data and plans the run.

    Raises:
      UserError: the data are missing or corrupt; the features belong to another dataset; private labels would reveal
        the number of classes; the plan is out of bounds, or the accountants cannot compute it; the engine is not
        installed.
      GuaranteeError: the plan depends on the private number of units, or the accountants contradict it.
    """
    require_columns_of(config.features, config.dataset.name)
    dataset = load_dataset(config.dataset)
    dataset.require_held_out()
    found, remarks = dataset.equal_rows, [*dataset.remarks, dataset.seen_before, _simulated_users(config, dataset)]
    scheme = config.partition
    if isinstance(scheme, AutoPartition):
        scheme = scheme.resolved(has_clients=dataset.client_ids is not None, divided=config.divided)
    config = config.model_copy(update={"partition": scheme})
    dataset = with_features(dataset, config.features, threads)
    partition = None
    if config.divided:
        chosen = scheme.seed if isinstance(scheme, DealtPartition) else None
        stream = public_stream(config.seed if chosen is None else chosen, "partition")
        partition = build_partition(scheme, dataset, stream)
    plan: Mechanism | None = None
    if isinstance(config.pipeline, DpSgdConfig | DpSgdUsersConfig | DpFedAvgConfig):
        dataset.require_stated_classes()
        units = len(dataset.train) if partition is None else len(partition)
        plan = judged_plan(config.pipeline, config.privacy, units)
        remarks.append(_copied(config, plan, found))
    return Job(
        config=config,
        dataset=dataset,
        partition=partition,
        spec=_spec(config, dataset),
        plan=plan,
        pipeline=build_pipeline(config, plan, threads),
        threads=threads,
        copies=found.most,
        remarks=tuple(filter(None, remarks)),
    )


def _simulated_users(config: Config, dataset: Dataset) -> str | None:
    """Returns a warning if the users are invented although the data has its own; None otherwise."""
    if not config.divided or dataset.client_ids is None or not isinstance(config.partition, DealtPartition):
        return None
    caveat = ", and epsilon says nothing about the data's own users" if config.private else ""
    return (
        f"partition={config.partition.name} SIMULATES USERS: dataset {dataset.name} has its own (client_ids), but the "
        f"examples are dealt to {config.partition.clients} invented ones{caveat}; drop partition= to train on its own"
    )


def _copied(config: Config, plan: Mechanism, found: EqualRows) -> str | None:
    """Returns a warning if training examples are equal: each is protected as if it were a person's only one."""
    if config.unit != "example" or found.most == 1:
        return None
    group = group_epsilon(plan, found.most)
    bound = "has no useful bound" if group is None or group > USELESS else f"is at most {rounded_up(group)}"
    logged = "" if config.privacy.release_copies else "; this line is not logged (privacy.release_copies=true logs it)"
    return (
        f"{found.repeated:,} training examples are equal to another one, and the largest group has {found.most:,}; if "
        f"one person holds that group, that person's epsilon {bound}{logged}"
    )


def model_spec(config: Config, threads: int) -> ModelSpec:
    """Returns the architecture of a run, whose sizes follow from its data.

    Raises:
      UserError: data missing or corrupt, or layers that do not fit it.
    """
    return _spec(config, with_features(load_dataset(config.dataset), config.features, threads))


def _spec(config: Config, dataset: Dataset) -> ModelSpec:
    model, features, classes = config.model, dataset.features, dataset.classes
    match model:
        case LinearConfig():
            return build_spec(model.name, features=features, classes=classes)
        case MlpConfig(widths=widths, activation=activation):
            return build_spec(model.name, features=features, classes=classes, widths=widths, activation=activation)
        case CnnConfig(activation=activation):
            return build_spec(model.name, features=features, classes=classes, activation=activation)
        case LayersConfig(layers=layers):
            return build_layers(layers, features=features, classes=classes)


def judged_plan(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> Mechanism:
    """Plans a private run, and checks the plan with every accountant.

    Args:
      pipeline: gives samples or cohorts, and steps.
      privacy: gives the mechanism, noise or target, clipping and delta.
      units: how many examples or users the data holds.

    Raises:
      UserError: the plan is out of bounds, or the accountants cannot compute it.
      GuaranteeError: the plan depends on the private number of units, or the accountants contradict it.
    """
    asked = "noise_multiplier" if privacy.epsilon is None else "epsilon"
    length = PIPELINES[pipeline.name].length
    subject = f"privacy.{asked}={getattr(privacy, asked):g} with pipeline.{length}={getattr(pipeline, length):g}"
    usual = "0.01 to 10000" if privacy.epsilon is None else "0.01 to 100"
    with accountable(subject, f"take privacy.{asked} from {usual}, or fewer {length}"):
        plan = public_plan(pipeline, privacy, units)
        judge(plan)
    return plan
