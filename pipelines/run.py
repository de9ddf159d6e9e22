"""Train one model: `python -m pipelines.run pipeline=dp_sgd privacy.epsilon=3`, or sweep with `-m`."""

from pipelines.core.process import exit_after
from pipelines.runs.launch import main


def command() -> None:
    """The `privacy-pipelines` command."""
    exit_after(main)


if __name__ == "__main__":
    command()
