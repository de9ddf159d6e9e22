"""Measures what each canary contributed to all weights of the run's own model, and compares it with the plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.auditing.noise_checks import noise_faults
from pipelines.auditing.observation import UNLIKELY
from pipelines.auditing.own_model import OwnModel, Path, still_move, twin_move
from pipelines.auditing.probe import STILL
from pipelines.core.randomness import public_stream
from pipelines.engines.interface import FittedModel
from pipelines.model.spec import Weights
from pipelines.privacy.mechanisms.base import Mechanism

Floats = NDArray[np.float64]
TWINS = 3
COPIES, CROWDED_STEPS = 32, 2
FLOAT32 = 2.0**-23
TOLERANCE = 5e-3
"""In clip norms: largest error of gradients in float32 against the reference."""
OFF = 0.05
"""In clip norms: largest allowed difference between a contribution and the unit's own clipped gradient."""
JUMP, JUMP_TRIALS = 1e-6, 6
"""Relative change of weights, several times the rounding of float32, and the number of trials."""
TIES, MUCH = 3, 0.25
"""Number of steps in which a jump may be missed, and the largest unexplained length of any step."""
LEAST_LEVEL = 1e-2
"""Least length that counts as a contribution; errors of float32 reach about 1e-4 for an absent one."""
CLEAR = 10.0
"""Canaries whose errors are enlarged by more than this factor are not used."""
FAINT = 1e-4
"""Gradients shorter than this, in clip norms, cannot be distinguished from zero."""
LEAST_TWIN_NOISE = 0.02
"""A twin with less noise shows only contributions; the still run shows the noise."""


@dataclass(frozen=True)
class Twin:
    """One twin run, step by step, in clip norms of the plan.

    Attributes:
      lengths: contribution of each canary along its own gradient, (steps, canaries).
      gradients: length of each canary's gradient, (steps, canaries).
      doubt: factor, >= 1, by which errors of a length are enlarged, because other canaries have nearly the same
        direction, (steps, canaries).
      rest: length of the part that no canary's own gradient explains, (steps,).
      rounding: largest part of `rest` that float32 may have caused, (steps,).
      levels: clip norm of each step, (steps,): 1, or under adaptive clipping the norm measured on clipped canaries.
      unsure: relative error of `levels`, (steps,).
      noise: (steps, weights).
      scale: noise of this run divided by the noise of its repetition without units, (steps,).
      drawn: whether the run's own record has each unit in each step, (steps, canaries and more).
    """

    lengths: Floats
    gradients: Floats
    doubt: Floats
    rest: Floats
    rounding: Floats
    levels: Floats
    unsure: Floats
    noise: Floats
    scale: Floats
    drawn: NDArray[np.bool_]

    @property
    def allowed(self) -> Floats:
        """Length of each canary's clipped gradient, (steps, canaries)."""
        return np.minimum(self.gradients, self.levels[:, None])

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each canary took part, (steps, canaries)."""
        return self.lengths > 0.5 * np.maximum(self.allowed, FAINT)


class OwnModelRuns:
    """The still run and the twins of a run's own model, each run on first use.

    Attributes:
      own: model and canaries.
      plan: of the still run; its noise multiplier is the run's own.
      tensors: number of weights of each tensor.
    """

    def __init__(self, own: OwnModel, seeds: Iterator[int]) -> None:
        """Takes seeds that only the caller knows."""
        self.own, self.plan, self._seeds = own, own.still_plan(), seeds
        self.tensors = tuple(value.size for value in own.start)

    @cached_property
    def _still(self) -> tuple[Floats, FittedModel]:
        own, zeros = self.own, [np.zeros_like(value) for value in self.own.start]
        everybody = np.arange(len(np.unique(own.owners)))
        data = own.data(everybody, without_units=True, start=zeros)
        path = own.run(data, self.plan, move=still_move(self.plan), seed=None)  # it is not repeated
        return self.plan.whitened(-np.diff(path.weights, axis=0) / still_move(self.plan)), path.model

    @property
    def still(self) -> Floats:
        """The noise of the still run, (steps, weights), in clip norms; for a tree as draws of its nodes."""
        return self._still[0]

    @cached_property
    def _chosen(self) -> tuple[NDArray[np.int64], float]:
        return self.own.choose(self._still[1])

    @cached_property
    def _twins(self) -> tuple[Mechanism, list[Twin]]:
        chosen, clip_norm = self._chosen
        plan = self.own.twin_plan(len(chosen), clip_norm)
        return plan, self._run_twins(plan, TWINS)

    @cached_property
    def crowd(self) -> Twin:
        """The twin with many copies of each canary; a length is the sum over all copies that joined."""
        chosen, clip_norm = self._chosen
        plan = self.own.twin_plan(len(chosen) * COPIES, clip_norm, CROWDED_STEPS, STILL)
        return self._run_twins(plan, 1, COPIES)[0]

    def _run_twins(self, plan: Mechanism, count: int, copies: int = 1) -> list[Twin]:
        own, chosen = self.own, self._chosen[0]
        seeds, paths = [next(self._seeds) for _ in range(count)], {}
        for without_units in (False, True):
            data = own.data(chosen, without_units=without_units, start=own.start, copies=copies)
            paths[without_units] = [own.run(data, plan, move=twin_move(plan), seed=seed) for seed in seeds]
        pairs = zip(paths[False], paths[True], strict=True)
        return [
            _twin(own, self._still[1], chosen, plan, with_units, without_units) for with_units, without_units in pairs
        ]

    @property
    def twin_plan(self) -> Mechanism:
        """The plan of the twins."""
        return self._twins[0]

    @property
    def twins(self) -> list[Twin]:
        """The twin runs."""
        return self._twins[1]

    def faults(self) -> list[str]:
        """Every difference between contributions or noise and the plan."""
        return [*self.still_faults(), *self.twin_faults(), *self.crowd_faults()]

    def still_faults(self) -> list[str]:
        """Faults of the noise of the still run."""
        short = len(self.still) != self.plan.steps
        found = [f"{len(self.still)} steps ran of {self.plan.steps} planned"] if short else []
        return found + noise_faults(self.still, self.plan.update_noise_multiplier, self.tensors)

    def twin_faults(self) -> list[str]:
        """Faults of contributions, and of the noise that is added to them."""
        unit, plan, found = self.plan.unit, self.twin_plan, []
        if any(len(twin.rest) != plan.steps for twin in self.twins):
            found.append(f"{min(len(twin.rest) for twin in self.twins)} steps ran of {plan.steps} planned")
        lengths, levels, unsure, allowed, joined, doubt, rounding, rest = (
            np.concatenate([getattr(twin, name) for twin in self.twins])
            for name in ("lengths", "levels", "unsure", "allowed", "joined", "doubt", "rounding", "rest")
        )
        relative = lengths / levels[:, None]
        tolerance = doubt * (TOLERANCE + unsure + 2 * rounding / levels)[:, None]  # the level has an error too
        if (relative - tolerance).max() > 1:
            found.append(f"one {unit} contributes {relative.max():.4g} clip norms, not 1")
        off = np.abs(lengths - np.where(joined, allowed, 0)) / levels[:, None] - tolerance
        if not found and off.max() > OFF:
            step, canary = np.unravel_index(np.argmax(off), off.shape)
            found.append(
                f"one {unit} contributes {lengths[step, canary]:.4g} clip norms where clipping leaves "
                f"{allowed[step, canary]:.4g} of its gradient"
            )
        drawn = np.concatenate([twin.drawn[:, : lengths.shape[1]] for twin in self.twins])
        shows = allowed / levels[:, None] > 2 * (OFF + tolerance)
        if (wrong := (joined != drawn) & shows).any():
            found.append(f"{wrong.sum()} times a {unit} trained but was not drawn, or was drawn but did not train")
        beyond = np.sort((rest - rounding) / levels)[::-1]
        if beyond[0] > MUCH or beyond[:TIES][-1] > TOLERANCE:
            found.append(f"a step contains {beyond[0]:.3g} clip norms that are no {unit}'s own clipped gradient")
        return found + self._twin_noise_faults()

    def crowd_faults(self) -> list[str]:
        """Faults of a step as large as those of runs: copies of a canary that contribute differently."""
        crowd, unit = self.crowd, self.plan.unit
        shown = (crowd.allowed > 2 * OFF * crowd.levels[:, None]) & (crowd.doubt < CLEAR)
        copies = crowd.lengths[shown] / crowd.allowed[shown]
        off = np.abs(copies - np.clip(np.rint(copies), 0, COPIES))
        if len(off) and off.max() > 2 * OFF:
            worst = copies[np.argmax(off)]
            return [
                f"in a large sample, the copies of one {unit} contribute {worst:.4g} times its clipped gradient, not a "
                f"whole number up to {COPIES}"
            ]
        rest = float(((crowd.rest - crowd.rounding) / crowd.levels).max())
        if rest > MUCH:
            return [f"a large sample contains {rest:.3g} clip norms that are no {unit}'s own clipped gradient"]
        return []

    def _twin_noise_faults(self) -> list[str]:
        """Faults of noise beside contributions: it must equal that without units, and scale with the clip norm."""
        sigma = self.twin_plan.update_noise_multiplier
        if sigma < LEAST_TWIN_NOISE:
            return []
        adaptive = self.twin_plan.adaptive is not None
        scale = np.concatenate([twin.scale for twin in self.twins])
        if not adaptive and np.abs(scale - 1).max() > OFF:
            return ["noise depends on who contributes"]
        noise = np.concatenate(
            [self.twin_plan.whitened((twin.noise / twin.levels[:, None])[twin.unsure == 0]) for twin in self.twins]
        )
        if not len(noise):
            return []
        return [f"beside contributions, {fault}" for fault in noise_faults(noise, sigma, self.tensors)]

    def evidence(self) -> dict[str, object]:
        """The measurements behind the verdict."""
        sizes = np.concatenate([twin.gradients for twin in self.twins])
        noise = [
            float(np.sqrt(np.mean(part**2))) for part in np.split(self.still, np.cumsum(self.tensors)[:-1], axis=1)
        ]
        return {
            "own_model_weights": sum(self.tensors),
            "own_model_canaries": sizes.shape[1],
            "own_model_steps": len(sizes),
            "own_model_gradients_in_clip_norms": [float(sizes.min()), float(sizes.max())],
            "own_model_sensitivity_in_clip_norms": max(
                float((twin.lengths / twin.levels[:, None]).max()) for twin in self.twins
            ),
            "own_model_unexplained_in_clip_norms": max(float(twin.rest.max()) for twin in self.twins),
            "own_model_noise_multipliers": noise,
        }


def _twin(
    own: OwnModel, model: FittedModel, chosen: NDArray[np.int64], plan: Mechanism, with_units: Path, without_units: Path
) -> Twin:
    """Decomposes each step of a twin run into noise and contributions, by least squares."""
    unit, steps = twin_move(plan), min(len(with_units.weights), len(without_units.weights)) - 1
    rows = []
    for step in range(steps):
        weights = own.spec.shaped(with_units.weights[step].astype(np.float32))
        gradients = own.gradients(model, weights, chosen) / plan.clip_norm
        moved, noise = ((path.weights[step] - path.weights[step + 1]) / unit for path in (with_units, without_units))
        row = _take_apart(moved, noise, gradients, {})
        if row[3] > TOLERANCE:
            row = _take_apart(moved, noise, gradients, _jumps(own, model, chosen, weights, gradients * plan.clip_norm))
        rows.append(row)
    lengths, sizes, doubt, rest, scale, left = (np.array(column) for column in zip(*rows, strict=True))
    norms = [np.linalg.norm(path.weights, axis=1) for path in (with_units, without_units)]
    rounding = FLOAT32 / unit * sum(norm[:-1][:steps] + norm[1:][:steps] for norm in norms)
    levels, unsure = _levels(plan, np.where(doubt < CLEAR, lengths, 0), sizes, left)
    return Twin(lengths, sizes, doubt, rest, rounding, levels, unsure, left, scale, with_units.drawn[:steps])


def _jumps(
    own: OwnModel, model: FittedModel, chosen: NDArray[np.int64], weights: Weights, gradients: Floats
) -> dict[int, list[Floats]]:
    """How canaries' gradients change if float32 picks another maximum of nearly equal values than float64.

    Returns:
      By canary, the directions in which its gradient jumps when the weights change by a few rounding errors.
    """
    found: dict[int, list[Floats]] = {}
    rng = public_stream(0, "audit_jumps")
    for _ in range(JUMP_TRIALS):
        moved = [value * (1 + JUMP * rng.standard_normal(value.shape)).astype(np.float32) for value in weights]
        changes = own.gradients(model, moved, chosen) - gradients
        for canary in np.flatnonzero(np.linalg.norm(changes, axis=1) > TOLERANCE * np.linalg.norm(gradients, axis=1)):
            found.setdefault(int(canary), []).append(changes[canary] / np.linalg.norm(changes[canary]))
    return found


def _take_apart(
    moved: Floats, noise: Floats, gradients: Floats, jumps: dict[int, list[Floats]]
) -> tuple[Floats, Floats, Floats, float, float, Floats]:
    """Explains a step by noise and by each canary's own gradient, which may jump.

    Returns:
      Length of each canary's contribution; length of its gradient; factor by which its error is enlarged, because its
      direction is near those of others; length of the unexplained part; scale of the noise relative to the repetition
      without units; the step without the contributions.
    """
    sizes = np.linalg.norm(gradients, axis=1)
    shows = np.flatnonzero(sizes > FAINT)
    loudness = max(float(np.linalg.norm(noise)), 1e-30)
    owners = [*shows, *(canary for canary, directions in jumps.items() for _ in directions)]
    own = [*(gradients[shows] / sizes[shows, None]), *(one for directions in jumps.values() for one in directions)]
    columns = np.vstack([noise / loudness, *own])
    products = columns @ columns.T
    found = np.linalg.lstsq(products, columns @ moved, rcond=None)[0]
    lengths, doubt = np.zeros(len(sizes)), np.ones(len(sizes))
    doubt[shows] = np.sqrt(np.diag(np.linalg.pinv(products, hermitian=True)).clip(min=1))[1 : 1 + len(shows)]
    lengths[shows] = found[1 : 1 + len(shows)]
    for canary in jumps:
        mine = 1 + np.flatnonzero(np.array(owners) == canary)
        lengths[canary] = np.linalg.norm(found[mine] @ columns[mine])
    left = moved - found[1:] @ columns[1:]
    rest = float(np.linalg.norm(moved - found @ columns))
    return lengths, sizes, doubt, rest, float(found[0] / loudness), left


def _levels(plan: Mechanism, lengths: Floats, sizes: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Each step's clip norm, in units of the plan's, and its relative error.

    An adaptive clip norm is measured on clipped canaries, or on the noise if no canary is clipped.
    """
    levels, unsure = np.ones(len(lengths)), np.zeros(len(lengths))
    if plan.adaptive is None or plan.adaptive.learning_rate == STILL:
        return levels, unsure
    for step, (mine, full, draws) in enumerate(zip(lengths, sizes, noise, strict=True)):
        cut = mine[(mine > LEAST_LEVEL) & (mine < (1 - 2 * OFF) * full)]
        if len(cut):
            levels[step] = np.median(cut[cut > cut.max() / 2])
        else:
            levels[step] = np.sqrt(np.mean(draws**2)) / plan.update_noise_multiplier
            unsure[step] = UNLIKELY / np.sqrt(2 * len(draws))
    return levels, unsure
