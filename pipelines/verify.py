"""Checks a run's guarantee without training: `python -m pipelines.verify <run id, file or folder>`."""

from pipelines.core.process import exit_after
from pipelines.runs.verify_run import main

if __name__ == "__main__":
    exit_after(main)
