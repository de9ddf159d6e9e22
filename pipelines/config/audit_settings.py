"""The audit's part of the configuration: how the run's claim is attacked."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.section import Count, Section

Confidence = Annotated[float, Field(ge=0.5, lt=1)]
"""Confidence level of the lower bound on epsilon."""


class NoAudit(Section):
    """No attack."""

    name: Literal["none"] = "none"


class MechanismAudit(Section):
    """Measures noise and sensitivity after training."""

    name: Literal["mechanism"]
    confidence: Confidence = 0.95


class MembershipAudit(Section):
    """After training, draws a figure of which examples a membership attack recognises."""

    name: Literal["membership"]


class PlantingAudit(Section):
    """Plants canaries in the training data, which changes it.

    Attributes:
      canaries: examples or clients that become canaries.
      guesses: number of canaries that are guessed, half of them in and half out; even.
    """

    confidence: Confidence = 0.95
    canaries: Count
    guesses: Count

    @model_validator(mode="after")
    def _guesses_are_of_canaries(self) -> Self:
        if self.guesses % 2 or self.guesses > self.canaries:
            raise ValueError(f"audit.guesses={self.guesses} must be even and at most audit.canaries={self.canaries}")
        return self


class OneRunAudit(PlantingAudit):
    """Canary examples.

    Attributes:
      canary: their kind.
      score: what guesses are based on: white_box sees every step, loss sees the final model only.
    """

    name: Literal["one_run"]
    canary: Literal["noise", "mislabelled"]
    score: Literal["white_box", "loss"]


class CanaryClientsAudit(PlantingAudit):
    """Canary clients.

    Attributes:
      score: what guesses are based on: final is the change over the whole run, largest the largest change of one round.
    """

    name: Literal["canary_clients"]
    score: Literal["final", "largest"]


AuditConfig = Annotated[
    NoAudit | MechanismAudit | MembershipAudit | OneRunAudit | CanaryClientsAudit, Field(discriminator="name")
]
