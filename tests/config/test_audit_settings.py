"""An audit that leaves a run as it is makes no other run of it."""

import pytest

from pipelines.config.schema import parse
from pipelines.core.errors import UserError
from tests.config.test_schema import composed, config

PRIVATE = ("pipeline=dp_sgd", "privacy.epsilon=3")


def test_configurations_from_before_audits_still_parse() -> None:
    values = composed(*PRIVATE)
    del values["audit"]
    assert parse(values) == config(*PRIVATE)
    assert "audit" not in config(*PRIVATE).effective()


def test_audits_that_apply_tell_runs_of_a_sweep_apart() -> None:
    plain, audited = config(*PRIVATE), config(*PRIVATE, "audit=mechanism")
    assert plain.fingerprint != audited.fingerprint
    # Without a mechanism there is nothing to audit: in a sweep both are one run.
    assert config("pipeline=sgd").fingerprint == config("pipeline=sgd", "audit=mechanism").fingerprint
    assert config("pipeline=sgd").fingerprint != config("pipeline=sgd", "audit=one_run").fingerprint


@pytest.mark.parametrize("guesses", [51, 502])
def test_guesses_are_even_and_of_canaries(guesses: int) -> None:
    with pytest.raises(UserError, match=rf"^audit.guesses={guesses} must be even and at most audit.canaries=500$"):
        config(*PRIVATE, "audit=one_run", f"audit.guesses={guesses}")
