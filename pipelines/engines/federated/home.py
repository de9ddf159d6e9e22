"""The worker's home: a network of its own, reached through a Unix socket that only its owner may open.

TFF's worker listens on every address without encryption or authentication, and obeys every request. A process that
reaches it can read the training examples, and can read and write files as we can. The worker has no option to listen
elsewhere. So it runs in its own network and user namespaces, which the kernel gives to any user unless it is configured
otherwise. All traffic goes through `relay.py`. The socket's file exists only while a worker starts.
"""

import atexit
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import temporary_folder
from pipelines.engines.federated.child import start_child

RELAY = Path(__file__).with_name("relay.py")
ANSWERS_WITHIN_S = 30
# In its own network every port is free. These are below the ports that the kernel picks for the other end.
PORTS = itertools.count(20_001)
OPEN_DOOR = (
    "is open to everyone who can reach an address of this machine or container, because it has no namespaces of its own"
)


class Home:
    """A relay in namespaces of its own; if the system allows none, this process itself.

    Attributes:
      flaw: why others can reach the worker; None if they cannot.
      process: the relay's process; None if there is a flaw.
    """

    def __init__(self) -> None:
        """Starts the relay, and waits until it is ready.

        Raises:
          UserError: the socket's folder cannot be made, or the relay cannot be run.
        """
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self.flaw: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._kinds: tuple[str, ...] = ()
        self._folder = temporary_folder("privacy-pipelines-worker-")
        # The socket's path goes through this descriptor to be short: it must have less than 108 characters.
        self._place = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(ANSWERS_WITHIN_S)
        with theirs:
            arguments = [str(theirs.fileno()), str(os.getpid()), self._folder]
            try:
                process = start_child(
                    [sys.executable, "-I", "-S", str(RELAY), *arguments], pass_fds=[theirs.fileno()]
                )  # fmt: skip
            except OSError as error:
                self.close()
                raise UserError(f"the relay to TensorFlow Federated's worker cannot be run: {error}") from None
        self.process = process
        state, _, rest = self._answer().partition(" ")
        if state == "private":
            self._kinds = tuple(rest.split())
        else:
            self.close()
            self.process, self.flaw = None, rest or f"the relay ended with exit code {process.returncode}"

    @property
    def stands(self) -> bool:
        """Whether this process can still reach the worker here."""
        return self._owner == os.getpid() and (self.process is None or self.process.poll() is None)

    @property
    def joined(self) -> tuple[str, ...]:
        """Paths of the namespaces that a worker has to join, in this order."""
        return () if self.process is None else tuple(f"/proc/{self.process.pid}/ns/{kind}" for kind in self._kinds)

    @contextlib.contextmanager
    def door(self) -> Iterator[tuple[int, str]]:
        """Yields a port for a new worker, and its gRPC address, which accepts connections only inside the block."""
        if self.process is None:
            port = _free_port()
            yield port, f"127.0.0.1:{port}"
            return
        port = next(PORTS)
        path = f"/proc/self/fd/{self._place}/{port}"
        with socket.socket(socket.AF_UNIX) as listener:
            os.fchmod(listener.fileno(), 0o600)  # before bind makes the file: it is made with this mode
            listener.bind(path)
            try:
                listener.listen()
                with contextlib.suppress(OSError):  # if the relay has ended, the worker will not answer
                    socket.send_fds(self._control, [f"listen {port}".encode()], [listener.fileno()])
                yield port, f"unix:{path}"
            finally:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # the relay's copy too
                Path(path).unlink(missing_ok=True)

    def keep(self, descriptor: int, owner: object) -> str:
        """Keeps a file open for as long as its owner lives, and returns a path by which workers can open it.

        Args:
          descriptor: descriptor of the file; closed here.
          owner: the object that needs the file.

        Raises:
          UserError: the relay has died.
        """
        if self.process is None:
            weakref.finalize(owner, os.close, descriptor)
            return f"/proc/{os.getpid()}/fd/{descriptor}"
        try:
            with self._lock:
                socket.send_fds(self._control, [b"hold"], [descriptor])
                number = self._answer()
        except OSError:
            number = ""
        finally:
            os.close(descriptor)
        if not number:
            raise UserError("the relay to TensorFlow Federated's worker died; start again")
        weakref.finalize(owner, self._drop, number)
        return f"/proc/{self.process.pid}/fd/{number}"

    def close(self) -> None:
        """Ends the relay and removes the folder. Safe to call again, and after a fork does nothing."""
        if self._owner != os.getpid() or self._control.fileno() < 0:
            return
        self._control.close()
        if self.process is not None:
            try:
                self.process.wait(ANSWERS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self._place)
        shutil.rmtree(self._folder, ignore_errors=True)  # where the relay was killed

    def _answer(self) -> str:
        """Returns the relay's next message; empty if the relay has ended, or does not answer."""
        try:
            return self._control.recv(256).decode()
        except OSError:
            return ""

    def _drop(self, number: str) -> None:
        if self._owner == os.getpid():
            with contextlib.suppress(OSError):
                self._control.send(f"drop {number}".encode())


_home: Home | None = None
_lock = threading.Lock()


def home() -> Home:
    """Returns this process's home of workers; makes it if there is none."""
    global _home
    with _lock:
        if _home is None or not _home.stands:
            if _home is not None:
                _home.close()
            _home = Home()
        return _home


def require_private_home() -> None:
    """Makes sure that only this user and root can reach a worker.

    Raises:
      UserError: the system does not allow it.
    """
    if flaw := home().flaw:
        raise UserError(
            f"federated.require_private_worker=true: TensorFlow Federated's worker {OPEN_DOOR} ({flaw}); allow user "
            "namespaces (sysctl user.max_user_namespaces, or a container's seccomp profile), or drop the requirement "
            "if you are the only user"
        )


@atexit.register
def _leave() -> None:
    if _home is not None:
        _home.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
