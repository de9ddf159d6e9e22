"""Which units, mechanisms and sums fit which pipeline: rules of the configuration that span its sections."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config.schema import Config


def require_one_target(config: "Config") -> None:
    """Refuses both, or neither, of a target and its noise.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    privacy = config.privacy
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        raise ValueError(
            f"pipeline={config.pipeline.name} needs exactly one of privacy.epsilon and privacy.noise_multiplier; "
            f"got {privacy.epsilon} and {privacy.noise_multiplier}; give one, such as privacy.epsilon=3"
        )


def require_unit_fits(config: "Config", units: tuple[str, ...]) -> None:
    """Refuses to protect a unit that the pipeline cannot.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    unit = config.privacy.unit
    if unit not in (None, *units):
        raise ValueError(
            f"privacy.unit={unit} does not fit pipeline={config.pipeline.name}: a client's update mixes its examples, "
            "so that clipping it bounds what a user does and nothing finer; drop privacy.unit or use pipeline=dp_sgd"
        )


def require_mechanism_fits(config: "Config") -> None:
    """Refuses combinations whose guarantee would be void or unknown.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    privacy, name = config.privacy, config.pipeline.name
    if privacy.mechanism == "tree" and name != "dp_fed_avg":
        raise ValueError(f"privacy.mechanism=tree is for pipeline=dp_fed_avg; use privacy=fixed with {name}")
    if privacy.mechanism == "tree" and privacy.clipping == "adaptive":
        raise ValueError("privacy.mechanism=tree needs privacy.clipping=fixed: a tree's noise is for one clip norm")
    if privacy.mechanism != "tree" and privacy.restart_every is not None:
        raise ValueError(f"privacy.restart_every={privacy.restart_every} is for privacy=tree; drop it")


def require_population_fits(config: "Config") -> None:
    """Refuses to state a population where one unit more or fewer would change which others stay.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    population, limit = config.privacy.population, config.dataset.limit
    if population is not None and limit is not None:
        raise ValueError(
            f"privacy.population={population} says that one unit more or fewer may be there, but dataset.limit={limit} "
            "always keeps as many, others in their place; drop one of them"
        )
    if population is not None and config.audit.plants:
        raise ValueError(
            f"privacy.population={population} says that one unit more or fewer may be there, but "
            f"audit={config.audit.name} gives canaries places that depend on how many there are; drop one of them"
        )


def require_secure_sums_fit(config: "Config") -> None:
    """Refuses secure aggregation where its bounds are not public, or something would go round it.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    pipeline = config.pipeline
    if pipeline.name == "dp_fed_avg" and pipeline.secure_aggregation and config.privacy.clipping == "adaptive":
        raise ValueError(
            "pipeline.secure_aggregation=true needs privacy.clipping=fixed: the clip norm is its public bound"
        )
    if pipeline.name == "fed_avg" and pipeline.secure_aggregation and pipeline.engine == "stock":
        raise ValueError(
            "pipeline.secure_aggregation=true with pipeline=fed_avg needs pipeline.engine=fast: the stock engine "
            "would send its metrics in the clear"
        )


def require_audit_fits(config: "Config") -> None:
    """Refuses canaries of another unit than the pipeline's.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    audit, users = config.audit, config.divided
    if audit.name == "canary_clients" and getattr(config.pipeline, "engine", "fast") == "stock":
        raise ValueError(
            "audit=canary_clients does not fit pipeline.engine=stock, whose clients all train; use pipeline.engine=fast"
        )
    if audit.plants and users != (audit.name == "canary_clients"):
        raise ValueError(
            f"audit={audit.name} does not fit pipeline={config.pipeline.name}, where one unit is "
            f"{'a user' if users else 'an example'}; use audit={'canary_clients' if users else 'one_run'}"
        )
