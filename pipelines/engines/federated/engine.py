"""The one import of TensorFlow, its Federated and its Privacy: silent, and with a clear word where they are missing."""

import logging
import os
import platform
import warnings

from pipelines.core.errors import UserError

# TensorFlow reads this at import; 3 leaves out everything below fatal, such as hints about CUDA and CPU features.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def missing_engine(system: str, machine: str) -> UserError:
    """Words the absence of TensorFlow Federated for a platform.

    Args:
      system: as of `platform.system()`, such as Linux.
      machine: as of `platform.machine()`, such as x86_64.
    """
    if (system, machine) != ("Linux", "x86_64"):
        return UserError(
            f"pipeline=fed_avg and dp_fed_avg need TensorFlow Federated, which has no wheels for {system} {machine}: "
            "use Linux on x86-64, or pipeline=sgd or dp_sgd here"
        )
    return UserError(
        "pipeline=fed_avg and dp_fed_avg need TensorFlow Federated, which is not installed: "
        "install the project's `federated` extra (see the README), or use pipeline=sgd or dp_sgd"
    )


_handlers = logging.root.handlers[:]
try:
    with warnings.catch_warnings():
        # Deprecations inside third-party modules, raised as they load: nothing that a user of this project can mend.
        warnings.simplefilter("ignore")
        import tensorflow as tf
        import tensorflow_federated as tff
        import tensorflow_privacy as tfp  # type: ignore[import-untyped]
except ImportError as error:
    raise missing_engine(platform.system(), platform.machine()) from error
# Some import gives the root logger a handler, which would put the name of a module before each line of ours.
logging.root.handlers[:] = _handlers


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log entry of TensorFlow is something that its reader can act on.

    What is not: a page on an assertion within TFF's rounding, and advice against tracing one function again and again,
    which TensorFlow gives where a sweep's models, each traced once, come to lie at one address.
    """
    message = record.getMessage()
    of_rounding = "Object was never used" in message and "assert_less_equal" in message
    return not of_rounding and "triggered tf.function retracing" not in message


tf.get_logger().addFilter(_is_news)


def _without_worker(cardinalities: dict) -> None:
    raise RuntimeError("there is no worker yet; call ensure_worker")


# TFF's own context would start a worker of its own, and has a destructor that fails where modules are gone at exit.
tff.framework.set_default_context(
    tff.framework.SyncExecutionContext(executor_fn=tff.framework.ResourceManagingExecutorFactory(_without_worker))
)

__all__ = ["missing_engine", "tf", "tff", "tfp"]
