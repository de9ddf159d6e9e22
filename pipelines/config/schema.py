"""The typed configuration. A bad value ends in one line that names the field, the value and the remedy."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.config import rules
from pipelines.config.audit_settings import AuditConfig, MechanismAudit, NoAudit
from pipelines.config.data_settings import DatasetConfig, FeaturesConfig, NoFeatures
from pipelines.config.model_settings import ModelConfig
from pipelines.config.partition_settings import PartitionConfig
from pipelines.config.pipeline_settings import PipelineConfig
from pipelines.config.pipeline_table import PIPELINES, Unit
from pipelines.config.privacy_settings import PrivacyConfig
from pipelines.config.renames import renamed_values
from pipelines.config.section import Count, Number, Section
from pipelines.config.unions import UNIONS, foreign_key, keys_of_options
from pipelines.core.errors import UserError


class WorkerConfig(Section):
    """The worker process of TensorFlow Federated.

    Attributes:
      require_private_worker: refuse to train where other users or machines can reach the worker.
    """

    require_private_worker: bool = False


class TrackingConfig(Section):
    """Where runs are logged.

    Attributes:
      uri: tracking server or database; None is an sqlite file in the repository.
      experiment: experiment of a run in the store; None takes the dataset's name.
      log_model: whether to log the trained model.
      tensorboard: whether to write event files for TensorBoard beside the record.
    """

    uri: str | None
    experiment: str | None
    log_model: bool
    tensorboard: bool = False


class Config(Section):
    """The whole configuration of one run."""

    dataset: DatasetConfig
    features: FeaturesConfig = NoFeatures()
    model: ModelConfig
    partition: PartitionConfig
    pipeline: PipelineConfig
    privacy: PrivacyConfig
    tracking: TrackingConfig
    federated: WorkerConfig = WorkerConfig()
    audit: AuditConfig = NoAudit()
    seed: Annotated[int, Number, Field(ge=0)]
    device: Literal["auto", "cpu", "cuda"]
    threads: Count | None
    evaluations: Count
    debug: bool

    @property
    def private(self) -> bool:
        """Whether the pipeline gives a guarantee."""
        return self.unit is not None

    @property
    def unit(self) -> Unit | None:
        """The protected unit; None where nothing is private."""
        return PIPELINES[self.pipeline.name].unit

    @property
    def divided(self) -> bool:
        """Whether the data is divided among clients or users, as `partition` says."""
        return PIPELINES[self.pipeline.name].divided

    @property
    def audited(self) -> bool:
        """Whether the configured audit applies: audit=mechanism needs a private pipeline."""
        return not isinstance(self.audit, NoAudit) and (self.private or not isinstance(self.audit, MechanismAudit))

    @model_validator(mode="after")
    def _sections_fit_each_other(self) -> "Config":
        rules.require_secure_sums_fit(self.pipeline, self.privacy)
        rules.require_audit_fits(self.pipeline, self.audit)
        if self.private:
            rules.require_one_target(self.pipeline, self.privacy)
            rules.require_mechanism_fits(self.pipeline, self.privacy)
            rules.require_population_fits(self.privacy, self.dataset, self.audit)
        return self

    def effective(self) -> dict[str, Any]:
        """The values that the outcome depends on, as plain data.

        Without a private pipeline the privacy section is left out; without users, the partition.
        """
        skip = {"tracking", "federated", "debug", "threads"}
        skip |= set() if self.private else {"privacy"}
        skip |= set() if self.divided else {"partition"}
        skip |= set() if self.audited else {"audit"}
        return self.model_dump(mode="json", exclude=skip)

    @property
    def fingerprint(self) -> str:
        """sha256 of the effective configuration."""
        return hashlib.sha256(json.dumps(self.effective(), sort_keys=True).encode()).hexdigest()


def parse(values: dict[str, Any]) -> Config:
    """Checks plain values against the schema, after renaming keys of earlier versions.

    Raises:
      UserError: one line with every field at fault, its value and what is allowed.
    """
    values = renamed_values(values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(dict.fromkeys(_in_words(item, values) for item in error.errors()))) from None


def _in_words(item: Any, values: dict[str, Any]) -> str:
    """One of pydantic's errors as a line. In a section with options, the location starts with the tag of the class."""
    kind, value = item["type"], item["input"]
    section, *path = item["loc"] or ("",)
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "union_tag_not_found":
        return f"{section}.name is missing; choose by the group: {section}=OPTION"
    if kind == "union_tag_invalid":
        return f"{section}={item['ctx']['tag']} is unknown; choose {', '.join(keys_of_options(section))}"
    option = ""
    if section in UNIONS and path:
        path.pop(0)
        option = str(values[section]["name"])
    # The tag of a layer's class stands before the layer's own key, which is the same.
    path = [part for place, part in enumerate(path) if [part] != path[place + 1 : place + 2]]
    field = ".".join(str(part) for part in (section, *path))
    if kind == "missing" and any(isinstance(part, int) for part in path):
        return f"{field} is missing; add {path[-1]}: VALUE there"
    if kind == "missing":
        return f"{field} is missing; write {field}=VALUE, or drop ~{field}"
    if kind == "extra_forbidden":
        owners = [name for name, keys in keys_of_options(section).items() if path[0] in keys] if option else []
        if len(path) == 1 and owners:
            return f"{foreign_key(field, value, option, owners)}, or write ~{field} where a preset sets it"
        return f"{field}={value}: unknown key; drop it (python -m pipelines.run --cfg job prints every key)"
    if kind == "tuple_type":
        return f"{field}={value}: input should be a list, such as '{field}=[{value}]'"
    return f"{field}={value}: {item['msg'][0].lower()}{item['msg'][1:]}"
