"""The pipelines' part of the configuration: one class a pipeline."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Count, NonNegative, Positive, Section


class TrainedConfig(Section):
    """Settings of every pipeline.

    Attributes:
      ema_decay: decay of the exponential average of the weights. The average is evaluated and released; 0 releases
        the last weights.
    """

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


class CentralConfig(TrainedConfig):
    """Settings of every PyTorch pipeline."""

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


class PrivateCentralConfig(CentralConfig):
    """Settings of both private PyTorch pipelines; `batch_size` is the expected size of a Poisson sample.

    Attributes:
      max_physical_batch: most examples in memory at once.
    """

    max_physical_batch: Count


class DpSgdConfig(PrivateCentralConfig):
    """Private training over examples with Opacus.

    Attributes:
      grad_sample: how clipped sums of gradients are computed; auto picks by model and device.
    """

    name: Literal["dp_sgd"]
    grad_sample: Literal["auto", "book_keeping", "hooks", "ghost", "functorch"]


class DpSgdUsersConfig(PrivateCentralConfig):
    """Private training over users of the partition, with Opacus' optimizer.

    Attributes:
      user_update: what a user contributes: the mean gradient over their examples, or the change after local steps.
      user_examples: most examples of a user in a step, drawn anew in each step; None takes all.
      local_epochs, local_batch_size, local_learning_rate: of the local steps of a delta, plain SGD as in dp_fed_avg.
    """

    name: Literal["dp_sgd_users"]
    user_update: Literal["gradient", "delta"] = "gradient"
    user_examples: Count | None = None
    local_epochs: Count = 1
    local_batch_size: Count = 64
    local_learning_rate: Positive = 0.5


class FederatedConfig(TrainedConfig):
    """Settings of both TFF pipelines.

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
      weighting: by each client's number of examples, or uniform.
      secure_bound: largest change of a weight that secure aggregation can carry; a larger one ends the run.
    """

    name: Literal["fed_avg"]
    weighting: Literal["examples", "uniform"]
    secure_bound: Positive = 10.0


class DpFedAvgConfig(FederatedConfig):
    """Federated averaging in TFF under user-level privacy; `clients_per_round` is a Poisson cohort's expected size."""

    name: Literal["dp_fed_avg"]


PipelineConfig = Annotated[
    SgdConfig | DpSgdConfig | DpSgdUsersConfig | FedAvgConfig | DpFedAvgConfig, Field(discriminator="name")
]
PrivatePipelineConfig = DpSgdConfig | DpSgdUsersConfig | DpFedAvgConfig
