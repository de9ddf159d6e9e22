"""The program that keeps the worker's home: it makes user and network namespaces of its own, which workers join.

TFF's worker listens on every address without authentication. In a network without any other machine or process, nothing
else can reach it. This program passes on connections from a Unix socket that its owner alone may open. It also holds
the memory with the training examples, because a process in a user namespace cannot look at the open files of a process
outside. It uses the standard library only, and ends with the process that started it.

Run as `python -I -S relay.py CONTROL PARENT FOLDER`: the descriptor of a socket for messages, the parent's process id,
and the folder to remove at the end. Its first message is "private" and the kinds of namespaces, or "open" and why
there are none. Then it accepts "listen PORT" with a listening socket; "hold" with a file, which it answers with the
file's number; and "drop NUMBER".
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
DIE_WITH_PARENT = 1
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
CAPABILITIES = struct.pack("Ii", 0x20080522, 0)
BUFFER = 2**20
POLL_S, PATIENCE_S = 0.01, 5


def main() -> None:
    """Keeps the home until the parent ends, or closes its side."""
    control, parent, folder = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    # When the parent dies, its signal and the end of its socket both come, perhaps one during the other's handling.
    signal.signal(signal.SIGTERM, lambda *_: leave(folder))
    try:
        try:
            kinds = shut_in()
        except OSError as error:
            control.send(f"open {error.strerror}".encode())
            return
        _libc().prctl(DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() == parent:
            control.send(f"private {kinds}".encode())
            obey(control)
    finally:
        leave(folder)


def leave(folder: str) -> None:
    """Removes the folder and ends."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def shut_in() -> str:
    """Moves into namespaces whose network is a loopback device, and gives up every privilege there.

    Returns:
      The kinds of the new namespaces: "user net"; or "net" if only an administrator may make namespaces.

    Raises:
      OSError: the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    kinds = "user net"
    try:
        _checked("unshare", NEW_USER | NEW_NETWORK)
    except OSError:
        _checked("unshare", NEW_NETWORK)
        kinds = "net"
    else:
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(device, GET_FLAGS, request)
        flags = struct.unpack_from("16xH", request)[0] | UP
        fcntl.ioctl(device, SET_FLAGS, struct.pack("16sH22x", b"lo", flags))
    if kinds != "net":  # a worker may look only at a process that has no more privileges than itself
        _checked("capset", CAPABILITIES, bytes(24))
    return kinds


def obey(control: socket.socket) -> None:
    """Answers messages until the other side closes."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        match message.decode().split():
            case ["listen", port]:
                listener = socket.socket(fileno=descriptors[0])
                _in_background(accept, listener, int(port))
            case ["hold"]:
                control.send(str(descriptors[0]).encode())
            case ["drop", number]:
                os.close(int(number))
            case _:
                return


def accept(listener: socket.socket, port: int) -> None:
    """Relays every connection to a port of the loopback device, until the listener is shut down."""
    with listener, contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            _in_background(relay, client, port)


def relay(client: socket.socket, port: int) -> None:
    """Relays one connection, once a worker listens."""
    deadline = time.monotonic() + PATIENCE_S
    with client, socket.socket() as worker:
        while worker.connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
        worker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = _in_background(copy, worker, client)
        copy(client, worker)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copies until one side ends, and then ends both."""
    buffer = memoryview(bytearray(BUFFER))
    with contextlib.suppress(OSError):
        while size := source.recv_into(buffer):
            target.sendall(buffer[:size])
    for end in source, target:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _in_background(function: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(function: str, *arguments: object) -> None:
    if getattr(_libc(), function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
