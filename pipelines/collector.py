"""Python's cyclic garbage collector, kept away from imports and tracing.

Both make millions of objects that live as long as the process. The collector searches all of them again each time that
their number has grown by a quarter, and finds nothing: a fifth of a short run.
"""

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
        gc.freeze()
        _frozen_modules = len(sys.modules)
    gc.enable()
