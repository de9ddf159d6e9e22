"""The guarantee in plain words."""

from math import ceil, exp

from pipelines.privacy.accounting.cross_check import PRV_RELATIVE, PRV_TOLERANCE
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import Mechanism, NeighboringRelation, PrivacyUnit
from pipelines.privacy.noise_grid import GRID_BITS
from pipelines.privacy.rounding import rounded_up
from pipelines.privacy.several_units import groups

WHO = {
    PrivacyUnit.EXAMPLE: (
        "training example",
        "The guarantee protects single examples. A person who contributed several examples is protected less.",
    ),
    PrivacyUnit.USER: (
        "user",
        "The guarantee protects a user with all of their examples, given how the data is divided among users.",
    ),
}
CONFIRMATIONS = {
    "dp-accounting RDP": "It does not exceed RDP, which is an upper bound.",
    "Opacus PRV": "PRV, which could show that it is too low, agrees "
    f"with it to within {PRV_TOLERANCE:g} plus {PRV_RELATIVE:.2%} of it.",
}
CLEAR_SUM = (
    "The operator of the training is trusted, because it sees each user's update before noise is added. Everything "
    "runs on one machine, so federation is at most simulated."
)
SIMULATED_SUM = (
    "Bounds, rounding to 32-bit integers and the sum are those of secure aggregation. But TensorFlow Federated's local "
    "runtime computes the sum in the clear, without the cryptographic protocol, on one machine."
)
SECURE_SUM = (
    "The server is trusted to add the noise. It would see the sum of a round's updates but no single update, unless a "
    f"user is alone in the round. This is simulated. {SIMULATED_SUM}"
)
FLOATING_POINT = (
    "Floating-point effects. The accounting assumes exact arithmetic (Mironov 2012, On significance of the least "
    "significant bits for differential privacy). Contributions are clipped and summed in single precision, so one may "
    "exceed the clip norm by a rounding error. In the PyTorch pipelines, noise is drawn in double precision from "
    f"AES-256 in counter mode. Noised sums are rounded to a grid of 2^-{GRID_BITS} of the noise's standard deviation "
    "or less. This grid is so coarse that the last digits do not reveal what the noise was added to. In the TensorFlow "
    "pipelines, noise is in single precision without a grid. It is the sum of two draws of a statistical generator, "
    "with 128-bit keys from the same kind of cipher."
)
SECURE_SUM_NOTE = f"Its secure aggregation is simulated. {SIMULATED_SUM}"


def statement(
    guarantee: PrivacyGuarantee,
    *,
    population_stated: bool = False,
    sampler_judged: bool = True,
    users: str | None = None,
    copies: int | None = None,
    exposure: str | None = None,
) -> str:
    """Returns the guarantee as Markdown: who is protected, how well, on what assumptions, and what is not covered.

    Args:
      guarantee: of the run.
      population_stated: whether the population is `privacy.population`, and not the size of the data.
      sampler_judged: whether the samples used in training were tested against the law that the accounting assumes.
      users: the sentence of `simulated_users`; None if users come from the data, or if examples are protected.
      copies: size of the largest group of equal training examples; None keeps it secret.
      exposure: what let others reach the data during training, in words; None if nothing did.
    """
    head = f"# What this run guarantees\n\n{promise(guarantee)}"
    return "\n\n".join(
        (
            head if users is None else f"{head}\n\n{users}",
            f"## How\n\n{guarantee.executed.how()}",
            _accountants(guarantee),
            groups(guarantee.executed, copies),
            _assumptions(guarantee, population_stated, sampler_judged),
            _limits(guarantee, exposure),
        )
    )


def promise(guarantee: PrivacyGuarantee) -> str:
    """The guarantee in a few sentences."""
    plan = guarantee.executed
    bound = bound_in_words(
        plan.unit, plan.relation, population=plan.population, epsilon=guarantee.epsilon, delta=plan.delta
    )
    _, scope = WHO[plan.unit]
    text = (
        f"{bound} The guarantee holds against an attacker who sees the trained model and every state of it during "
        f"training. {scope}"
    )
    if guarantee.simulated:
        text = (
            "**Simulated:** sampling and noise came from a known seed. This run is reproducible, but it gives no "
            f"protection against anyone who knows the seed. With secret randomness it would guarantee: {text}"
        )
    return text


def bound_in_words(
    unit: PrivacyUnit,
    relation: NeighboringRelation,
    *,
    population: int | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
) -> str:
    """What an (epsilon, delta) guarantee says about the model; P(model in S) is the probability of a model in S.

    Args:
      unit: who is protected.
      relation: which datasets are neighbours.
      population: public number of units; None leaves out the sentence on it.
      epsilon: None prints its name in place of the number.
      delta: the same.
    """
    noun, _ = WHO[unit]
    if relation is NeighboringRelation.REPLACE_SPECIAL:  # the turns do not depend on the data: presence is not hidden
        change = f"replacing the contributions of one {noun} by zeros"
    else:
        change = f"adding or removing one {noun}"
    bound = (
        f"For any set of models S, {change} changes P(model in S) by at most a factor {_factor(epsilon)}, "
        f"plus {'delta' if delta is None else rounded_up(delta, 6)}."
    )
    return bound if population is None else f"{bound} The population, {population:,} {noun}s, is a public number."


def _factor(epsilon: float | None) -> str:
    if epsilon is None:
        return "e^epsilon"
    value = exp(min(float(rounded_up(epsilon, 4)), 20))
    size = "" if value > 1e8 else f" = {rounded_up(value, 3)}" if value < 1000 else f" = {ceil(value):,}"
    return f"e^{rounded_up(epsilon, 4)}{size}"


def caveats(guarantee: PrivacyGuarantee, *, sampler_judged: bool = True, exposure: str | None = None) -> str:
    """What the guarantee assumes and does not cover, in a few sentences for a note; `statement` has all of it.

    Args:
      guarantee: of the run.
      sampler_judged: whether the samples used in training were tested against the law that the accounting assumes.
      exposure: what let others reach the data during training, in words; None if nothing did.
    """
    plan = guarantee.executed
    checked = "this was checked" if sampler_judged else "this was not checked, because the run did not end"
    return (
        f"It assumes that {plan.law} ({checked}). It also assumes a trusted {_role(plan)}. It does not cover a choice "
        "among runs or settings, anything computed on the test split, or floating-point effects. privacy_statement.md "
        f"has the whole list.{_exposed(exposure)}"
    )


def _exposed(exposure: str | None) -> str:
    """Two sentences, with a space before them, or nothing."""
    if exposure is None:
        return ""
    return f" During training, {exposure}. Anyone who could connect could read that data, and no epsilon covers this."


def _role(plan: Mechanism) -> str:
    return "trainer" if plan.unit is PrivacyUnit.EXAMPLE else "trainer (the server of a federated pipeline)"


def _accountants(guarantee: PrivacyGuarantee) -> str:
    rows = "\n".join(
        f"| {opinion.accountant} | {opinion.version} | "
        f"{opinion.remark if opinion.epsilon is None else rounded_up(opinion.epsilon, 5)} |"
        for opinion in guarantee.accountant_results
    )
    verdict = "; ".join(guarantee.contradictions) or _confirmed(guarantee)
    return (
        "## Accountants\n\n"
        f"| accountant | version | epsilon at delta {rounded_up(guarantee.executed.delta, 6)} |\n|---|---|---|\n"
        f"{rows}\n\nThe first epsilon is that of the guarantee. {verdict}"
    )


def _confirmed(guarantee: PrivacyGuarantee) -> str:
    if guarantee.executed.composition is None:
        return "It is an upper bound. No other accountant knows this mechanism."
    answered = {opinion.accountant for opinion in guarantee.accountant_results[1:] if opinion.epsilon is not None}
    found = [word for name, word in CONFIRMATIONS.items() if name in answered]
    return " ".join(found) or "No other accountant answered, so none confirms it."


def _assumptions(guarantee: PrivacyGuarantee, population_stated: bool, sampler_judged: bool) -> str:
    plan = guarantee.executed
    unit, population = plan.unit, f"{plan.population:,}"
    sampler = plan.participation_assumption(judged=sampler_judged)
    sees = "the sums of updates" if guarantee.secure_aggregation else "the data or the updates"
    return (
        f"## Assumed\n\n- {sampler}\n"
        f"- A trusted {_role(plan)}. It sees {sees} before noise is added, "
        "and it keeps the order of participation and the noise secret.\n"
        + (
            f"- A population of {population} {unit}s, stated in advance (`privacy.population`). The plan is the same "
            f"with one {unit} more or fewer; this was checked before training."
            if population_stated
            else f"- A public size of the data: it holds {population} {unit}s, and this number is the population. The "
            "plan follows from it, and the guarantee does not hide it. `privacy.population` states another public "
            "number."
        )
    )


def _limits(guarantee: PrivacyGuarantee, exposure: str | None) -> str:
    engine = {
        PrivacyUnit.EXAMPLE: "The operator of the training is trusted with the data.",
        PrivacyUnit.USER: SECURE_SUM if guarantee.secure_aggregation else CLEAR_SUM,
    }[guarantee.executed.unit]
    same = " (if all have the same users)" if guarantee.executed.unit is PrivacyUnit.USER else ""
    return (
        "## Not covered\n\n"
        "- Other runs on the same data. Each run has its own epsilon. For an attacker who sees several runs, the "
        f"epsilons add up{same}. Choosing hyper-parameters by comparing runs costs more than the epsilon of the chosen "
        "run; the parent run of a sweep states how much (choosing.md).\n"
        "- What the log says about the data itself, without noise: fingerprints of data and partition (under a key of "
        "the machine, unless the data are published files), the number of examples, running times, the p-value of the "
        "sampler's test, and everything computed on the test split (accuracy, loss, confusion matrix).\n"
        "- Audits with canaries (`audit.json`). Their scores come from a run on the data.\n"
        "- Metrics under `diagnostics/`, and the files `membership.png` and `membership.json`, if the run was asked "
        "for them. They come from the raw training data.\n"
        f"- The machine. {engine} Running time and memory are side channels.{_exposed(exposure)}\n"
        "- The decision to stop a run early because of what it showed, made by a person or because the run diverged. "
        "The epsilon is that of the steps that ran. The epsilon planned for all steps covers this decision as well.\n"
        "- Which examples `dataset.limit` kept, and which ones canaries of an audit replaced, if either was set. The "
        "choice depends on the number of examples, and the guarantee is about those that stayed.\n"
        "- How the settings were found. The settings that this project applies by default (`conf/tuning/`) were chosen "
        "on its own datasets. That tuning is not accounted for.\n"
        f"- {FLOATING_POINT}\n"
        "- Anything else derived from the raw data outside this run.\n"
    )
