"""Python's cyclic garbage collector, kept away from imports and tracing.

Both make millions of objects that live as long as the process. The collector searches all of them again each time that
their number has grown by a quarter, and finds nothing: a fifth of a short run.
"""

import atexit
import gc
import sys

MANY_MODULES = 100
_frozen_modules = 0


def pause() -> None:
    """Stops collection until `resume`; reference counting goes on."""
    gc.disable()


def resume() -> None:
    """Starts collection again, and exempts what large imports have brought from it for good."""
    global _frozen_modules
    if gc.isenabled():
        return
    if len(sys.modules) - _frozen_modules > MANY_MODULES:
        if _frozen_modules:
            gc.collect()  # frozen garbage would stay
        else:
            atexit.register(_spare_the_last_collection)
        gc.freeze()
        _frozen_modules = len(sys.modules)
    gc.enable()


def _spare_the_last_collection() -> None:
    """For processes that Python takes apart, as joblib's are: the system frees memory faster than a last collection.

    TFF's executors, though, must be finalized before the modules that they use.
    """
    if "tensorflow_federated" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()
