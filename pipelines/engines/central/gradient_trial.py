"""The trial that a fast way to clipped sums must pass before it trains, because epsilon depends on the clipping.

The trial compares a way with autograd, one example after the other, on the plain module in double precision. This
reference shares no code with a fast way. The norms of the gradients span decades, since inputs range from zero to a
thousand and labels are those that the model expects most or least. The clip norms clip no example, half of them, and
all. A way that clips layers or tensors separately, forgets a bias, or mixes up the examples' factors cannot pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import log, prod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipelines.engines.central.training import TrainState
from pipelines.model.spec import ModelSpec

Sums = Callable[[Tensor, float], tuple[list[Tensor], Tensor]]
"""Maps a sample, indices (n,), and a clip norm to clipped sums, in the shapes of the parameters, and squared norms."""

SCALES = (0.0, 1e-3, 0.1, 0.3, 0.5, 0.8, 1.0, 1.0, 3.0, 30.0, 300.0, 1e3)  # of the inputs, one for each example
EXPECTED = 8  # among this many first examples, every other one has the label that the model expects
LEAD = 6.0  # added to the logit of class 0: an expected label gives a gradient that is hundreds of times smaller
SAMPLE = (7, 3, 3, 0, 11, 10, 9, 8, 1, 2, 3, 4, 5, 6, 0, 11)  # not sorted, and with repetitions
LONG = 20  # repetitions of `SAMPLE` that make a sample as long as those of runs
GUARD = 1e-6  # Opacus' guard against division by zero
ROUNDING, TYPICAL, TIES = 1e-4, 5e-3, 0.05
"""Tolerances. ROUNDING: of a contribution's norm, against the norm that it was scaled by. TYPICAL and TIES: of half of
the examples and of all, against autograd. Rounding may decide which of two nearly equal values is the maximum, and so
turn one example's gradient a little; a wrong way turns all of them."""


class TrialError(RuntimeError):
    """A way to clipped sums does not compute what autograd does."""


def require_sound(build: Callable[[TrainState], Sums], state: TrainState, spec: ModelSpec) -> None:
    """Tries a method for clipped sums on a problem made for this trial.

    Args:
      build: makes the method for a model and examples.
      state: the run's state; its module is copied.
      spec: the model's architecture.

    Raises:
      TrialError: the method under trial does not clip an example's gradient as a whole, its gradient differs from
      autograd's, or other examples change its contribution.
    """
    problem = _problem(state, spec)
    ours, everyone = build(problem), torch.arange(len(SCALES), device=state.device)
    norms = ours(everyone, 1.0)[1].sqrt()
    if not torch.isfinite(norms).all():
        raise TrialError("gives norms that are not finite for finite gradients")
    # The comparison of the norms shows whether these really clip no example, half of them, and all.
    clip_norms = 2 * float(norms.max()), float(norms.median()), max(float(norms.min()) / 2, GUARD)
    with _exactly(threads=1):  # with more threads, each example could have its own thread, and so its own memory
        totals, sizes = _alone(ours, problem, clip_norms)
        for clip_norm, total in zip(clip_norms, totals, strict=True):
            _require_sum(ours, clip_norm, total, sizes)
    with _exactly(threads=torch.get_num_threads()):  # as in the run
        _require_sum(ours, clip_norms[1], totals[1], sizes)
        _require_sum(ours, clip_norms[1], totals[1], sizes, times=LONG)


def require_separate(module: nn.Module, spec: ModelSpec) -> None:
    """Compares a model's outputs for a batch with those for one example after the other.

    Raises:
      TrialError: they differ, so examples influence each other.
    """
    copy, usual = _copy(module, spec), [k for k, scale in enumerate(SCALES) if 0.1 <= scale <= 1]
    inputs = _inputs(spec)[usual].to(next(module.parameters()).device)
    with torch.inference_mode():
        together, alone = copy(inputs), torch.cat([copy(one) for one in inputs.split(1)])
    if not float((together - alone).abs().max()) <= TYPICAL * float(alone.abs().max()):
        raise TrialError("gives an example different outputs in a batch than alone")


def _inputs(spec: ModelSpec) -> Tensor:
    noise = torch.rand((len(SCALES), *spec.features), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise * torch.tensor(SCALES).view(-1, *[1] * len(spec.features))


def _copy(module: nn.Module, spec: ModelSpec) -> nn.Module:
    """The model with weights of the usual size, none of them zero, and logits that favour class 0."""
    copy, draw = deepcopy(module), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.parameters():
            spread = prod(parameter.shape[1:]) ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, generator=draw))
        parameter[0] += LEAD + log(max(spec.classes - 1, 1))  # the last one is the bias of the logits
    return copy


def _problem(state: TrainState, spec: ModelSpec) -> TrainState:
    """The model, and examples whose gradients differ by decades."""
    module, inputs = _copy(state.module, spec), _inputs(spec).to(state.device)
    assert isinstance(module, nn.Sequential)
    with torch.inference_mode():
        logits = module(inputs)
    labels = logits.argmin(1)
    labels[:EXPECTED:2] = logits[:EXPECTED:2].argmax(1)
    return replace(state, module=module, released=module, inputs=inputs, labels=labels.clone())


def _alone(ours: Sums, problem: TrainState, clip_norms: tuple[float, ...]) -> tuple[list[Tensor], Tensor]:
    """Tries the examples one at a time.

    Returns:
      For each clip norm, the flat sum over `SAMPLE` of the contributions; and the examples' norms (n,).

    Raises:
      TrialError: an example's contribution is not autograd's gradient, scaled as a whole.
    """
    reference, sizes, errors = deepcopy(problem.module).double(), [], []
    totals = [torch.zeros((), dtype=torch.float64, device=problem.device) for _ in clip_norms]
    for example in range(len(SCALES)):
        one = torch.tensor([example], device=problem.device)
        gradient = _gradient(reference, problem.inputs[one].double(), problem.labels[one])
        for k, clip_norm in enumerate(clip_norms):
            sums, squared = ours(one, clip_norm)
            found, norm = _flat(sums), float(squared.sqrt())
            error = float(found.norm()) / max(_bounded(norm, clip_norm) * norm, GUARD) - 1
            if not abs(error) <= ROUNDING:
                raise TrialError(f"clips to a norm that is off by {error:.2%}")
            truth = gradient * _bounded(float(gradient.norm()), clip_norm)
            errors += [float((found - truth).norm() / truth.norm()), abs(norm / float(gradient.norm()) - 1)]
            totals[k] = totals[k] + SAMPLE.count(example) * found
        sizes.append(norm)
    if not (max(errors) <= TIES and sorted(errors)[len(errors) // 2] <= TYPICAL):
        raise TrialError(f"has gradients that are off by up to {max(errors):.1%}")
    return totals, torch.tensor(sizes)


def _bounded(norm: float, clip_norm: float) -> float:
    """Returns the factor that clips a gradient; the formula is Opacus'."""
    return min(1.0, clip_norm / (norm + GUARD))


def _require_sum(ours: Sums, clip_norm: float, expected: Tensor, sizes: Tensor, *, times: int = 1) -> None:
    """Tries all examples at once; `times` repeats the sample.

    Raises:
      TrialError: the sum or the norms are not those of single examples.
    """
    sums, squared = ours(torch.tensor(SAMPLE * times, device=expected.device), clip_norm)
    if not float((_flat(sums) / times - expected).norm()) <= TIES * float(sizes.max().clamp(max=clip_norm)):
        raise TrialError("lets one example change what another adds")
    alone = sizes[list(SAMPLE * times)]
    if not bool(((squared.sqrt().cpu() - alone).abs() <= TIES * alone).all()):
        raise TrialError("gives an example the norm of another")


def _gradient(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the gradient of one example's cross-entropy, flat."""
    return _flat(torch.autograd.grad(cross_entropy(module(inputs), labels), list(module.parameters())))


def _flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


@contextmanager
def _exactly(*, threads: int) -> Iterator[None]:
    """Sets the number of threads, and turns off TF32 (short mantissas) in a GPU's convolutions."""
    before, short = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = short
