"""The events of a run, which every listener gets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.dataset import Dataset
    from pipelines.engines.interface import FittedModel

Status = Literal["FINISHED", "FAILED", "KILLED"]
Artifact: TypeAlias = "str | dict[str, Any] | list[Any] | Path | Figure"
"""A text, plain data for JSON, a file or a folder, or a matplotlib figure."""
NOTE = "note"
"""Tag: explains the run to its readers, in Markdown; a later note replaces it."""
COMMIT = "commit"
"""Tag: the git commit that made the run."""
REFUTED_TAG = "privacy.refuted"
"""Tag: why a run's guarantee is false, according to its own checks or an audit."""


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is known of a run before it begins.

    Attributes:
      name: readable, such as "dp_sgd eps=3 seed=0".
      tags: texts about the run, with `NOTE` and `COMMIT` among them.
      params: the configuration, flat, with dotted keys.
      dataset: what the run sees; only its name, shape and fingerprint are logged.
      parent_id: of the sweep's run, if any.
      private: whether to keep the text of unexpected exceptions out of the log; it may hold sizes of private samples.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    dataset: "Dataset | None" = None
    parent_id: str | None = None
    private: bool = False


class RunLog(Protocol):
    """One run's log. A listener implements every method, with an empty body for events that it does not write.

    A method may raise any exception of what it writes to. Events may come after `on_end`: a run that was cut short
    reports at the very end what it has spent.
    """

    @property
    def run_id(self) -> str:
        """The run's identifier, the same for all listeners."""

    def on_start(self, start: RunStart) -> None:
        """The run begins."""

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values at one training step. NaN, a sign of divergence, is kept; see `without_infinite`."""

    def on_tags(self, values: Mapping[str, str]) -> None:
        """Tags that were not known when the run began, or that replace older ones."""

    def on_artifact(self, name: str, content: Artifact) -> None:
        """A file of the run.

        Args:
          name: the file's name with its ending, and its folders if it has any.
          content: what the file holds; its ending decides the format of a figure.
        """

    def on_model(self, fitted: "FittedModel", features: tuple[int, ...]) -> None:
        """The trained model, and the shape of one example."""

    def flush(self) -> None:
        """Writes the events that wait, and returns when all events so far are stored."""

    def on_end(self, status: Status, error: BaseException | None = None) -> None:
        """The run has ended.

        Args:
          status: the run's final status.
          error: the exception that ended the run; if `RunStart.private`, its text is for the terminal alone.
        """


def without_infinite(values: Mapping[str, float]) -> dict[str, float]:
    """Leaves out infinite values: stores write them as 1.8e308 or refuse them, and charts become unreadable."""
    return {name: float(value) for name, value in values.items() if not math.isinf(value)}


def refuted(error: Exception) -> dict[str, str]:
    """Returns the tags of a run whose own checks, or an audit, contradict its guarantee."""
    reason = " ".join(str(error).split())
    return {REFUTED_TAG: reason, NOTE: f"**No guarantee:** {reason}."}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested keys: joins them with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
