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
        "This protects single examples; a person who contributed several is protected less.",
    ),
    PrivacyUnit.USER: (
        "user",
        "This protects a user with all of their examples, given how the data is divided among users; unless the "
        "partition is natural, the users are simulated and nothing is said of the people behind the data.",
    ),
}
CONFIRMATIONS = {
    "dp-accounting RDP": "RDP, an upper bound, is not exceeded.",
    "Opacus PRV": f"PRV, which could show it to be too low, agrees to {PRV_TOLERANCE:g} and {PRV_RELATIVE:.2%}.",
}
CLEAR_SUM = (
    "whoever runs the training is trusted: it sees each user's update before noise is added; all of it runs on one "
    "machine, so that federation is at most simulated"
)
SIMULATED_SUM = (
    "bounds, rounding to 32-bit integers and their sum are those of secure aggregation, but TensorFlow Federated's "
    "local runtime computes the sum in the clear, without the cryptographic protocol, on one machine"
)
SECURE_SUM = (
    "the server is trusted to add the noise, and would see the sum of a round's updates but none of them, unless a "
    f"user is alone in it. This is simulated: {SIMULATED_SUM}"
)
FLOATING_POINT = (
    "Floating point, which the accounting takes for exact (Mironov 2012, On significance of the least significant bits "
    "for differential privacy). Contributions are clipped and summed in single precision, so that one may exceed the "
    "clip norm by a rounding. In the PyTorch pipelines noise is drawn in double precision from AES-256 in counter "
    f"mode, and noised sums are rounded to a grid of 2^-{GRID_BITS} of its standard deviation or less, so coarse that "
    "the last digits do not tell what the noise was added to. In the TensorFlow ones it is single precision without a "
    "grid, the sum of two draws of a statistical generator, with 128-bit keys from such a cipher."
)
SECURE_SUM_NOTE = f"Its secure aggregation is simulated: {SIMULATED_SUM}."


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
      sampler_judged: whether the samples that were trained on were held against the law that is assumed.
      users: who was invented, from `simulated_users`; None where users are the data's own, or examples are protected.
      copies: how many training examples are equal to each other, in the largest such group; None keeps it secret.
      exposure: what let others reach the data while it trained, in words; None where nothing did.
    """
    head = f"# What this run guarantees\n\n{promise(guarantee)}"
    return "\n\n".join(
        (
            head if users is None else f"{head}\n\n**Simulated users:** {users}",
            f"## How\n\n{guarantee.executed.how()}",
            _accountants(guarantee),
            groups(guarantee.executed, copies),
            _assumptions(guarantee, population_stated, sampler_judged),
            _limits(guarantee, exposure),
        )
    )


def promise(guarantee: PrivacyGuarantee) -> str:
    """The guarantee in three sentences."""
    plan = guarantee.executed
    bound = bound_in_words(
        plan.unit, plan.relation, population=plan.population, epsilon=guarantee.epsilon, delta=plan.delta
    )
    _, scope = WHO[plan.unit]
    text = f"{bound} It holds against anyone who sees the trained model and every state on the way to it. {scope}"
    if guarantee.simulated:
        text = (
            "**Simulated:** sampling and noise came from a known seed, so this run is reproducible and protects nobody "
            f"from whoever knows the seed. With secret randomness it would guarantee: {text}"
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
    """One sentence: what an (epsilon, delta) guarantee says of the model.

    Args:
      unit: who is protected.
      relation: from which difference.
      population: public number of units; None leaves it out.
      epsilon: None leaves its name in place of the number.
      delta: the same.
    """
    noun, _ = WHO[unit]
    who = (
        f"any one of the {noun}s" if population is None else f"any one of the {population:,} {noun}s (a public number)"
    )
    if (
        relation is NeighboringRelation.REPLACE_SPECIAL
    ):  # turns are taken whatever the data, so that presence itself is not hidden
        event = f"Whether {who} contributed, or zeros in its turns,"
    else:
        event = f"Whether or not {who} took part"
    return (
        f"{event} changes the probability that the model is one of any given set of models by at most a factor "
        f"{_factor(epsilon)}, plus {'delta' if delta is None else rounded_up(delta, 6)}."
    )


def _factor(epsilon: float | None) -> str:
    if epsilon is None:
        return "e^epsilon"
    value = exp(min(epsilon, 20))
    size = "" if value > 1e8 else f" = {rounded_up(value, 3)}" if value < 1000 else f" = {ceil(value):,}"
    return f"e^{rounded_up(epsilon, 4)}{size}"


def caveats(guarantee: PrivacyGuarantee, *, sampler_judged: bool = True, exposure: str | None = None) -> str:
    """What the promise assumes and does not cover, in a few sentences for a note; `statement` has all of it.

    Args:
      guarantee: of the run.
      sampler_judged: whether the samples that were trained on were held against the law that is assumed.
      exposure: what let others reach the data while it trained, in words; None where nothing did.
    """
    plan = guarantee.executed
    checked = "which was checked" if sampler_judged else "which was not checked, since the run did not end"
    return (
        f"It assumes that {plan.law}, {checked}, and a trusted {_role(plan)}. It does not cover a choice "
        "among runs or settings, anything computed on the test split, and floating point; privacy_statement.md has the "
        f"whole list.{_exposed(exposure)}"
    )


def _exposed(exposure: str | None) -> str:
    """A sentence, with a space before it, or nothing."""
    if exposure is None:
        return ""
    return f" While it trained, {exposure}: whoever could connect to it could read that data, which no epsilon covers."


def _role(plan: Mechanism) -> str:
    return "trainer" if plan.unit is PrivacyUnit.EXAMPLE else "server"


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
        f"{rows}\n\nThe first is the guarantee's. {verdict}"
    )


def _confirmed(guarantee: PrivacyGuarantee) -> str:
    if guarantee.executed.composition is None:
        return "It is an upper bound, and the only accountant that knows this mechanism."
    answered = {opinion.accountant for opinion in guarantee.accountant_results[1:] if opinion.epsilon is not None}
    found = [word for name, word in CONFIRMATIONS.items() if name in answered]
    return " ".join(found) or "No other accountant answered, so that none confirms it."


def _assumptions(guarantee: PrivacyGuarantee, population_stated: bool, sampler_judged: bool) -> str:
    plan = guarantee.executed
    unit, population = plan.unit, f"{plan.population:,}"
    sampler = plan.participation_assumption(judged=sampler_judged)
    sees = "the sums of updates" if guarantee.secure_aggregation else "the data or the updates"
    return (
        f"## Assumed\n\n- {sampler}\n"
        f"- A trusted {_role(plan)}, who sees {sees} before noise is added, "
        "and keeps the order of participation and the noise secret.\n"
        + (
            f"- A population of {population} {unit}s, stated in advance (`privacy.population`): the same plan follows "
            f"whether one {unit} more or fewer is there, which was tried before training."
            if population_stated
            else f"- That there are {population} {unit}s is no secret: it is the size of the data, the plan follows "
            "from it, and this guarantee does not hide it. `privacy.population` states a public number instead."
        )
    )


def _limits(guarantee: PrivacyGuarantee, exposure: str | None) -> str:
    engine = {
        PrivacyUnit.EXAMPLE: "whoever runs the training is trusted with the data",
        PrivacyUnit.USER: SECURE_SUM if guarantee.secure_aggregation else CLEAR_SUM,
    }[guarantee.executed.unit]
    same = " (if all have the same users)" if guarantee.executed.unit is PrivacyUnit.USER else ""
    return (
        "## Not covered\n\n"
        f"- Other runs on the same data: each has its own epsilon, they add up for whoever sees several{same}, and "
        "choosing hyper-parameters by comparing runs costs more than the chosen run's; a sweep's parent run says how "
        "much (choosing.md).\n"
        "- What the log says of the data itself, without noise: fingerprints of data and partition (under a key of the "
        "machine, unless the data are published files), the number of examples, running times, the p-value of the "
        "sampler's test, and everything computed on the test split (accuracy, loss, confusion matrix).\n"
        "- Audits with canaries (`audit.json`): their scores come from a run on the data.\n"
        "- Metrics under `diagnostics/`, and `membership.png` and `.json`, where a run was asked for them: they come "
        "from the raw training data.\n"
        f"- The machine: {engine}. Running time and memory are side channels.{_exposed(exposure)}\n"
        "- A run that stopped early for what it showed, by somebody's hand or because it diverged: the epsilon is that "
        "of the steps that ran; the one planned for all steps covers the decision to stop as well.\n"
        "- Which examples `dataset.limit` kept, and which gave their places to canaries of an audit, where either was "
        "set: the choice depends on how many there are, and the guarantee is about those that stayed.\n"
        "- How the settings were found: those of this project that apply by themselves (`conf/tuning/`) were chosen on "
        "its own datasets.\n"
        f"- {FLOATING_POINT}\n"
        "- Anything else derived from the raw data outside this run.\n"
    )
