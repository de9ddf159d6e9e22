"""Sections of a configuration, as the command line would compose them."""

from typing import Any

from pydantic import TypeAdapter

from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdConfig, DpSgdUsersConfig
from pipelines.config.privacy_settings import AdaptiveConfig, FixedConfig, PrivacyConfig, TreeConfig


def dp_sgd(**changes: object) -> DpSgdConfig:
    values = {
        "name": "dp_sgd", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.9, "weight_decay": 0.0,
        "schedule": "constant", "batch_size": 512, "epochs": 20, "max_physical_batch": 256, "grad_sample": "auto",
    }  # fmt: skip
    return DpSgdConfig.model_validate(values | changes)


def dp_fed_avg(**changes: object) -> DpFedAvgConfig:
    values = {
        "name": "dp_fed_avg", "engine": "fast", "rounds": 30, "clients_per_round": 50, "local_epochs": 1,
        "local_batch_size": 10, "client_optimizer": "sgd", "client_learning_rate": 0.1, "client_momentum": 0.0,
        "server_optimizer": "sgd", "server_learning_rate": 1.0, "server_momentum": 0.9, "proximal_strength": 0.0,
    }  # fmt: skip
    return DpFedAvgConfig.model_validate(values | changes)


def dp_sgd_users(**changes: object) -> DpSgdUsersConfig:
    values = dp_sgd().model_dump(exclude={"grad_sample"}) | {"name": "dp_sgd_users"}
    return DpSgdUsersConfig.model_validate(values | changes)


GUARANTEE = {
    "epsilon": None, "noise_multiplier": 1.0, "delta": 1e-5, "clip_norm": 0.5, "population": None, "noise_seed": None,
}  # fmt: skip


def privacy(**changes: object) -> FixedConfig:
    return FixedConfig.model_validate({"name": "fixed"} | GUARANTEE | changes)


def adaptive(**changes: object) -> AdaptiveConfig:
    return AdaptiveConfig.model_validate({"name": "adaptive"} | GUARANTEE | changes)


def tree(**changes: object) -> TreeConfig:
    return TreeConfig.model_validate({"name": "tree"} | GUARANTEE | changes)


def privacy_of(**changes: object) -> PrivacyConfig:
    """Of the option that `changes` name."""
    return TypeAdapter[Any](PrivacyConfig).validate_python({"name": "fixed"} | GUARANTEE | changes)
