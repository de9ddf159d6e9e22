"""The audit's part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.config.section import Count, Section


class AuditConfig(Section):
    """How the run's claim is attacked.

    Attributes:
      name: mechanism measures noise and sensitivity after training; one_run and canary_clients plant canaries in the
        training data; membership draws who an adversary would recognise.
      confidence: with which a lower bound on epsilon holds.
      canaries: examples or clients that become canaries; those that plant some only.
      guesses: canaries that are guessed, half of them in and half out; even.
      canary: what canary examples are; one_run only.
      score: what guesses rest on. one_run: white_box (every step) or loss (the end). canary_clients: final (the whole
        run's change) or largest (of the rounds').
    """

    name: Literal["none", "mechanism", "one_run", "canary_clients", "membership"] = "none"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    canaries: Count | None = None
    guesses: Count | None = None
    canary: Literal["noise", "mislabelled"] | None = None
    score: Literal["white_box", "loss", "final", "largest"] | None = None

    @property
    def plants(self) -> bool:
        """Whether it changes the training data."""
        return self.name in ("one_run", "canary_clients")

    @model_validator(mode="after")
    def _fields_fit_the_audit(self) -> "AuditConfig":
        wants = dict.fromkeys(("canaries", "guesses", "score"), self.plants) | {"canary": self.name == "one_run"}
        for field, wanted in wants.items():
            if wanted != (getattr(self, field) is not None):
                verb = "needs" if wanted else "does not take"
                raise ValueError(f"audit={self.name} {verb} audit.{field}; got {getattr(self, field)}")
        scores = ("white_box", "loss") if self.name == "one_run" else ("final", "largest")
        if self.score is not None and self.score not in scores:
            raise ValueError(f"audit.score={self.score} does not fit audit={self.name}; use {' or '.join(scores)}")
        if self.guesses is not None and (self.guesses % 2 or self.guesses > (self.canaries or 0)):
            raise ValueError(f"audit.guesses={self.guesses} must be even and at most audit.canaries={self.canaries}")
        return self
