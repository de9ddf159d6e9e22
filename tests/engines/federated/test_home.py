"""Who can reach the worker: with real processes, users and namespaces."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.core.errors import UserError
from pipelines.engines.federated import runtime
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.home import Home, home

OTHER = 65534
as_another_user = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# Moves into a user namespace that may have no further ones: what an administrator or a container's profile forbids.
FENCED = """
import ctypes, os, sys
user, group = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
    open(f"/proc/self/{name}", "w").write(text)
for kind in ("user", "net"):
    open(f"/proc/sys/user/max_{kind}_namespaces", "w").write("0")
os.execv(sys.argv[1], sys.argv[1:])
"""
BECOME = "import encodings.idna, os, socket; os.setgroups([]); os.setgid({0}); os.setuid({0})\n"
TRY = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        socket.create_connection((address, int(port)), timeout=5)
        print("reached", address, port)
    except OSError:
        pass
"""


@pytest.fixture
def own() -> Iterator[Home]:
    """A home that no worker lives in yet."""
    made = Home()
    if made.flaw is not None:
        pytest.skip(f"no namespaces here: {made.flaw}")
    yield made
    made.close()


def private_worker() -> runtime.Worker:
    if flaw := home().flaw:
        pytest.skip(f"no namespaces here: {flaw}")
    return runtime.ensure_worker(None, private=True)


def sockets_of(pid: int) -> set[str]:
    links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}


def listening(pid: int | str) -> dict[str, int]:
    """TCP ports with a listener in the network of a process, by the number of the socket."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def addresses() -> list[str]:
    """All addresses of this machine, the loopback device's too."""
    kinds = (socket.AF_INET, socket.AF_INET6)
    found = [item for items in psutil.net_if_addrs().values() for item in items if item.family in kinds]
    return [item.address for item in found]


def run(code: str, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    become = "" if user is None else BECOME.format(user)  # from within: it may have no access to the interpreter
    command = [sys.executable, "-I", "-S", "-c", f"{become}{code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def test_nothing_of_the_worker_listens_where_others_are() -> None:
    worker = private_worker()
    inside, here = listening(worker.process.pid), listening("self")
    assert sockets_of(worker.process.pid) & inside.keys()  # it does listen
    for process in (worker.process, worker.home.process):
        assert process is not None
        assert not sockets_of(process.pid) & here.keys()
        assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("user", [pytest.param(OTHER, marks=as_another_user), None])
def test_no_address_of_the_machine_leads_to_the_worker(user: int | None) -> None:
    worker = private_worker()
    ports = set(listening(worker.process.pid).values())
    assert ports
    with socket.create_server(("", 0)) as open_to_all:  # what the worker would be like elsewhere
        known = open_to_all.getsockname()[1]
        targets = [word for address in addresses() for port in (known, *ports) for word in (address, str(port))]
        done = run(TRY, *targets, user=user)
    assert (done.returncode, done.stderr) == (0, "")
    reached = [line.split() for line in done.stdout.splitlines()]
    assert {int(port) for _, _, port in reached} == {known}
    assert {address for _, address, _ in reached} == {address for address in addresses() if ":" not in address}


def test_socket_is_private_and_closed_once_the_worker_connects(own: Home) -> None:
    with own.door() as (port, target):
        path = Path(target.removeprefix("unix:"))
        assert path.name == str(port)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        folder = path.parent.resolve()
    assert list(folder.iterdir()) == []
    worker = private_worker()
    assert tff.tensorflow.computation(lambda: tf.constant(7))() == 7
    assert list(Path(worker.home._folder).iterdir()) == []


@as_another_user
def test_another_user_cannot_connect_even_in_an_open_folder(own: Home) -> None:
    knock = "import socket, sys\nprint(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))"
    with own.door() as (port, _):
        path = Path(own._folder, str(port))
        assert run(knock, str(path), user=OTHER).stdout.strip() == "13"
        path.parent.chmod(0o755)
        assert run(knock, str(path), user=OTHER).stdout.strip() == "13"
        assert run(knock, str(path)).stdout.strip() == "0"


def test_two_homes_in_one_process_do_not_meet(own: Home) -> None:
    worker = private_worker()
    with own.door() as (port, _):
        assert port not in listening(worker.process.pid).values()
        assert own.joined != worker.home.joined


def test_a_home_ends_with_its_relay_and_leaves_no_folder(own: Home) -> None:
    assert own.process is not None
    own.process.kill()
    own.process.wait()
    assert not own.stands
    with pytest.raises(UserError, match=r"relay .* died"):
        own.keep(os.memfd_create("nothing"), own)
    own.close()
    own.close()
    assert not Path(own._folder).exists()


def test_no_place_for_the_socket_is_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(UserError, match="TMPDIR"):
        Home()


def fenced(*overrides: str, uri: str) -> subprocess.CompletedProcess[str]:
    """The command line where the system allows no namespaces."""
    command = [
        "-m",
        "pipelines.run",
        "experiment=smoke",
        "pipeline=dp_fed_avg",
        "privacy.noise_multiplier=1",
        *overrides,
        f"tracking.uri={uri}",
    ]
    done = run(FENCED, sys.executable, *command)
    if "assert ctypes" in done.stderr:
        pytest.skip("no user namespace here to forbid further ones in")
    return done


def test_an_open_worker_is_reported_on_terminal_and_in_statement(tmp_path: Path) -> None:
    done = fenced("tracking.log_model=false", "pipeline.rounds=2", uri=f"sqlite:///{tmp_path / 'runs.db'}")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "worker" in line]
    assert "require_private_worker" in line
    assert not line.startswith("WARNING")
    (statement,) = tmp_path.rglob("privacy_statement.md")
    assert "unshare" in statement.read_text()


def test_an_impossible_private_worker_is_refused_before_any_log(tmp_path: Path) -> None:
    done = fenced("federated.require_private_worker=true", uri=f"sqlite:///{tmp_path / 'runs.db'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "federated.require_private_worker=true" in done.stderr
    assert list(tmp_path.rglob("config.yaml")) == []


STAND = """
import sys
from pipelines.engines.federated.home import Home
home = Home()
print(home.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whenever_its_process_is_killed_relay_and_folder_go(tmp_path: Path, number: signal.Signals) -> None:
    places = [tmp_path / str(turn) for turn in range(12)]  # the end has two messengers, and either may be the first
    relays = []
    for place in places:
        place.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", STAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(place)},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            relays.append(psutil.Process(int(process.stdout.readline())))
            process.send_signal(number)
    _, alive = psutil.wait_procs(relays, timeout=20)
    assert all(relay.status() == psutil.STATUS_ZOMBIE for relay in alive)
    assert [list(place.iterdir()) for place in places] == [[]] * len(places)
