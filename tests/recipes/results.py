"""Rows of a record, without a sweep."""

from pipelines.recipes.record import ResultRow


def row(accuracy: float, *, seed: int, pipeline: str = "dp_sgd", epsilon: float | None = 0.998) -> ResultRow:
    """A run at target epsilon 1, or one without privacy."""
    private = epsilon is not None
    return ResultRow(
        pipeline=pipeline,
        target_epsilon=1.0 if private else None,
        epsilon=epsilon,
        delta=1e-4 if private else None,
        unit="example" if private else None,
        relation="add_or_remove_one" if private else None,
        noise_multiplier=5.5 if private else None,
        steps=100,
        seed=seed,
        accuracy=accuracy,
    )
