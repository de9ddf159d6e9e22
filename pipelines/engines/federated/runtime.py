"""Owns the worker process that TensorFlow Federated computes in: one for each Python process, and none left behind.

TFF's own context starts `worker_binary` with our standard output, and ends it with a SIGINT from a destructor. If
SIGINT is ignored (nohup, background jobs) or Python dies first, that worker lives on and holds every pipe open. Here
the worker inherits none of our standard streams, and three things end it: `close`, the end of the interpreter and, if
this process dies in any other way, the kernel.
"""

import atexit
import logging
import os
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from pipelines.core.errors import UserError
from pipelines.engines.federated.child import start_child
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.home import OPEN_DOOR, home, require_private_home

# Run by a bare interpreter that then becomes the worker: it joins the namespaces given as paths, and asks for the
# parent-death signal, which the kernel keeps across exec but not across a change of the user namespace.
LAUNCHER = """
import ctypes, os, signal, sys
libc, (parent, namespaces, *command) = ctypes.CDLL(None), sys.argv[1:]
for place in [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in namespaces.split()]:
    if libc.setns(place, 0):
        sys.exit("this process cannot join " + namespaces)
libc.prctl(1, signal.SIGKILL)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
READY_WITHIN_S = 60
POLL_S = 0.02
DISPOSED_AT_ONCE = 5
PORTS_TO_TRY = 3
# The worker never frees what it built for a process and a cohort size, some 5 MB each. Between two runs of a long
# sweep, a worker above this size is replaced, at the cost of tracing again.
RESIDENT_BYTES = 2_000_000_000
# Defaults for the worker; the environment can override them. By default glibc returns the activations of a batch to the
# kernel and fetches them again for every operation, a twentieth of a round. It also makes up to eight heaps a core;
# MALLOC_ARENA_MAX (in `_spawn`) allows one for each client at work. Each heap grows separately to the most that it ever
# needs, for hundreds of rounds.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
# The worker starts and detaches some hundred threads a round. glibc's pthread_detach (2.36) reads the thread's
# descriptor once more after it has released it; this crashed the worker in one of thousands of runs on busy CPUs. The
# descriptor is in the stack. A cache of stacks without a bound keeps it readable; it takes address space, not memory.
STACKS = {"GLIBC_TUNABLES": f"glibc.pthread.stack_cache_size={2**40}"}
MESSAGE_BYTES = 2_000_000_000
logger = logging.getLogger(__name__)
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    # An idle channel would close after half an hour, and could not connect again.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    # The first attempt meets a worker that does not listen yet; the default would wait a second before the next.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class _Executor(tff.framework.RemoteExecutor):
    """Sends a computation only if it differs from the last one; TFF would send a round's computation in every round."""

    def __init__(self, worker: "Worker") -> None:
        # A round has a few values. Each disposal makes us wait, so values are kept for about a round.
        super().__init__(worker.stub, dispose_batch_size=DISPOSED_AT_ONCE)
        self._worker = worker
        self._sent: tuple[Any, Any] = (None, None)

    async def create_value(self, value: Any, type_spec: Any = None) -> Any:
        """Returns the worker's handle of a value."""
        if not isinstance(type_spec, tff.FunctionType):
            return await super().create_value(value, type_spec)
        sent, handle = self._sent
        if sent is not value:
            handle = await super().create_value(value, type_spec)
            self._sent = (value, handle)  # keeps the value alive, so that no other computation can get its identity
        return handle

    def close(self) -> None:
        """Forgets the computation that the worker forgets."""
        self._sent = (None, None)
        super().close()

    def _dispose(self, *value: Any) -> None:
        """Disposes of a value. Does nothing for a value that outlives its worker, as at the end of Python."""
        if self._worker.alive:
            super()._dispose(*value)


class Worker:
    """A running worker and the channel to it.

    Attributes:
      threads: number of threads that its clients share.
      home: its network.
      process: the operating system's process.
      stub: sends requests to it.
    """

    def __init__(self, threads: int) -> None:
        """Starts a worker and waits until it answers.

        Raises:
          UserError: it did not answer on `PORTS_TO_TRY` ports.
        """
        self.threads = threads
        self.home = home()
        if self.home.flaw is not None:
            _warn_once(self.home.flaw)
        self._owner = os.getpid()
        for _ in range(PORTS_TO_TRY):
            with self.home.door() as (port, target):
                self.process = _spawn(self.home.joined, port, threads)
                self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
                if self._becomes_ready():
                    return
            self.close()
        raise UserError(f"TensorFlow Federated's worker did not start within {READY_WITHIN_S} s; is memory short?")

    @property
    def alive(self) -> bool:
        """Whether the process runs, and can be reached."""
        return self.process.poll() is None and self.home.stands

    @property
    def exposure(self) -> str | None:
        """How others can reach it while it runs, in words; None if they cannot."""
        if self.home.flaw is None:
            return None
        return f"the process with the training data, TensorFlow Federated's worker, {OPEN_DOOR} ({self.home.flaw})"

    @property
    def spent(self) -> bool:
        """Whether it holds so much memory that a new worker is worth the wait."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") > RESIDENT_BYTES

    def context(self) -> tff.framework.SyncExecutionContext:
        """Returns the stock execution context on top of this worker."""
        return tff.framework.SyncExecutionContext(
            executor_fn=tff.framework.ResourceManagingExecutorFactory(self._executor),
            compiler_fn=_compile,
            transform_args=tff.tensorflow.transform_args,
            transform_result=tff.tensorflow.transform_result,
        )

    def close(self) -> None:
        """Ends the worker at once; it holds nothing worth saving. Safe to call again, and after a fork does nothing."""
        if self._owner == os.getpid():
            self.process.kill()
            self.process.wait()
            self._channel.close()

    def _executor(self, cardinalities: dict) -> _Executor:
        if not self.alive:
            code = self.process.poll()
            how = "with its relay" if code is None else f"exit code {code}"
            raise UserError(
                f"TensorFlow Federated's worker died ({how}), often because memory ran out; lower "
                "pipeline.clients_per_round or give the run more memory"
            )
        cardinalities.setdefault(tff.CLIENTS, 0)
        executor = _Executor(self)
        executor.set_cardinalities(cardinalities)
        return executor

    def _becomes_ready(self) -> bool:
        """Makes the stub, and waits until it is connected."""
        watching, subscribe = [], self._channel.subscribe

        def remember(callback: Any, try_to_connect: bool) -> None:
            watching.append(callback)
            subscribe(callback, try_to_connect)

        self._channel.subscribe = remember
        self.stub = tff.framework.RemoteExecutorGrpcStub(self._channel)
        self._channel.subscribe = subscribe
        deadline = time.monotonic() + READY_WITHIN_S
        while self.alive and not self.stub.is_ready and time.monotonic() < deadline:
            time.sleep(POLL_S)
        # The stub would watch forever, in a thread whose file descriptors gRPC closes at its own end.
        for callback in watching:
            self._channel.unsubscribe(callback)
        return self.alive and bool(self.stub.is_ready)


def _compile(computation: Any) -> Any:
    """Compiles as TFF does, but first makes secure sums plain sums of the same integers: the worker has no others."""
    if b"federated_secure_sum" in tff.framework.serialize_computation(computation).SerializeToString():
        computation = tff.backends.test.replace_secure_intrinsics_with_bodies(computation)
    return tff.backends.native.desugar_and_transform_to_native(computation)


def _spawn(joined: tuple[str, ...], port: int, threads: int) -> subprocess.Popen[bytes]:
    """Starts the worker's binary, which ends with this process at the latest."""
    binary = Path(tff.__file__).parent / "data" / "worker_binary"
    at_work = str(threads)
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        LAUNCHER,
        str(os.getpid()),
        " ".join(joined),
        str(binary),
        f"--port={port}",
        f"--max_concurrent_computation_calls={at_work}",
    ]
    # Clients run in parallel, one on each thread: more would only take memory. A client's operations are small. To
    # divide them among threads that other clients keep busy makes a round half as long again. -1 threads for operations
    # means the client's own thread: to hand each operation to another thread took 5 % of a round.
    sizes = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "-1", "OMP_NUM_THREADS": "1"}
    try:
        return start_child(
            command, env={**ALLOCATOR, **STACKS, "MALLOC_ARENA_MAX": at_work, **os.environ, **sizes}
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"TensorFlow Federated's worker cannot be run: {error}") from None


@lru_cache
def _warn_once(flaw: str) -> None:
    logger.warning(
        "TensorFlow Federated's worker %s (%s): they can read the training data, and use files as you, while it runs; "
        "federated.require_private_worker=true refuses to train so",
        OPEN_DOOR,
        flaw,
    )


_worker: Worker | None = None
_lock = threading.Lock()


def ensure_worker(threads: int | None, *, private: bool = False) -> Worker:
    """Returns this process's worker as TFF's default context; starts one if there is none with that many threads.

    Args:
      threads: size of each thread pool; None takes the CPUs this process may use.
      private: whether to refuse a worker that others can reach.

    Raises:
      UserError: it does not start, or others can reach it although `private` is set.
    """
    global _worker
    threads = threads or len(os.sched_getaffinity(0))
    with _lock:
        if private:
            require_private_home()
        if _worker is not None and (not _worker.alive or _worker.threads != threads or _worker.spent):
            _worker.close()
            _worker = None
        if _worker is None:
            _configure_own_tensorflow(threads)
            _worker = Worker(threads)
            tff.framework.set_default_context(_worker.context())
        return _worker


@atexit.register
def close() -> None:
    """Ends this process's worker, if there is one. The next fit starts another."""
    global _worker
    with _lock:
        if _worker is not None:
            _worker.close()
            _worker = None


def _configure_own_tensorflow(threads: int) -> None:
    """Sets TensorFlow's thread pools in this process, which computes logits, and leaves GPUs to PyTorch.

    TensorFlow refuses both once it has computed something; its settings then stay as they are.
    """
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return
