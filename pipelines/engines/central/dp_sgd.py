"""Differentially private SGD with Opacus, over examples or over users.

Opacus supplies the optimizer: it adds noise once per logical step and divides by a public constant. The clipped sums
come from Opacus or from our own book-keeping. Sampling is our own, because Opacus' loader derives its rate from the
length of the private data.

Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1, with Poisson sampling; adaptive clipping of
Andrew et al. 2021, arXiv:1905.03871.
"""

import logging
from functools import lru_cache

import numpy as np
import torch
from opacus.validators import ModuleValidator
from torch import nn

from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.core.errors import GuaranteeError, UserError
from pipelines.core.randomness import private_streams
from pipelines.data.partition.division import Partition
from pipelines.engines.central.book_keeping import supports
from pipelines.engines.central.gradient_trial import TrialError, require_separate
from pipelines.engines.central.gradients import Mode, PrivateGradients, private_gradients
from pipelines.engines.central.training import Hardware, StepRecorder, TrainState, learning_rate, set_learning_rate
from pipelines.engines.central.users import UserUpdates, canary_updates
from pipelines.engines.interface import Fit, OnRound, TrainingData, require_partition
from pipelines.model.spec import ModelSpec
from pipelines.privacy.execution_checks import require_event
from pipelines.privacy.mechanisms.base import Mechanism, PrivacyUnit

_Engine = tuple[TrainState, PrivateGradients]
logger = logging.getLogger(__name__)


class DpSgd:
    """Runs a mechanism plan whose units are examples, or users of the partition."""

    def __init__(
        self, settings: DpSgdConfig | DpSgdUsersConfig, plan: Mechanism, *, noise_seed: int | None, hardware: Hardware
    ) -> None:
        """Holds settings and plan, not data.

        Args:
          settings: the optimizer, and how a step is computed; their type decides the unit.
          plan: the mechanism, for the same unit.
          noise_seed: determines samples, users' orders and noise; None draws them from the operating system's entropy.
            One seed gives users the same cohorts and orders as `dp_fed_avg`.
          hardware: device and threads.

        Raises:
          UserError: the way to compute steps does not support the clipping.
          ValueError: the plan is for another unit.
        """
        if isinstance(settings, DpSgdUsersConfig) != (plan.unit is PrivacyUnit.USER):
            raise ValueError(f"a plan whose unit is {plan.unit} does not fit {settings.name}")
        way = settings.grad_sample if isinstance(settings, DpSgdConfig) else "auto"
        if plan.adaptive is not None and way in ("hooks", "functorch"):
            raise UserError(
                f"privacy=adaptive needs the norm of every gradient, which "
                f"pipeline.grad_sample={way} keeps to itself; use pipeline.grad_sample=auto"
            )
        if plan.restart_every is not None:
            raise UserError(f"privacy={plan.name} is for pipeline=dp_fed_avg; use privacy=fixed here")
        self._settings, self._plan, self._noise_seed, self._hardware = settings, plan, noise_seed, hardware

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains for the plan's steps; the fit's executed plan holds those that ran.

        Raises:
          UserError: the plan is for users, and there is no partition.
          DivergedError: a weight is not finite.
          GuaranteeError: the noise in use is not the plan's.
        """
        settings, plan = self._settings, self._plan
        by_user = isinstance(settings, DpSgdUsersConfig)
        units = len(_users(data)) if by_user else len(data.labels)
        names = ("cohorts", "noise", "batch_order") if by_user else ("sampling", "noise")
        stream, *others = private_streams(self._noise_seed, *names)
        if isinstance(settings, DpSgdUsersConfig):
            state, gradients = self._over_users(settings, data, *others)
        else:
            state, gradients = self._over_examples(settings, data, *others)
        sampler, seen = plan.sampler(units, stream), plan.participation(units)
        recorder = StepRecorder(plan.steps, on_round, state, settings.ema_decay, plan, seen)
        for step in range(1, plan.steps + 1):
            sample = sampler.draw()
            seen.observe(sample)
            set_learning_rate(gradients.optimizer, learning_rate(settings, step, plan.steps))
            gradients.step(torch.from_numpy(sample).to(state.device))
            require_event(plan, gradients.optimizer.dp_event)
            record = recorder.tick(step, step * plan.expected_batch_size)
        gradients.close()
        facts = {**state.facts(), **gradients.facts}
        if plan.adaptive is not None:  # the norm follows noised counts only, so it is as public as the weights
            facts["final_clip_norm"] = f"{gradients.optimizer.max_grad_norm:.6g}"
        return Fit(record=record, executed=plan.executed(step), facts=facts, sampler=seen.verdict())

    def _over_examples(self, settings: DpSgdConfig, data: TrainingData, noise: np.random.Generator) -> _Engine:
        adaptive = self._plan.adaptive is not None
        mode = choose(settings, data.spec, adaptive=adaptive)
        try:
            return self._in_mode(mode, settings, data, noise)
        except TrialError as flaw:
            return self._in_mode(_without_book_keeping(settings, flaw, adaptive=adaptive), settings, data, noise)

    def _in_mode(self, mode: Mode, settings: DpSgdConfig, data: TrainingData, noise: np.random.Generator) -> _Engine:
        state = self._train_state(data, contiguous=mode != "book_keeping")
        _require_separate_examples(state.module, data.spec)
        return state, private_gradients(mode, state, data.spec, settings, self._plan, noise)

    def _train_state(self, data: TrainingData, *, contiguous: bool = False) -> TrainState:
        averaged = self._settings.ema_decay > 0
        return TrainState.of(data, self._hardware, contiguous=contiguous, averaged=averaged)

    def _over_users(
        self, settings: DpSgdUsersConfig, data: TrainingData, noise: np.random.Generator, order: np.random.Generator
    ) -> _Engine:
        state = self._train_state(data)
        _require_separate_examples(state.module, data.spec)
        gradients = UserUpdates(
            state, _users(data), settings, self._plan, noise=noise, order=order,
            canaries=canary_updates(data, state.device),
        )  # fmt: skip
        return state, gradients


def _users(data: TrainingData) -> Partition:
    return require_partition(data, "pipeline=dp_sgd_users needs users")


def _require_separate_examples(module: nn.Module, spec: ModelSpec) -> None:
    """Refuses layers that mix examples, such as batch normalisation: with them, clipping bounds nothing.

    Opacus' own check skips layers without trainable weights, but these can mix examples too. A comparison of outputs
    finds layers that are on no list.

    Raises:
      GuaranteeError: a layer mixes examples, or keeps what it saw.
    """
    for layer in module.modules():
        mixes = bool(ModuleValidator.VALIDATORS.get(type(layer), _no_objection)(layer))
        if mixes or next(layer.buffers(recurse=False), None) is not None:
            raise GuaranteeError(
                f"the model has a {type(layer).__name__}, which mixes examples or keeps what it saw: clipping would "
                "bound no example; use layers that see one example at a time"
            )
    try:
        require_separate(module, spec)
    except TrialError as flaw:
        raise GuaranteeError(
            f"model={spec.name} {flaw}: clipping would bound no example; use layers that see one example at a time"
        ) from None


def _no_objection(layer: nn.Module) -> list[Exception]:
    return []


def choose(settings: DpSgdConfig, spec: ModelSpec, *, adaptive: bool = False) -> Mode:
    """Resolves `grad_sample`: auto is book_keeping for every model that it knows, and one of Opacus' modes otherwise.

    Args:
      settings: contain `grad_sample`.
      spec: the architecture.
      adaptive: whether the clip norm follows the norms of the gradients; among Opacus' modes only ghost gives them.

    Raises:
      UserError: the settings name book_keeping, and it does not know a layer of the model.
    """
    if settings.grad_sample == "auto":
        return "book_keeping" if supports(spec) else "ghost" if adaptive else "hooks"
    if settings.grad_sample == "book_keeping" and not supports(spec):
        raise UserError(
            f"pipeline.grad_sample=book_keeping does not know every layer of model={spec.name}; "
            "use pipeline.grad_sample=auto"
        )
    return settings.grad_sample


def _without_book_keeping(settings: DpSgdConfig, flaw: TrialError, *, adaptive: bool) -> Mode:
    """Returns the mode of Opacus that replaces book-keeping after it failed its trial.

    Raises:
      GuaranteeError: the settings name book_keeping.
    """
    if settings.grad_sample == "book_keeping":
        raise GuaranteeError(
            f"pipeline.grad_sample=book_keeping fails its trial: book-keeping {flaw}, so the epsilon would be false; "
            "use pipeline.grad_sample=auto"
        ) from None
    mode: Mode = "ghost" if adaptive else "hooks"
    _warn_once(f"gradients are computed by Opacus (grad_sample={mode}), several times slower: book-keeping {flaw}")
    return mode


@lru_cache
def _warn_once(message: str) -> None:
    logger.warning(message)
