"""Re-runs recipes and compares with their records: `python -m pipelines.reproduce experiments/digits_frontier`."""

from pipelines.core.process import exit_after
from pipelines.recipes.reproduction import main

if __name__ == "__main__":
    exit_after(main)
