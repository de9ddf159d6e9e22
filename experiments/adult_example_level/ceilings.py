"""What the same split allows without privacy: `python experiments/adult_example_level/ceilings.py`.

Prints the floor and the ceilings that README.md quotes, over five seeds where a method draws any.
"""

import argparse

import numpy as np
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from pipelines.config.data_settings import BinsConfig
from pipelines.core.paths import REPOSITORY
from pipelines.data.adult import load_adult
from pipelines.data.features.apply import with_features


def main() -> None:
    """Fits scikit-learn's models with their defaults, and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where adult.data and adult.test lie; default: the cache, then a download")
    raw = load_adult(parser.parse_args().folder)
    values = yaml.safe_load((REPOSITORY / "conf/features/census_bins.yaml").read_text())
    binned = with_features(raw, BinsConfig.model_validate(values), threads=1)
    print(f"majority class                            {100 * (1 - raw.test.labels.mean()):.2f} %")
    for name, data in (("inputs", raw), ("inputs and census_bins", binned)):
        linear = LogisticRegression(max_iter=10_000).fit(data.train.inputs, data.train.labels)
        accuracy = 100 * linear.score(data.test.inputs, data.test.labels)
        print(f"logistic regression, {name:<20s} {accuracy:.2f} %")
    trees = [
        100
        * HistGradientBoostingClassifier(random_state=seed)
        .fit(raw.train.inputs, raw.train.labels)
        .score(raw.test.inputs, raw.test.labels)
        for seed in range(5)
    ]
    print(f"gradient boosting, inputs                 {np.mean(trees):.2f} % (spread {np.std(trees, ddof=1):.2f})")


if __name__ == "__main__":
    main()
