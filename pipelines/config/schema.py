"""The typed configuration. Every bad value ends here, in one line that names the field, the value and the remedy."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.config import rules
from pipelines.config.audit_settings import AuditConfig
from pipelines.config.data_settings import DatasetConfig, FeaturesConfig, NoFeatures, PartitionConfig
from pipelines.config.section import Count, NonNegative, Number, Positive, Section
from pipelines.core.errors import UserError

Activation = Literal["tanh", "relu"]

Unit = Literal["example", "user"]


class ModelConfig(Section):
    """The architecture; `widths` are an mlp's hidden units, `activation` is that of an mlp or a cnn."""

    name: Literal["linear", "mlp", "cnn"]
    widths: tuple[Count, ...] = ()
    activation: Activation = "tanh"


class TrainedConfig(Section):
    """What all pipelines share.

    Attributes:
      ema_decay: of the average of the weights after every step or round, which is what is evaluated and released; 0
        releases the last ones.
    """

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


class CentralConfig(TrainedConfig):
    """What both PyTorch pipelines share."""

    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    schedule: Literal["constant", "cosine"]
    batch_size: Count
    epochs: Positive


class SgdConfig(CentralConfig):
    """Minibatch training in PyTorch; batches are a fresh shuffle each epoch."""

    name: Literal["sgd"]


class DpSgdConfig(CentralConfig):
    """Private training with Opacus; `batch_size` is the expected size of a Poisson sample of examples or users.

    Attributes:
      max_physical_batch: most examples in memory at once.
      grad_sample: how clipped sums of gradients are computed; auto picks by model and device. For units of examples.
      user_update: what a user contributes: the mean gradient over their examples, or what local steps change.
      user_examples: most examples of a user in a step, drawn afresh each time; None takes all.
      local_epochs, local_batch_size, local_learning_rate: of a delta's local steps, plain SGD as in dp_fed_avg.
    """

    name: Literal["dp_sgd"]
    max_physical_batch: Count
    grad_sample: Literal["auto", "fast", "hooks", "ghost", "functorch"]
    user_update: Literal["gradient", "delta"] = "gradient"
    user_examples: Count | None = None
    local_epochs: Count = 1
    local_batch_size: Count = 64
    local_learning_rate: Positive = 0.5


class FederatedConfig(TrainedConfig):
    """What both TFF pipelines share.

    Attributes:
      engine: fast lets TFF's clients read examples from mapped memory; stock is `tff.learning`, the reference.
      secure_aggregation: whether updates are summed in the arithmetic of secure aggregation, which is simulated.
    """

    engine: Literal["fast", "stock"]
    rounds: Count
    clients_per_round: Count
    local_epochs: Count
    local_batch_size: Count
    client_optimizer: Literal["sgd", "adam"]
    client_learning_rate: Positive
    client_momentum: Annotated[float, Field(ge=0, lt=1)]
    server_optimizer: Literal["sgd", "adam", "adagrad", "yogi"]
    server_learning_rate: Positive
    server_momentum: Annotated[float, Field(ge=0, lt=1)]
    proximal_strength: NonNegative
    secure_aggregation: bool = False


class FedAvgConfig(FederatedConfig):
    """Federated averaging in TFF; `clients_per_round` is the cohort's exact size.

    Attributes:
      weighting: clients count by their examples, or all the same.
      secure_bound: largest change of a weight that secure aggregation can carry; a larger one ends the run.
    """

    name: Literal["fed_avg"]
    weighting: Literal["examples", "uniform"]
    secure_bound: Positive = 10.0


class DpFedAvgConfig(FederatedConfig):
    """Federated averaging in TFF under user-level privacy; `clients_per_round` is a Poisson cohort's expected size."""

    name: Literal["dp_fed_avg"]


PipelineConfig = Annotated[SgdConfig | DpSgdConfig | FedAvgConfig | DpFedAvgConfig, Field(discriminator="name")]
PRIVATE_UNITS: dict[str, tuple[Unit, ...]] = {"dp_sgd": ("example", "user"), "dp_fed_avg": ("user",)}  # own one first
OF_USERS = {"user_update", "user_examples", "local_epochs", "local_batch_size", "local_learning_rate"}  # in DpSgdConfig


class PrivacyConfig(Section):
    """The guarantee asked for. Exactly one of `epsilon` and `noise_multiplier` is given.

    Attributes:
      unit: who is protected; None takes the pipeline's own (dp_sgd: example; dp_fed_avg: user, its only one).
      epsilon: target, calibrated to a noise multiplier.
      noise_multiplier: sigma, given instead of a target.
      delta: what the bound on probabilities grants on top of the factor; below 1e-10 the accountants' rounding would
        show.
      clip_norm: L2 bound of one unit's contribution.
      clipping: fixed, or adaptive.
      mechanism: gaussian, on Poisson samples; or tree, DP-FTRL without sampling (dp_fed_avg only).
      restart_every: rounds of a tree; None grows it as long as no user would join twice. tree only.
      target_quantile, clip_learning_rate, count_stddev: of adaptive clipping; count_stddev None is 5 % of the sample.
      population: public number of units, near the real one; None takes the number of examples or clients as public.
      release_copies: whether the log tells how many training examples are equal, which no epsilon covers.
      noise_seed: None draws sampling and noise from OS entropy; a number makes the run reproducible, not private.
    """

    unit: Unit | None
    epsilon: Positive | None
    noise_multiplier: Positive | None
    delta: Annotated[float, Field(ge=1e-10, lt=1)]
    clip_norm: Positive
    clipping: Literal["fixed", "adaptive"]
    mechanism: Literal["gaussian", "tree"] = "gaussian"
    restart_every: Count | None = None
    target_quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    clip_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    count_stddev: Positive | None = None
    population: Count | None
    noise_seed: Annotated[int, Field(ge=0)] | None
    release_copies: bool = False

    def unit_of(self, pipeline: str) -> Unit:
        """Who is protected by a private pipeline of that name."""
        return self.unit or PRIVATE_UNITS[pipeline][0]


class WorkerConfig(Section):
    """Of the process that TensorFlow Federated computes in.

    Attributes:
      require_private_worker: refuse to train where the system lets other users or machines reach it.
    """

    require_private_worker: bool = False


class TrackingConfig(Section):
    """Where runs are logged.

    Attributes:
      uri: tracking server or database; None is an sqlite file in the repository.
      experiment: under which a run is filed; None takes the dataset's name.
      log_model: whether to log the trained model.
      tensorboard: whether to write event files for TensorBoard beside the record.
    """

    uri: str | None
    experiment: str | None
    log_model: bool
    tensorboard: bool = False


class Config(Section):
    """The whole configuration of one run."""

    dataset: DatasetConfig
    features: FeaturesConfig = NoFeatures()
    model: ModelConfig
    partition: PartitionConfig
    pipeline: PipelineConfig
    privacy: PrivacyConfig
    tracking: TrackingConfig
    federated: WorkerConfig = WorkerConfig()
    audit: AuditConfig = AuditConfig()
    seed: Annotated[int, Number, Field(ge=0)]
    device: Literal["auto", "cpu", "cuda"]
    threads: Count | None
    evaluations: Count
    debug: bool

    @property
    def private(self) -> bool:
        """Whether the pipeline gives a guarantee."""
        return self.pipeline.name in PRIVATE_UNITS

    @property
    def unit(self) -> Unit | None:
        """Who is protected; None where nothing is private."""
        return self.privacy.unit_of(self.pipeline.name) if self.private else None

    @model_validator(mode="after")
    def _privacy_fits_the_pipeline(self) -> "Config":
        rules.require_secure_sums_fit(self)
        rules.require_audit_fits(self)
        if self.private:
            rules.require_one_target(self)
            rules.require_unit_fits(self, PRIVATE_UNITS[self.pipeline.name])
            rules.require_mechanism_fits(self)
            rules.require_population_fits(self)
        return self

    @property
    def divided(self) -> bool:
        """Whether the data is divided among clients or users, as `partition` says."""
        return isinstance(self.pipeline, FederatedConfig) or self.unit == "user"

    @property
    def audited(self) -> bool:
        """Whether the configured audit applies: a mechanism's does not where there is none."""
        return self.audit.name != "none" and (self.private or self.audit.name != "mechanism")

    def effective(self) -> dict[str, Any]:
        """What the outcome depends on, as plain data: no privacy where nothing is private, no users where none are."""
        skip: dict[str, Any] = dict.fromkeys(("tracking", "federated", "debug", "threads"), True)
        if not self.private:
            skip["privacy"] = True
        if not self.divided:
            skip |= {"partition": True, "pipeline": OF_USERS}
        if not self.audited:
            skip["audit"] = True
        return self.model_dump(mode="json", exclude=skip)

    @property
    def fingerprint(self) -> str:
        """sha256 of the effective configuration."""
        return hashlib.sha256(json.dumps(self.effective(), sort_keys=True).encode()).hexdigest()


def parse(values: dict[str, Any]) -> Config:
    """Checks plain values against the schema.

    Raises:
      UserError: one line with every field at fault, its value and what is allowed.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(dict.fromkeys(_in_words(item) for item in error.errors()))) from None


def _in_words(item: Any) -> str:
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    field = ".".join(str(part) for part in item["loc"] if part not in PIPELINES)
    if item["type"] == "missing":
        return f"{field} is missing; write {field}=VALUE, or drop ~{field}"
    if item["type"] == "extra_forbidden":
        return f"{field}={item['input']}: unknown key; drop it (python -m pipelines.run --cfg job prints every key)"
    if item["type"] == "tuple_type":
        return f"{field}={item['input']}: input should be a list, such as '{field}=[{item['input']}]'"
    return f"{field}={item['input']}: {item['msg'][0].lower()}{item['msg'][1:]}"


PIPELINES = ("sgd", "dp_sgd", "fed_avg", "dp_fed_avg")
