"""The only import of TensorFlow, TFF and TensorFlow Privacy: silent, with a clear error if one is missing."""

import logging
import os
import platform
import warnings

from pipelines.core.errors import UserError

# TensorFlow reads this at import; 3 leaves out everything below fatal, such as hints about CUDA and CPU features.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def missing_engine(system: str, machine: str) -> UserError:
    """Returns the error for a platform without TensorFlow Federated.

    Args:
      system: from `platform.system()`, such as Linux.
      machine: from `platform.machine()`, such as x86_64.
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
        # Third-party modules warn of deprecations as they load; a user of this project cannot change these modules.
        warnings.simplefilter("ignore")
        import tensorflow as tf
        import tensorflow_federated as tff
        import tensorflow_privacy as tfp  # type: ignore[import-untyped]
except ImportError as error:
    raise missing_engine(platform.system(), platform.machine()) from error
# One of these imports gives the root logger a handler, which would put a module's name before each of our lines.
logging.root.handlers[:] = _handlers


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log entry of TensorFlow is useful to its reader.

    Two entries are not: a page on an assertion within TFF's rounding, and advice against repeated tracing of one
    function. TensorFlow gives that advice in a sweep when models, each traced once, get the same memory address.
    """
    message = record.getMessage()
    of_rounding = "Object was never used" in message and "assert_less_equal" in message
    return not of_rounding and "triggered tf.function retracing" not in message


tf.get_logger().addFilter(_is_news)


def _without_worker(cardinalities: dict) -> None:
    raise RuntimeError("there is no worker yet; call ensure_worker")


# TFF's default context would start its own worker, and its destructor fails if modules are gone at exit.
tff.framework.set_default_context(
    tff.framework.SyncExecutionContext(executor_fn=tff.framework.ResourceManagingExecutorFactory(_without_worker))
)

__all__ = ["missing_engine", "tf", "tff", "tfp"]
