"""What is measured: a subject is one thing in one setting, run in a fresh process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["ours", "peer", "bound"]
Section = Literal["federated", "central", "scale", "memory", "around"]
SECTIONS: tuple[Section, ...] = ("federated", "central", "scale", "memory", "around")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One thing to measure.

    Attributes:
      name: unique in the benchmark; what `--only` takes.
      label: for tables and figures.
      program: arguments of the interpreter, such as ("-m", "experiments.speed.probes.central"); "{scratch}",
        "{repeat}" and "{data}" are filled in.
      options: passed as a JSON object in one last argument; None passes no such argument.
      quick: what `--quick` changes in the options.
      kind: ours, a peer, or a bound on what any engine could reach.
      environment: whose interpreter runs it: the project's, or a peer's own.
      variables: of the process's environment, with the same fields filled in.
      repeats: at most so many repeats; None as many as asked for.
      prime: whether a run that does not count goes before the first, to fill caches.
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
    """A claim, and the bound that it must keep.

    The value is subject over reference, both `metric`; where several are named the one with the greatest median counts,
    so that a bound holds against the best of its kind. Without a reference the value is the subject's own.

    Attributes:
      claim: in words.
      subject: names, the greatest of which counts.
      metric: of the subject.
      bound: in the value's unit; None where the issue asks for the number alone.
      at_least: whether the bound is a lower one.
      reference: names, the greatest of which counts; empty for a plain value.
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
        """Names the value in a log."""
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
      work: what all subjects do, in a sentence or two.
      subjects: in the order in which they take turns.
      targets: over its subjects.
      columns: metrics of its table, each with a heading, in order.
    """

    section: Section
    work: str
    subjects: tuple[Subject, ...]
    targets: tuple[Target, ...]
    columns: Mapping[str, str]
