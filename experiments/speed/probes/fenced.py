"""The federated probe in a system without namespaces, where TFF's worker is open to others, without our relay."""

import ctypes
import os
from pathlib import Path

NEW_USER = 0x10000000


def main() -> None:
    """Moves into a user namespace that allows no further namespaces, and measures there.

    Raises:
      OSError: the system has no namespaces, so there is nothing to compare.
    """
    user, group, libc = os.geteuid(), os.getegid(), ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USER):  # before anything starts a thread
        raise OSError(ctypes.get_errno(), "no user namespaces here: the worker is open anyway")
    for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
        Path(f"/proc/self/{name}").write_text(text)
    for kind in ("user", "net"):
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
    from experiments.speed.probes import federated

    federated.main()


if __name__ == "__main__":
    main()
