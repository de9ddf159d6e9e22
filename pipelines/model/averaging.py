"""Averages of the weights that a run goes through: less of the last steps' noise in the model that is released.

Whatever is computed from released weights costs no privacy: the guarantee covers every one of them.

Source: De et al. 2022, arXiv:2204.13650, section 3.1 (exponential), and Shejwalkar et al. 2022, arXiv:2210.03403,
section 3 (exponential and tail averages of private iterates).
"""

from typing import Literal

Rule = Literal["none", "ema", "tail"]


def share_of_newest(rule: Rule, step: int, steps: int, *, decay: float, tail: float) -> float:
    """The weight of the newest iterate in the average after a step: average += share * (newest - average).

    Args:
      rule: none: the newest alone. ema: weights fall by `decay` with every step back, and sum to one from the first
        step on, so that a short run is not held at its starting point (Adam's correction, Kingma & Ba 2015,
        arXiv:1412.6980, section 3). tail: the plain mean over the last steps.
      step: counted from 1.
      steps: of the run, as planned.
      decay: of ema, in [0, 1).
      tail: of tail, the share of all steps that it spans, in (0, 1]; at least one step.

    Returns:
      In (0, 1]; 1 at the first step.
    """
    match rule:
        case "none":
            return 1.0
        case "ema":
            return (1 - decay) / (1 - decay**step)
        case "tail":
            before = steps - max(1, round(tail * steps))
            return 1 / max(1, step - before)
