"""Where the app listens, what it prints, and how it ends."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dashboard.serving import Place, choose_place, listen, serve
from mmaudit.exceptions import RecordError, SpecError
from tests.dashboard.conftest import add_record

CODE = """
import sys
from dashboard.serving import serve
serve(sys.argv[1], port=0, open_browser=False, show=lambda line: print(line, flush=True), say=lambda line: print(line, file=sys.stderr, flush=True), **eval(sys.argv[2]))
"""


@pytest.fixture
def started(tmp_path):
    """Starts the app in a process of its own; ends what is left of it."""
    running = []
    add_record(tmp_path / "w" / "first", "a" * 26, samples=20)

    def start(options=None, environment=None):
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path / "w"), repr(options or {"read_only": True})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        running.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _listening(pid):
    """Local addresses on which a process listens, as the kernel has them."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", str(handle.readlink()))
        if found:
            inodes.add(found[1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


def _get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("0.0.0.0", ()),
        ("::", ()),
        ("0", ()),
        ("10.0.0.1", ()),
        ("192.168.1.5", ()),
        ("::ffff:10.0.0.1", ()),
        ("", ()),
        ("no such host", ()),
        ("0.0.0.0", ("*",)),
        ("0.0.0.0", ("a b",)),
        ("127.0.0.1", ("http://x",)),
    ],
)
def test_a_network_is_refused_before_anything_is_bound(tmp_path, monkeypatch, host, trusted):
    def bind(*arguments):
        raise AssertionError("something was bound")

    monkeypatch.setattr("dashboard.serving.listen", bind)
    with pytest.raises(SpecError):
        serve(tmp_path, host=host, trusted_hosts=trusted, open_browser=False, read_only=True)


@pytest.mark.parametrize(
    ("host", "trusted", "loopback"),
    [
        ("127.0.0.1", (), True),
        ("localhost", (), True),
        ("127.0.0.2", (), True),
        ("0.0.0.0", ("gpu1.example.org",), False),
        ("127.0.0.1", ("gpu1",), True),
    ],
)
def test_what_may_be_bound(host, trusted, loopback):
    place = choose_place(host, trusted)
    assert place.loopback is loopback
    socket.inet_pton(place.family, place.address)


def test_only_this_machine_can_reach_the_app_whatever_the_environment_says(started):
    environment = {"HOST": "0.0.0.0", "PORT": "1", "DASH_HOST": "0.0.0.0", "FLASK_RUN_HOST": "0.0.0.0"}  # fmt: skip
    process, address = started(environment=environment)
    assert _listening(process.pid) == {"0100007F"}
    assert address.startswith("http://127.0.0.1:")


def test_a_trusted_name_opens_the_app_to_a_network_and_says_so(started):
    options = {"read_only": True, "host": "0.0.0.0", "trusted_hosts": ("gpu1.example.org",)}
    process, address = started(options)
    assert _listening(process.pid) == {"00000000"}
    port = int(re.fullmatch(r"http://gpu1\.example\.org:(\d+)/\?token=\S{43}", address)[1])
    path = address.partition(str(port))[2]
    assert _get(port, path, Host=f"gpu1.example.org:{port}").status == 303
    assert _get(port, path, Host=f"0.0.0.0:{port}").status == 400
    assert _get(port, path, Host="evil.example").status == 400
    process.send_signal(signal.SIGINT)
    assert "not encrypted" in process.communicate(timeout=20)[1]


def test_the_printed_address_opens_the_app_and_ctrl_c_ends_it(started):
    process, address = started()
    port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=\S{43}", address)[1])
    path = address.partition(str(port))[2]
    assert _get(port, "/").status == 401
    answer = _get(port, path)
    assert answer.status == 303
    assert answer.getheader("Server") is None
    cookie = answer.getheader("Set-Cookie").partition(";")[0]
    assert cookie.startswith(f"mmaudit-{port}=")
    assert _get(port, "/", Cookie=cookie).status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "", "one line on stdout"
    assert "The app has ended; no job is running." in err
    token = address.partition("token=")[2]
    assert token not in err
    with pytest.raises(OSError):
        _get(port, "/")


def test_every_launch_has_another_token(started):
    tokens = {started()[1].partition("token=")[2] for _ in range(2)}
    assert len(tokens) == 2


def test_a_large_body_is_refused_without_being_kept(started):
    process, address = started()
    port = int(re.search(r":(\d+)/", address)[1])

    def memory():
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1])

    _get(port, "/")
    before = memory()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /_dash-update-component HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n"
        )
        sent = 0
        with pytest.raises(OSError):
            while sent < 100_000_000:
                sent += connection.send(b"x" * 65536)
                if sent > 4_000_000:
                    time.sleep(0.01)
    assert sent < 100_000_000
    assert memory() - before < 20_000, "kilobytes"


def test_a_body_without_a_length_is_refused(started):
    _, address = started()
    port = int(re.search(r":(\d+)/", address)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /_dash-update-component HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        answer = b""
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            answer = connection.recv(200)
    assert b" 413 " in answer or answer == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_odd_ways_to_name_a_host_are_refused(started, request_):
    _, address = started()
    port = int(re.search(r":(\d+)/", address)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request_)
        assert b" 400 " in connection.recv(300).splitlines()[0]


def test_a_taken_port_is_named_and_without_a_wish_the_next_is_taken(monkeypatch):
    place = Place(socket.AF_INET, "127.0.0.1", True)
    with listen(place, 0) as first:
        first.listen()
        taken = first.getsockname()[1]
        with pytest.raises(SpecError, match=f"port {taken}.*--port"):
            listen(place, taken)
        monkeypatch.setattr("dashboard.serving._FIRST_PORT", taken)
        with listen(place, None) as second:
            assert second.getsockname()[1] != taken
        monkeypatch.setattr("dashboard.serving._PORTS_TRIED", 1)
        with pytest.raises(SpecError, match="all taken"):
            listen(place, None)


def test_a_workspace_is_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("none", "file"):
        with pytest.raises(RecordError, match="folder"):
            serve(tmp_path / place, open_browser=False)


def test_a_worker_is_started_beside_the_app_and_outlives_it(started, tmp_path):
    from mmaudit.jobs.queue import Queue

    queue = Queue(tmp_path / "w")
    process, _ = started({"read_only": False})
    until = time.monotonic() + 30
    while not queue.worker_is_running() and time.monotonic() < until:
        time.sleep(0.1)
    assert queue.worker_is_running()
    worker = _worker_of(tmp_path / "w")
    try:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert "A worker runs the jobs" in err
        assert queue.worker_is_running(), "Ctrl-C reaches the app alone"
        assert "token" not in Path(f"/proc/{worker}/environ").read_text(errors="replace").lower().replace("mmaudit_job_token", "")  # fmt: skip
    finally:
        os.kill(worker, signal.SIGTERM)


def _worker_of(workspace):
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mmaudit.jobs.worker" in words and str(workspace).encode() in words:
                return int(folder.name)
    raise AssertionError("no worker")


def test_a_read_only_app_starts_no_worker(started, tmp_path):
    process, _ = started({"read_only": True})
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert not (tmp_path / "w" / "jobs").exists()
