"""Every mutant is caught by the check that the table names, and the product as it is passes every check."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.tracking.run_log import REFUTED_TAG
from tests.mutants import accounting, aggregation, banded, central, checks, clipping, federated, noise, samples

EXAMPLES = ("pipeline=dp_sgd", "pipeline.batch_size=359", "pipeline.epochs=15", "privacy.noise_multiplier=2")
STATED = (*EXAMPLES, "privacy.population=1437")
SMALL = ("pipeline=dp_sgd", "pipeline.batch_size=1", "pipeline.epochs=0.3", "privacy.noise_multiplier=2")
CLIENTS = ("partition.clients=80", "privacy.noise_multiplier=2")
MANY = ("partition.clients=240", "privacy.noise_multiplier=2")
USERS = ("pipeline=dp_fed_avg", "pipeline.clients_per_round=40", "pipeline.rounds=25", *CLIENTS)
TREES = ("pipeline=dp_fed_avg", "privacy=tree", "pipeline.clients_per_round=60", "pipeline.rounds=8", *MANY)
ADAPTIVE = (*USERS, "privacy=adaptive")
ADAPTIVE_EXAMPLES = (*EXAMPLES, "privacy=adaptive")
MODEL = "model=mlp"
OWN = (*EXAMPLES, MODEL)
IMAGES = (*EXAMPLES, "model=cnn")
HOOKS, GHOST, FAST = (f"pipeline.grad_sample={mode}" for mode in ("hooks", "ghost", "book_keeping"))
OWN_USERS, IMAGE_USERS, OWN_TREES = (*USERS, MODEL), (*USERS, "model=cnn"), (*TREES, MODEL)
STOCK = (*OWN_USERS, "pipeline.engine=stock")
SECURE = (*OWN_USERS, "pipeline.secure_aggregation=true")
BANDED = ("privacy=banded", "privacy.bands=4", MODEL)
BANDED_EXAMPLES = (
    "pipeline=dp_sgd",
    "pipeline.batch_size=64",
    "pipeline.epochs=3",
    "privacy.noise_multiplier=2",
    *BANDED,
)
BANDED_USERS = ("pipeline=dp_fed_avg", "pipeline.clients_per_round=20", "pipeline.rounds=24", *MANY, *BANDED)
BANDED_STOCK, BANDED_SECURE = (
    (*BANDED_USERS, extra) for extra in ("pipeline.engine=stock", "pipeline.secure_aggregation=true")
)
CENTRAL_USERS = ("pipeline=dp_sgd_users", "pipeline.batch_size=40", "pipeline.epochs=12", *CLIENTS)

AUDIT, RUN, SAMPLER, TRIAL = "mechanism audit", "conformity of the run", "sampler test", "trial of clipped sums"
CHECKS: dict[str, checks.Check] = {
    AUDIT: checks.mechanism_audit, RUN: checks.run, SAMPLER: checks.run, TRIAL: checks.run,
    "model validator": checks.run, "held-out test split": checks.run,
    "three accountants": checks.run, "public plan": checks.run,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A deliberate privacy bug.

    Attributes:
      name: what is wrong.
      plant: puts it into the running program.
      check: of `CHECKS`, that must catch it.
      overrides: of the configuration on which it does.
      words: what the check says, a regular expression.
    """

    name: str
    plant: Callable[[pytest.MonkeyPatch], None]
    check: str
    overrides: tuple[str, ...]
    words: str


NOISE, SENSITIVITY, LAW = (
    r"noise .*has a multiplier of",
    "clip norms, not 1|not finite reaches",
    "the sampler contradicts its plan",
)
ANY = "REFUTES THIS RUN"
MUTANTS = [
    Mutant("noise at half scale, PyTorch", central.half_noise, AUDIT, EXAMPLES, NOISE),
    Mutant("noise at half scale, TensorFlow", federated.half_noise, AUDIT, USERS, NOISE),
    Mutant("noise of each physical batch's share", central.share_of_noise, AUDIT, EXAMPLES, NOISE),
    Mutant("noise at half scale on the nodes of a tree", federated.half_node_noise, AUDIT, TREES, NOISE),
    Mutant("count noise at half scale", central.half_count_noise, AUDIT, ADAPTIVE_EXAMPLES, f"on the count .*{NOISE}"),
    Mutant("no count noise", central.no_count_noise, AUDIT, ADAPTIVE_EXAMPLES, f"on the count .*{NOISE}"),
    Mutant("the same noise in every step, PyTorch", central.frozen_noise, AUDIT, EXAMPLES, "noise"),
    Mutant("the same noise in every round, TensorFlow", federated.frozen_key, AUDIT, USERS, "noise"),
    Mutant("no noise on the bias", central.bare_bias, AUDIT, EXAMPLES, NOISE),
    Mutant("no clipping, PyTorch", central.no_clipping, AUDIT, EXAMPLES, SENSITIVITY),
    Mutant("no clipping, TensorFlow", federated.no_clipping, AUDIT, USERS, SENSITIVITY),
    Mutant("no clipping of users, PyTorch", central.unclipped_users, AUDIT, CENTRAL_USERS, SENSITIVITY),
    Mutant("clipping to twice the norm", central.clip_twice, AUDIT, EXAMPLES, SENSITIVITY),
    Mutant("clipping of the batch's mean", central.mean_clipped, AUDIT, EXAMPLES, SENSITIVITY),
    Mutant("clipping after summing", federated.clipped_after_summing, AUDIT, USERS, SENSITIVITY),
    Mutant(
        "expected batch size from the realised batch",
        central.realised_normaliser,
        AUDIT,
        EXAMPLES,
        f"{SENSITIVITY}|{NOISE}",
    ),
    Mutant("users weighted by their examples", central.weighted_users, AUDIT, CENTRAL_USERS, SENSITIVITY),
    Mutant("empty batches skipped", central.skipped_empty, AUDIT, EXAMPLES, "where samples are empty, noise"),
    Mutant("layers clipped one by one, PyTorch", clipping.layers_apart, AUDIT, OWN, ANY),
    Mutant("tensors clipped one by one, PyTorch", clipping.tensors_apart, AUDIT, OWN, ANY),
    Mutant("tensors clipped one by one, Opacus' hooks", clipping.tensors_apart_in_hooks, AUDIT, (*OWN, HOOKS), ANY),
    Mutant("tensors of users clipped one by one", clipping.users_tensors_apart, AUDIT, (*CENTRAL_USERS, MODEL), ANY),
    Mutant("users clipped example by example", clipping.users_batch_by_batch, AUDIT, (*CENTRAL_USERS, MODEL), ANY),
    Mutant("ghost norms without biases", clipping.ghost_without_biases, AUDIT, (*OWN, GHOST), ANY),
    Mutant("clip factors without biases", clipping.without_biases, AUDIT, OWN, ANY),
    Mutant("clip factors of the last layer", clipping.last_layer, AUDIT, OWN, ANY),
    Mutant("clip factors of the next example", clipping.next_factor, AUDIT, OWN, ANY),
    Mutant("clip factors of the step before", clipping.stale_factors, AUDIT, OWN, ANY),
    Mutant("two updates a step, one accounted", clipping.two_updates_a_step, AUDIT, OWN, ANY),
    Mutant("a kernel that forgets dense biases, untried", clipping.kernel_without_dense_bias, AUDIT, IMAGES, ANY),
    Mutant("a kernel that forgets conv biases, untried", clipping.kernel_without_conv_bias, AUDIT, IMAGES, ANY),
    Mutant("a kernel with the factor before, untried", clipping.kernel_with_stale_factor, AUDIT, IMAGES, ANY),
    Mutant("a kernel that clips layers apart, untried", clipping.kernel_layer_by_layer, AUDIT, IMAGES, ANY),
    Mutant("book-keeping that forgets dense biases, untried", clipping.wrong_dense_untried, AUDIT, OWN, ANY),
    Mutant("book-keeping that forgets conv biases, untried", clipping.wrong_conv_untried, AUDIT, IMAGES, ANY),
    Mutant("tensors clipped one by one, TensorFlow", aggregation.tensors_apart, AUDIT, OWN_USERS, ANY),
    Mutant("tensors clipped one by one, tff.learning", aggregation.tensors_apart, AUDIT, STOCK, ANY),
    Mutant("tensors clipped one by one, trees", aggregation.tensors_apart, AUDIT, OWN_TREES, ANY),
    Mutant("clip factors without biases, TensorFlow", aggregation.without_biases, AUDIT, OWN_USERS, ANY),
    Mutant("clip factors of the last layer, TensorFlow", aggregation.last_layer, AUDIT, OWN_USERS, ANY),
    Mutant("coordinates clipped one by one, secure sums", aggregation.coordinates_apart, AUDIT, SECURE, ANY),
    Mutant("no clipping, secure sums", federated.no_clipping, AUDIT, SECURE, ANY),
    Mutant(
        "expected batch size from the realised cohort, TensorFlow",
        aggregation.realised_normaliser,
        AUDIT,
        OWN_USERS,
        ANY,
    ),
    Mutant("noise on the first tensor alone, PyTorch", noise.first_tensor_alone, AUDIT, OWN, ANY),
    Mutant("noise on the last tensor alone, PyTorch", noise.last_tensor_alone, AUDIT, OWN, ANY),
    Mutant("no noise on biases, PyTorch", noise.not_on_biases, AUDIT, OWN, ANY),
    Mutant("half the noise on convolutions, PyTorch", noise.half_on_convolutions, AUDIT, IMAGES, ANY),
    Mutant("noise only where somebody contributes, PyTorch", noise.touched_alone, AUDIT, OWN, ANY),
    Mutant("tensors share their noise, PyTorch", noise.shared_by_tensors, AUDIT, OWN, ANY),
    Mutant("noise tiled within a tensor, PyTorch", noise.tiled, AUDIT, OWN, ANY),
    Mutant("noise again after 2 steps, PyTorch", noise.repeated_after(2), AUDIT, OWN, ANY),
    Mutant("noise again after 5 steps, PyTorch", noise.repeated_after(5), AUDIT, OWN, ANY),
    Mutant("noise again after 20 steps, PyTorch", noise.repeated_after(20), AUDIT, OWN, ANY),
    Mutant("noise from a pool of eight, PyTorch", noise.pool_of_eight, AUDIT, OWN, ANY),
    Mutant("one noise with either sign, PyTorch", noise.flipped, AUDIT, OWN, ANY),
    Mutant("noise taken off in the next step, PyTorch", noise.mirrored, AUDIT, OWN, ANY),
    Mutant("noise from the number of the step, PyTorch", noise.of_the_step, AUDIT, OWN, ANY),
    Mutant("uniform noise, PyTorch", noise.uniform, AUDIT, OWN, ANY),
    Mutant("noise of coin tosses, PyTorch", noise.coin_toss, AUDIT, OWN, ANY),
    Mutant("Laplace noise, PyTorch", noise.laplace, AUDIT, OWN, ANY),
    Mutant("noise cut at its tails, PyTorch", noise.truncated, AUDIT, OWN, ANY),
    Mutant("noise of coin tosses on the last bias", noise.last_bias_tossed, AUDIT, IMAGES, ANY),
    Mutant("noise of the last bias in two steps", noise.last_bias_in_two_steps, AUDIT, OWN, ANY),
    Mutant("one noise for the whole last bias", noise.last_bias_in_common, AUDIT, IMAGES, ANY),
    Mutant("noise only where it is reproducible", central.noise_only_with_a_seed, AUDIT, EXAMPLES, ANY),
    Mutant("large samples unclipped, untried", clipping.large_samples_unclipped, AUDIT, OWN, ANY),
    Mutant("noise of cosines, PyTorch", noise.cosine, AUDIT, OWN, ANY),
    Mutant(
        "noise at the first clip norm, PyTorch", noise.at_the_first_clip_norm, AUDIT, (*OWN, "privacy=adaptive"), ANY
    ),
    Mutant("half the noise, Opacus' hooks", central.half_noise_in_hooks, AUDIT, (*OWN, HOOKS), ANY),
    Mutant("noise on the first tensor alone, TensorFlow", aggregation.first_tensor_alone, AUDIT, OWN_USERS, ANY),
    Mutant("noise on the last tensor alone, TensorFlow", aggregation.last_tensor_alone, AUDIT, OWN_USERS, ANY),
    Mutant("no noise on biases, TensorFlow", aggregation.not_on_biases, AUDIT, OWN_USERS, ANY),
    Mutant("half the noise on convolutions, TensorFlow", aggregation.half_on_convolutions, AUDIT, IMAGE_USERS, ANY),
    Mutant("noise only where somebody contributes, TensorFlow", aggregation.touched_alone, AUDIT, OWN_USERS, ANY),
    Mutant("tensors share their noise, TensorFlow", aggregation.shared_by_tensors, AUDIT, OWN_USERS, ANY),
    Mutant("noise tiled within a tensor, TensorFlow", aggregation.tiled, AUDIT, OWN_USERS, ANY),
    Mutant("noise again after 2 rounds, TensorFlow", aggregation.repeated_every(2), AUDIT, OWN_USERS, ANY),
    Mutant("noise again after 5 rounds, TensorFlow", aggregation.repeated_every(5), AUDIT, OWN_USERS, ANY),
    Mutant("noise again after 20 rounds, TensorFlow", aggregation.repeated_every(20), AUDIT, OWN_USERS, ANY),
    Mutant("the same keys in every run, TensorFlow", aggregation.known_keys, AUDIT, OWN_USERS, ANY),
    Mutant("uniform noise, TensorFlow", aggregation.uniform, AUDIT, OWN_USERS, ANY),
    Mutant("noise of coin tosses, tff.learning", aggregation.coin_toss, AUDIT, STOCK, ANY),
    Mutant("count noise at half scale, TensorFlow", aggregation.count_noise_times(0.5), AUDIT, ADAPTIVE, ANY),
    Mutant("no count noise, TensorFlow", aggregation.count_noise_times(0.0), AUDIT, ADAPTIVE, ANY),
    Mutant("noise at the first clip norm, TensorFlow", aggregation.at_the_first_clip_norm, AUDIT, ADAPTIVE, ANY),
    Mutant("the same noise in every tree", aggregation.same_trees, AUDIT, OWN_TREES, ANY),
    Mutant("the same noise on every node of a tree", federated.frozen_key, AUDIT, OWN_TREES, ANY),
    Mutant("no noise in a tree's first round", aggregation.bare_first_rounds, AUDIT, OWN_TREES, ANY),
    Mutant("independent noise for correlated, PyTorch", banded.independent, AUDIT, BANDED_EXAMPLES, ANY),
    Mutant("correlated noise without memory, PyTorch", banded.forgetful, AUDIT, BANDED_EXAMPLES, ANY),
    Mutant(
        "correlated noise without the last band, PyTorch", banded.without_the_last_band, AUDIT, BANDED_EXAMPLES, ANY
    ),
    Mutant("correlated noise in reverse order, PyTorch", banded.backwards, AUDIT, BANDED_EXAMPLES, ANY),
    Mutant("sums in the memory of correlated noise, PyTorch", banded.overwritten, AUDIT, BANDED_EXAMPLES, ANY),
    Mutant("correlated noise of columns of length 2, PyTorch", banded.long_columns, AUDIT, BANDED_EXAMPLES, NOISE),
    Mutant("independent noise for correlated, TensorFlow", banded.independent_rounds, AUDIT, BANDED_USERS, ANY),
    Mutant("correlated noise without memory, TensorFlow", banded.forgetful_rounds, AUDIT, BANDED_USERS, ANY),
    Mutant(
        "correlated noise without the last band, TensorFlow",
        banded.rounds_without_the_last_band,
        AUDIT,
        BANDED_USERS,
        ANY,
    ),
    Mutant("correlated noise without memory, tff.learning", banded.forgetful_rounds, AUDIT, BANDED_STOCK, ANY),
    Mutant("independent noise for correlated, secure sums", banded.independent_rounds, AUDIT, BANDED_SECURE, ANY),
    Mutant("every second sample trained twice, groups in turn", samples.former_again, AUDIT, BANDED_EXAMPLES, ANY),
    Mutant("every second sample trained twice, PyTorch", samples.former_again, AUDIT, OWN, ANY),
    Mutant("every second sample trained twice, Opacus' hooks", samples.former_again, AUDIT, (*OWN, HOOKS), ANY),
    Mutant("every second cohort trained twice, PyTorch", samples.former_again, AUDIT, (*CENTRAL_USERS, MODEL), ANY),
    Mutant("every second cohort trained twice, TensorFlow", samples.former_again, AUDIT, OWN_USERS, ANY),
    Mutant("every second cohort trained twice, tff.learning", samples.former_again, AUDIT, STOCK, ANY),
    Mutant("every second cohort trained twice, trees", samples.former_again, AUDIT, OWN_TREES, ANY),
    Mutant("samples trained again after three steps, PyTorch", samples.three_before, AUDIT, OWN, ANY),
    Mutant("cohorts trained again after three rounds, TensorFlow", samples.three_before, AUDIT, OWN_USERS, ANY),
    Mutant("one sample in every step, PyTorch", samples.one_sample, AUDIT, OWN, ANY),
    Mutant("one cohort in every round, TensorFlow", samples.one_sample, AUDIT, OWN_USERS, ANY),
    Mutant("one example in every step, PyTorch", samples.one_always, AUDIT, OWN, ANY),
    Mutant("one user in every round, TensorFlow", samples.one_always, AUDIT, OWN_USERS, ANY),
    Mutant("shuffled batches as Poisson", central.shuffled, SAMPLER, EXAMPLES, LAW),
    Mutant("fixed cohorts as Poisson", central.fixed_cohort, SAMPLER, USERS, LAW),
    Mutant("empty batches drawn again", central.never_empty, SAMPLER, SMALL, LAW),
    Mutant("twice the sampling probability", central.larger_q, SAMPLER, EXAMPLES, LAW),
    Mutant("twice the probability within groups", banded.twice_the_probability, SAMPLER, BANDED_EXAMPLES, LAW),
    Mutant("fixed cohorts of groups in turn", banded.samples_of_one_size, SAMPLER, BANDED_USERS, LAW),
    Mutant("book-keeping that forgets dense biases", clipping.wrong_dense, TRIAL, (*OWN, FAST), "fails its trial"),
    Mutant("book-keeping that forgets conv biases", clipping.wrong_conv, TRIAL, (*IMAGES, FAST), "fails its trial"),
    Mutant("zeroing by an unnoised quantile", federated.zeroing, RUN, USERS, "keeps more state"),
    Mutant("noise at half scale, honestly reported", federated.half_stddev, RUN, USERS, "reports noise_multiplier=1 "),
    Mutant("count noise not accounted, TensorFlow", accounting.free_count, RUN, ADAPTIVE, "noise_multiplier=2 "),
    Mutant("count noise not accounted, PyTorch", accounting.free_count, RUN, ADAPTIVE_EXAMPLES, "noise_multiplier=2 "),
    Mutant("a user twice in a tree", federated.repeated_turns, RUN, TREES, "has each user at most once"),
    Mutant("groups ignored by the sampler", banded.groups_ignored, RUN, BANDED_EXAMPLES, "take turns"),
    Mutant("turns that shift by one each cycle", banded.shifted_turns, RUN, BANDED_EXAMPLES, "take turns"),
    Mutant("turns back and forth", banded.back_and_forth, RUN, BANDED_USERS, "take turns"),
    Mutant("a unit in two groups", banded.in_two_groups, RUN, BANDED_USERS, "take turns"),
    Mutant("coefficients not scaled to unit columns", banded.unscaled_coefficients, RUN, BANDED_EXAMPLES, "outgrow"),
    Mutant("one step fewer accounted", accounting.one_step_fewer, RUN, EXAMPLES, "steps=59 instead of 60"),
    Mutant("delta changed after calibration", accounting.delta_changed, RUN, EXAMPLES, "delta=0.0005 instead"),
    Mutant("plan changed after accounting", accounting.quieter_engine, RUN, EXAMPLES, "noise_multiplier=1.0 instead"),
    Mutant("one seed for noise and sampling", central.one_stream, RUN, EXAMPLES, "same random numbers"),
    Mutant("the same seed in every run", central.constant_streams, RUN, EXAMPLES, "drawn again without a seed"),
    Mutant("clip norm changed after accounting", accounting.wider_clip, RUN, EXAMPLES, "clip_norm="),
    Mutant("batch normalisation in the model", central.batch_norm, "model validator", EXAMPLES, "BatchNorm"),
    Mutant(
        "a layer that divides by the batch", clipping.over_the_batch, "model validator", OWN, "in a batch than alone"
    ),
    Mutant("test data in training", accounting.leak, "held-out test split", EXAMPLES, "100% of the test examples"),
    Mutant("epsilon by the central limit theorem", accounting.central_limit, "three accountants", EXAMPLES, "low"),
    Mutant("epsilon of half the steps", accounting.half_the_steps, "three accountants", EXAMPLES, "low"),
    Mutant("epsilon of half the probability", accounting.half_the_probability, "three accountants", EXAMPLES, "low"),
    Mutant("q from the private size", accounting.private_size, "public plan", STATED, "private number of units"),
]


IN_EVERY_SUITE = {
    "noise at half scale, TensorFlow", "noise at half scale on the nodes of a tree", "clipping after summing",
    "tensors clipped one by one, TensorFlow", "no noise on biases, TensorFlow",
    "noise again after 5 rounds, TensorFlow", "uniform noise, TensorFlow", "the same keys in every run, TensorFlow",
    "the same noise in every tree", "every second cohort trained twice, TensorFlow",
    "correlated noise without memory, TensorFlow",
}  # fmt: skip
"""Audits of TensorFlow's rounds take ten seconds and more. The others run in the gate alone, with -m thorough."""
LIKE_ANOTHER = {
    "a kernel that forgets dense biases, untried": "book-keeping that forgets dense biases, untried",
    "a kernel that forgets conv biases, untried": "book-keeping that forgets conv biases, untried",
    "a kernel that clips layers apart, untried": "tensors clipped one by one, PyTorch",
    "layers clipped one by one, PyTorch": "tensors clipped one by one, PyTorch",
    "noise again after 2 steps, PyTorch": "noise again after 5 steps, PyTorch",
    "noise again after 20 steps, PyTorch": "noise again after 5 steps, PyTorch",
}
"""The same fault in another place: these too run in the gate alone, the other in every suite."""


def slow(check: str, overrides: tuple[str, ...]) -> bool:
    return check in (AUDIT, checks.mechanism_audit.__name__) and "pipeline=dp_fed_avg" in overrides


def rare(mutant: Mutant) -> bool:
    return mutant.name in LIKE_ANOTHER or (slow(mutant.check, mutant.overrides) and mutant.name not in IN_EVERY_SUITE)


def marked(value: object, *, thorough: bool) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.thorough if thorough else ())


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What one mutant built must not serve another, nor the program as it is."""
    checks.forget()
    yield
    checks.forget()


@pytest.mark.parametrize(
    "mutant",
    [marked(mutant, thorough=rare(mutant)) for mutant in MUTANTS],
    ids=lambda mutant: mutant.name,
)
def test_a_mutant_is_caught(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("mutant", [mutant.name, mutant.check, "missed"])
    mutant.plant(monkeypatch)
    with pytest.raises(UserError) as caught:
        CHECKS[mutant.check](tmp_path, mutant.overrides)
    assert re.search(mutant.words, str(caught.value)), caught.value
    for row, guarantee in checks.logged(tmp_path):
        assert row.status == "FAILED"
        assert REFUTED_TAG in row.tags
        assert guarantee is None
    record_property("mutant", [mutant.name, mutant.check, "caught"])


@pytest.mark.parametrize(
    ("check", "overrides"),
    [
        marked(pair, thorough=slow(*pair) and pair[1] not in (USERS, OWN_TREES))
        for pair in sorted({(CHECKS[mutant.check].__name__, mutant.overrides) for mutant in MUTANTS})
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:1]),
)
def test_the_program_as_it_is_passes(check: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    getattr(checks, check)(tmp_path, overrides)


def test_every_rare_mutant_has_one_like_it() -> None:
    always = {mutant.name for mutant in MUTANTS if not rare(mutant)}
    assert set(LIKE_ANOTHER.values()) | IN_EVERY_SUITE <= always


def test_the_documented_table_is_this_one() -> None:
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = [tuple(row.split(" | ")) for row in re.findall(r"^\| (.*) \|$", text, flags=re.MULTILINE)[1:]]
    assert rows == [(str(k), mutant.name, mutant.check) for k, mutant in enumerate(MUTANTS, 1)]
