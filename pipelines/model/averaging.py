"""An average of the weights that a run goes through: less of the last steps' noise in the model that is released.

Whatever is computed from released weights costs no privacy: the guarantee covers every one of them.

Source: De et al. 2022, arXiv:2204.13650, section 3.1; Shejwalkar et al. 2022, arXiv:2210.03403, section 3.
"""


def share_of_newest(step: int, decay: float) -> float:
    """The weight of the newest iterate in the average after a step: average += share * (newest - average).

    Weights fall by `decay` with every step back, and sum to one from the first step on, so that where training started
    has no part in it: the correction of Kingma & Ba 2015, arXiv:1412.6980, section 3.

    Args:
      step: counted from 1.
      decay: in [0, 1); 0 leaves the newest alone.

    Returns:
      In (0, 1]; 1 at the first step.
    """
    return (1 - decay) / (1 - decay**step)
