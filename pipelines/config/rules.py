"""Rules between sections of the configuration. The type of a section has the rules within it."""

from pipelines.config.audit_settings import AuditConfig, CanaryClientsAudit, PlantingAudit
from pipelines.config.data_settings import DatasetConfig
from pipelines.config.pipeline_settings import DpFedAvgConfig, FedAvgConfig, FederatedConfig, PipelineConfig
from pipelines.config.pipeline_table import PIPELINES, in_words, private_pipelines
from pipelines.config.privacy_settings import AdaptiveConfig, PrivacyConfig


def require_one_target(pipeline: PipelineConfig, privacy: PrivacyConfig) -> None:
    """Requires exactly one of a target epsilon and a noise multiplier.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        raise ValueError(
            f"pipeline={pipeline.name} needs exactly one of privacy.epsilon and privacy.noise_multiplier; "
            f"got {privacy.epsilon} and {privacy.noise_multiplier}; give one, such as privacy.epsilon=3"
        )


def require_mechanism_fits(pipeline: PipelineConfig, privacy: PrivacyConfig) -> None:
    """Refuses mechanisms that the pipeline's engine does not run.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    if privacy.name in PIPELINES[pipeline.name].without:
        fitting = private_pipelines(mechanism=privacy.name)
        raise ValueError(
            f"privacy={privacy.name} is for {in_words(fitting)}; use privacy=fixed with pipeline={pipeline.name}"
        )


def require_population_fits(privacy: PrivacyConfig, dataset: DatasetConfig, audit: AuditConfig) -> None:
    """Refuses a stated population if adding or removing one unit would change which other units are used.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    population, limit = privacy.population, dataset.limit
    if population is not None and limit is not None:
        raise ValueError(
            f"privacy.population={population} allows one unit more or fewer, but dataset.limit={limit} "
            "always keeps as many and fills the place with another; drop one of them"
        )
    if population is not None and isinstance(audit, PlantingAudit):
        raise ValueError(
            f"privacy.population={population} allows one unit more or fewer, but "
            f"audit={audit.name} gives canaries places that depend on how many there are; drop one of them"
        )


def require_secure_sums_fit(pipeline: PipelineConfig, privacy: PrivacyConfig) -> None:
    """Refuses secure aggregation if its bounds are not public, or if values would bypass it.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    if not isinstance(pipeline, FederatedConfig) or not pipeline.secure_aggregation:
        return
    if isinstance(pipeline, DpFedAvgConfig) and isinstance(privacy, AdaptiveConfig):
        raise ValueError(
            "pipeline.secure_aggregation=true does not fit privacy=adaptive: the clip norm is its public bound and "
            "must not change; use privacy=fixed"
        )
    if isinstance(pipeline, FedAvgConfig) and pipeline.engine == "stock":
        raise ValueError(
            "pipeline.secure_aggregation=true with pipeline=fed_avg needs pipeline.engine=fast: the stock engine "
            "would send its metrics in the clear"
        )


def require_audit_fits(pipeline: PipelineConfig, audit: AuditConfig) -> None:
    """Refuses canaries whose unit is not the unit of the pipeline.

    Raises:
      ValueError: one line that names fields, values and remedy.
    """
    clients, users = isinstance(audit, CanaryClientsAudit), PIPELINES[pipeline.name].divided
    if clients and isinstance(pipeline, FederatedConfig) and pipeline.engine == "stock":
        raise ValueError(
            "audit=canary_clients does not fit pipeline.engine=stock, whose clients all train; use pipeline.engine=fast"
        )
    if isinstance(audit, PlantingAudit) and users != clients:
        raise ValueError(
            f"audit={audit.name} does not fit pipeline={pipeline.name}, where one unit is "
            f"{'a user' if users else 'an example'}; use audit={'canary_clients' if users else 'one_run'}"
        )
