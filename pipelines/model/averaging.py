"""An exponential average of the weights of a run, so that the released model has less noise of the last steps.

The guarantee covers the weights after every step. What is computed from them, such as an average, costs no privacy.

Source: De et al. 2022, arXiv:2204.13650, section 3.1; Shejwalkar et al. 2022, arXiv:2210.03403, section 3.
"""


def share_of_newest(step: int, decay: float) -> float:
    """The weight of the newest iterate in the average after a step: average += share * (newest - average).

    Weights decrease by the factor `decay` with every step back. They sum to one from the first step on, so the starting
    weights have no influence: the correction of Kingma & Ba 2015, arXiv:1412.6980, section 3.

    Args:
      step: counted from 1.
      decay: in [0, 1); 0 keeps the newest only.

    Returns:
      In (0, 1]; 1 at the first step.
    """
    return (1 - decay) / (1 - decay**step)
