"""Serving the app on this machine: one address, one worker beside it, and a clean end.

The address to listen on is passed explicitly and decided before anything is bound: an inherited ``HOST`` in the environment
changes nothing. Whatever is not this machine alone needs a trusted host name, so that nobody opens the app to a network by
accident.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from waitress.server import create_server

from dashboard.app import create_app
from dashboard.data import Library
from dashboard.security import LARGEST_BODY, Access, canonical_host, new_token
from dashboard.site import Site
from dashboard.work import Desk
from mmaudit.exceptions import RecordError, SpecError

__all__ = ["Place", "choose_place", "listen", "serve"]

_FIRST_PORT = 8050
_PORTS_TRIED = 20
_THREADS = 8


class Place(NamedTuple):
    """Where the app listens."""

    family: int
    address: str
    """An IP address, never a name: what was checked is what is bound."""
    loopback: bool


def serve(
    workspace: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    read_only: bool = False,
    trusted_hosts: Sequence[str] = (),
    show: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the app until Ctrl-C; jobs go on afterwards.

    Args:
        workspace: Folder with audits.
        host: Address or name of this machine to listen on.
        port: To listen on; 0 for any free one, left out for the first free one from 8050.
        open_browser: Open the address in the user's browser.
        read_only: Nothing can be started, cancelled or resumed, and no worker is started.
        trusted_hosts: Names under which browsers may address the app, beside those of this machine.
        show: Prints the address, which is the result.
        say: Prints what else there is to say.

    Raises:
        RecordError: If there is no such folder.
        SpecError: If the app would listen to other machines without a trusted host, or the port is taken.
    """
    folder = Path(workspace)
    if not folder.is_dir():
        raise RecordError(f"expected the folder of a workspace, found no folder at {folder}")
    place = choose_place(host, trusted_hosts)
    with listen(place, port) as listening:
        port = int(listening.getsockname()[1])
        access = Access.of(new_token(), _names(place, trusted_hosts), port=port)
        site = Site(Library(folder), Desk(folder), read_only=read_only)
        # Who opens the list first does not wait for it.
        threading.Thread(target=site.library.audits, daemon=True).start()
        app = create_app(site, access)
        name = trusted_hosts[0] if trusted_hosts and not place.loopback else _written(place)
        address = f"http://{_with_port(name, port)}/?token={access.token}"
        _logging()
        server = create_server(
            app.server.wsgi_app,
            sockets=[listening],
            threads=_THREADS,
            ident=None,
            max_request_body_size=LARGEST_BODY,
            clear_untrusted_proxy_headers=True,
        )
        worker = None if read_only else site.desk.start_worker()
        say(f"mmaudit app on {folder}{', read-only' if read_only else ''}")
        show(address)
        for line in _remarks(site, place, worker):
            say(line)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            # waitress returns at Ctrl-C; the jobs are in sessions of their own and do not get it.
            server.run()
        finally:
            server.close()
        say(_farewell(site, folder))


def choose_place(host: str, trusted_hosts: Sequence[str] = ()) -> Place:
    """Decide where to listen, before anything is bound.

    Args:
        host: Address or name.
        trusted_hosts: Names under which browsers may address the app.

    Raises:
        SpecError: If the host is unknown, or belongs to a network and no host is trusted.
    """
    try:
        found = socket.getaddrinfo(host or "?", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SpecError(
            f"expected an address of this machine for --host, such as 127.0.0.1, found '{host}'"
        ) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, address = found[0][0], str(found[0][4][0])
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    for name in trusted_hosts:
        if canonical_host(name) is None:
            raise SpecError(
                f"expected a host name for --trusted-host, such as gpu1.example.org, found '{name}'"
            )
    if not loopback and not trusted_hosts:
        raise SpecError(
            f"--host {host} would let other machines reach the app; say also under which name they do (--trusted-host NAME), "
            "or leave --host out and use a tunnel: ssh -L 8050:127.0.0.1:8050 MACHINE"
        )
    return Place(family, address, loopback)


def listen(place: Place, port: int | None) -> socket.socket:
    """Bind a socket.

    Args:
        place: Where.
        port: 0 for any; ``None`` for the first free one from 8050.

    Raises:
        SpecError: If the port is taken or not allowed.
    """
    ports = [port] if port is not None else range(_FIRST_PORT, _FIRST_PORT + _PORTS_TRIED)
    for tried in ports:
        listening = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((place.address, tried))
            return listening
        except OSError as error:
            listening.close()
            if port is None and error.errno == errno.EADDRINUSE:
                continue
            raise SpecError(
                f"cannot listen on {place.address} port {tried}: {error.strerror or error}; choose another with --port"
            ) from error
    raise SpecError(
        f"the ports {_FIRST_PORT} to {_FIRST_PORT + _PORTS_TRIED - 1} are all taken; choose another with --port"
    )


def _written(place: Place) -> str:
    return f"[{place.address}]" if place.family == socket.AF_INET6 else place.address


def _with_port(name: str, port: int) -> str:
    found = canonical_host(name)
    return name if found is not None and found[1] is not None else f"{name}:{port}"


def _names(place: Place, trusted_hosts: Sequence[str]) -> list[str]:
    """Names beside those of this machine; an address that stands for all addresses is none."""
    wild = ipaddress.ip_address(place.address.partition("%")[0]).is_unspecified
    return [*trusted_hosts, *([] if wild else [_written(place)])]


def _remarks(site: Site, place: Place, worker: str | None) -> list[str]:
    lines = []
    if not site.read_only:
        lines.append(
            "Whoever has this address can start trainings here: it holds a secret of this launch."
        )
    if not place.loopback:
        lines.append(
            "Other machines can reach the app, and what they exchange with it is not encrypted."
        )
    if worker is not None:
        lines.append(worker)
    return [*lines, "Ctrl-C ends the app."]


def _logging() -> None:
    """Details of failures go to the terminal; requests are not logged, so that no token can be."""
    log = logging.getLogger("mmaudit.app")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _farewell(site: Site, folder: Path) -> str:
    active = site.desk.active()
    if not active:
        return "The app has ended; no job is running."
    jobs = "1 job goes on" if active == 1 else f"{active} jobs go on"
    return f"The app has ended; {jobs} in the background: mmaudit jobs {folder} shows them."
