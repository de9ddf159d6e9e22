"""The subjects of the benchmark: each is one program with one setting, run in a fresh process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["ours", "peer", "bound"]
Section = Literal["federated", "central", "scale", "memory", "around"]
SECTIONS: tuple[Section, ...] = ("federated", "central", "scale", "memory", "around")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One program to measure.

    Attributes:
      name: unique in the benchmark; `--only` takes it.
      label: for tables and figures.
      program: arguments of the interpreter, such as ("-m", "experiments.speed.probes.central"); "{scratch}",
        "{repeat}" and "{data}" are filled in.
      options: passed as a JSON object in the last argument; None passes no such argument.
      quick: changes of the options with `--quick`.
      kind: ours, a peer, or a bound for any engine.
      environment: of the interpreter: the project's, or a peer's own.
      variables: of the process's environment, with the same fields filled in.
      repeats: most repeats; None takes the requested number.
      prime: whether a run that is not counted comes first, to fill caches.
    """

    name: str
    label: str
    program: tuple[str, ...]
    options: Mapping[str, Any] | None = None
    quick: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "ours"
    environment: Literal["project", "pfl", "flower"] = "project"
    variables: Mapping[str, str] = field(default_factory=dict)
    repeats: int | None = None
    prime: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """A claim with its bound.

    The value is the subject's `metric` divided by the reference's. If several are named, the one with the greatest
    median counts, so that a bound holds against the best of its kind. Without a reference the value is the subject's.

    Attributes:
      claim: in words.
      subject: names; the one with the greatest median counts.
      metric: of the subject.
      bound: in the value's unit; None if the number is reported without a bound.
      at_least: whether the bound is a lower one.
      reference: names; the one with the greatest median counts; empty for a plain value.
      unit: printed after the value.
    """

    claim: str
    subject: tuple[str, ...]
    metric: str
    bound: float | None
    at_least: bool = False
    reference: tuple[str, ...] = ()
    unit: str = "x"

    @property
    def key(self) -> str:
        """The name of the value in a log."""
        sides = ["_or_".join(names) for names in (self.subject, self.reference) if names]
        return f"{'_over_'.join(sides)}/{self.metric}"

    @property
    def bound_text(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "-"
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A section of the benchmark.

    Attributes:
      section: its name.
      work: of all subjects, in a sentence or two.
      subjects: in the order in which they take turns.
      targets: over its subjects.
      columns: metrics of its table, each with a heading, in order.
    """

    section: Section
    work: str
    subjects: tuple[Subject, ...]
    targets: tuple[Target, ...]
    columns: Mapping[str, str]
