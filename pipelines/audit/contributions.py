"""What each canary contributed to all weights of the run's own model, and whether it is what the plan allows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.audit.nodes import whitened
from pipelines.audit.noise import noise_faults
from pipelines.audit.own_model import OwnModel, still_move, twin_move
from pipelines.audit.probe import noise_per_release
from pipelines.privacy.plan import MechanismPlan
from pipelines.privacy.tree_plan import Plan, TreePlan

Floats = NDArray[np.float64]
TWINS = 3
FLOAT32 = 2.0**-23
TOLERANCE = 5e-3
"""In clip norms: how far float32's gradients may be from the reference."""
OFF = 0.05
"""In clip norms: how far a contribution may be from what clipping leaves of its own gradient."""
TIES, MUCH = 3, 0.25
"""Float32 may find another maximum of nearly equal values than the reference does: in fewer steps, and by less."""
FAINT = 1e-4
"""Gradients shorter than this, in clip norms, are not told from nothing."""
LEAST_TWIN_NOISE = 0.02
"""A twin with less noise shows contributions alone; the still run shows the noise."""


@dataclass(frozen=True)
class Twin:
    """One twin run, step by step, in clip norms of the plan.

    Attributes:
      lengths: what each canary contributed along its own gradient, (steps, canaries).
      gradients: length of each canary's gradient, (steps, canaries).
      rest: length of what no canary's own gradient explains, (steps,).
      rounding: the most that float32 may have added to it, (steps,).
      levels: clip norm of each step, (steps,): 1, or under adaptive clipping as those show it whom it cuts.
      noise: (steps, weights).
      scale: noise of this run over that of its silent repetition, (steps,).
    """

    lengths: Floats
    gradients: Floats
    rest: Floats
    rounding: Floats
    levels: Floats
    noise: Floats
    scale: Floats

    @property
    def allowed(self) -> Floats:
        """What clipping leaves of each canary's gradient, (steps, canaries)."""
        return np.minimum(self.gradients, self.levels[:, None])

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each canary took part, (steps, canaries)."""
        return self.lengths > 0.5 * np.maximum(self.allowed, FAINT)


@dataclass(frozen=True)
class OwnModelRuns:
    """All that was seen of a run's own model.

    Attributes:
      plan: of the still run, whose noise multiplier is the run's own.
      twin_plan: of the twins.
      still: the noise of the still run, (steps, weights), in clip norms; of a tree as draws of its nodes.
      twins: the twin runs.
      tensors: weights of each tensor.
    """

    plan: Plan
    twin_plan: Plan
    still: Floats
    twins: tuple[Twin, ...]
    tensors: tuple[int, ...]

    @classmethod
    def of(cls, own: OwnModel, seeds: Iterator[int]) -> "OwnModelRuns":
        """Runs the engine; nobody but the caller ever knows the seeds."""
        plan = own.still_plan()
        zeros = [np.zeros_like(value) for value in own.start]
        everybody = np.arange(len(np.unique(own.owners)))
        still, model = own.run(
            own.data(everybody, silent=True, start=zeros), plan, move=still_move(plan), seed=next(seeds)
        )
        chosen, clip_norm = own.choose(model)
        twin_plan = own.twin_plan(len(chosen), clip_norm)
        used = [next(seeds) for _ in range(TWINS)]
        paths = {}
        for silent in (False, True):
            data = own.data(chosen, silent=silent, start=own.start)
            paths[silent] = [own.run(data, twin_plan, move=twin_move(twin_plan), seed=seed)[0] for seed in used]
        twins = [_twin(own, model, chosen, twin_plan, *pair) for pair in zip(paths[False], paths[True], strict=True)]
        return cls(
            plan=plan,
            twin_plan=twin_plan,
            still=_independent(-np.diff(still, axis=0) / still_move(plan), plan),
            twins=tuple(twins),
            tensors=tuple(value.size for value in zeros),
        )

    def faults(self) -> list[str]:
        """Every way in which contributions or noise are not what the plan says."""
        unit, found = self.plan.unit, []
        if len(self.still) != self.plan.steps or any(len(t.rest) != self.twin_plan.steps for t in self.twins):
            found.append(f"{len(self.still)} steps ran of {self.plan.steps} planned")
        found += noise_faults(self.still, noise_per_release(self.plan), self.tensors)
        lengths, levels, allowed, joined = (
            np.concatenate([getattr(twin, name) for twin in self.twins])
            for name in ("lengths", "levels", "allowed", "joined")
        )
        rounding = np.concatenate([twin.rounding for twin in self.twins])
        tolerance = TOLERANCE + rounding
        longest = lengths / levels[:, None] - tolerance[:, None]
        if longest.max() > 1:
            found.append(f"one {unit} contributes {(lengths / levels[:, None]).max():.4g} clip norms, not 1")
        off = np.abs(lengths - np.where(joined, allowed, 0)) / levels[:, None] - tolerance[:, None]
        if not found and off.max() > OFF:
            step, canary = np.unravel_index(np.argmax(off), off.shape)
            found.append(
                f"one {unit} contributes {lengths[step, canary]:.4g} clip norms where clipping leaves "
                f"{allowed[step, canary]:.4g} of its gradient"
            )
        rest = np.sort(np.concatenate([twin.rest for twin in self.twins]) / levels - rounding)[::-1]
        if rest[0] > MUCH or rest[:TIES][-1] > TOLERANCE:
            found.append(f"a step holds {rest[0]:.3g} clip norms that are no {unit}'s own clipped gradient")
        return found + self._twin_noise_faults()

    def _twin_noise_faults(self) -> list[str]:
        """Noise beside contributions: as in the silent repetition, and in step with the clip norm."""
        sigma = noise_per_release(self.twin_plan)
        if sigma < LEAST_TWIN_NOISE:
            return []
        adaptive = isinstance(self.twin_plan, MechanismPlan) and self.twin_plan.adaptive is not None
        scale = np.concatenate([twin.scale for twin in self.twins])
        if not adaptive and np.abs(scale - 1).max() > OFF:
            return ["noise depends on who contributes"]
        noise = np.concatenate([_independent(twin.noise / twin.levels[:, None], self.twin_plan) for twin in self.twins])
        return [f"beside contributions, {fault}" for fault in noise_faults(noise, sigma, self.tensors)]

    def evidence(self) -> dict[str, object]:
        """What the verdict rests on."""
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


def _independent(noise: Floats, plan: Plan) -> Floats:
    return whitened(noise, plan.executed(len(noise)).trees) if isinstance(plan, TreePlan) else noise


def _twin(own: OwnModel, model: object, chosen: NDArray[np.int64], plan: Plan, loud: Floats, silent: Floats) -> Twin:
    """Takes each step of a twin run apart, by least squares, into noise and contributions."""
    unit, steps = twin_move(plan), min(len(loud), len(silent)) - 1
    rows = []
    for step in range(steps):
        weights = own.spec.shaped(loud[step].astype(np.float32))
        gradients = own.gradients(model, weights, chosen) / plan.clip_norm  # type: ignore[arg-type]
        moved, noise = ((path[step] - path[step + 1]) / unit for path in (loud, silent))
        rows.append(_take_apart(moved, noise, gradients))
    lengths, sizes, rest, scale, left = (np.array(column) for column in zip(*rows, strict=True))
    norms = [np.linalg.norm(path, axis=1) for path in (loud, silent)]
    rounding = FLOAT32 / unit * sum(norm[:-1][:steps] + norm[1:][:steps] for norm in norms)
    return Twin(lengths, sizes, rest, rounding, _levels(plan, lengths, sizes, left), left, scale)


def _take_apart(moved: Floats, noise: Floats, gradients: Floats) -> tuple[Floats, Floats, float, float, Floats]:
    sizes = np.linalg.norm(gradients, axis=1)
    shows = sizes > FAINT
    loudness = max(float(np.linalg.norm(noise)), 1e-30)
    columns = np.vstack([noise / loudness, gradients[shows] / sizes[shows, None]])
    found = np.linalg.lstsq(columns @ columns.T, columns @ moved, rcond=None)[0]
    lengths = np.zeros(len(sizes))
    lengths[shows] = found[1:]
    rest = moved - found @ columns
    return lengths, sizes, float(np.linalg.norm(rest)), float(found[0] / loudness), moved - found[1:] @ columns[1:]


def _levels(plan: Plan, lengths: Floats, sizes: Floats, noise: Floats) -> Floats:
    """Each step's clip norm, in the plan's. Where it moves: of those that it cuts, or else as the noise has it."""
    if not isinstance(plan, MechanismPlan) or plan.adaptive is None:
        return np.ones(len(lengths))
    found = []
    for mine, full, draws in zip(lengths, sizes, noise, strict=True):
        cut = (mine > FAINT) & (mine < (1 - 2 * OFF) * full)
        by_noise = float(np.sqrt(np.mean(draws**2))) / noise_per_release(plan)
        found.append(float(np.median(mine[cut])) if cut.any() else by_noise)
    return np.array(found)
