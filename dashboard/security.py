"""Who may talk to the app: a check in front of every route, and the headers behind every answer.

That the app listens on this machine alone is no protection: every page that is open in the same browser can send requests
here, and so can every other user of the machine. So each request must be addressed to a known host name (DNS rebinding), must
not have been started by another site (CSRF), must be small, and must carry the token of this launch. The check wraps the
whole WSGI application, so that no route, method or error page can be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from werkzeug.http import parse_cookie

from mmaudit.exceptions import SpecError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "LARGEST_BODY",
    "LOOPBACK_NAMES",
    "Access",
    "Guard",
    "Refusal",
    "canonical_host",
    "new_token",
    "policy",
    "refusal",
]

LARGEST_BODY = 1_000_000
"""Bytes of a request's body; the app's own are a few thousand."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Host names under which a browser on this machine may address the app."""

_LEAST_TOKEN = 22
"""Characters of a URL-safe token of 128 bits."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_UNTRUSTED = "Open the app by its own address: this one was reached through another site or name."
_NO_TOKEN = "This address needs its token: open the whole address that 'mmaudit serve' printed."


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    sentence: str


@dataclass(frozen=True)
class Access:
    """What a request must bring.

    Args:
        token: Secret of this launch, at least 128 bits, URL-safe.
        hosts: Canonical names (no port) that the ``Host`` header may have.
        cookie: Name of the cookie; browsers share cookies among the ports of a host, so the port belongs into it.

    Raises:
        SpecError: If the token is too short.
    """

    token: str = field(repr=False)
    hosts: frozenset[str]
    cookie: str = "mmaudit"

    def __post_init__(self) -> None:
        if len(self.token) < _LEAST_TOKEN:
            raise SpecError(
                f"expected a token of at least {_LEAST_TOKEN} URL-safe characters (128 bits), found {len(self.token)}; "
                "let the app make one"
            )

    @property
    def session(self) -> str:
        """Value of the cookie: made from the token, so that whoever sees the one does not have the other."""
        return hmac.new(self.token.encode(), b"mmaudit session", hashlib.sha256).hexdigest()

    @classmethod
    def of(cls, token: str, trusted: Iterable[str] = (), *, port: int = 0) -> Access:
        """Allow the names of this machine, and those that the owner trusts.

        Args:
            token: Secret of this launch.
            trusted: Further names, as a browser would send them; a port in them is ignored.
            port: Of the app.

        Raises:
            SpecError: If a trusted name is none.
        """
        names = set()
        for name in (*LOOPBACK_NAMES, *trusted):
            host = canonical_host(name)
            if host is None:
                raise SpecError(
                    f"expected the name of a host such as gpu1.example.org, found '{name}'; name each host on its own"
                )
            names.add(host[0])
        return cls(token, frozenset(names), f"mmaudit-{port}" if port else "mmaudit")


def new_token() -> str:
    """Draw the secret of a launch: 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def canonical_host(value: str) -> tuple[str, int | None] | None:
    """Take a ``Host`` header or the host of an origin apart.

    Args:
        value: Such as ``LOCALHOST:8050`` or ``[::1]``.

    Returns:
        The name in lower case (of IPv6 in brackets, in its shortest form) and the port; ``None`` where it is no host.

    Example:
        >>> canonical_host("LocalHost:8050"), canonical_host("[0:0::1]"), canonical_host("a, b")
        (('localhost', 8050), ('[::1]', None), None)
    """
    found = re.fullmatch(
        r"(\[[0-9a-fA-F:.]{2,45}\]|[^:\[\]@/\\\s]{1,253})(?::([0-9]{1,5}))?", value
    )
    if found is None:
        return None
    name, digits = found[1].lower(), found[2]
    port = int(digits) if digits else None
    if port is not None and not 0 < port < 65536:
        return None
    if name.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]", port
        except ValueError:
            return None
    # A name with a dot behind it is the same name, written absolutely.
    name = name.removesuffix(".")
    return (name, port) if _NAME.fullmatch(name) else None


def refusal(environ: WSGIEnvironment, access: Access) -> Refusal | None:
    """Judge a request by its headers; its cookie or token comes last.

    Returns:
        Why it is refused (400, 401, 403 or 413); ``None`` where it may pass.
    """
    host = canonical_host(environ.get("HTTP_HOST", ""))
    if host is None or host[0] not in access.hosts:
        return Refusal(400, _UNTRUSTED)
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not _same_origin(origin, host, environ.get("wsgi.url_scheme", "")):
        return Refusal(403, _UNTRUSTED)
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        return Refusal(403, f"{_UNTRUSTED} Paste the address into the address bar.")
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return Refusal(400, "The length of the request is no number.")
    if int(length) > LARGEST_BODY:
        return Refusal(413, "The request is too large.")
    try:
        given = parse_cookie(environ).getlist(access.cookie)
    except UnicodeError:
        return Refusal(400, "The cookies of the request are no text.")
    if any(_equal(value, access.session) for value in given):
        return None
    return Refusal(401, _NO_TOKEN)


def policy(script_hashes: Iterable[str]) -> str:
    """Write the Content-Security-Policy: scripts of the app alone, nothing from elsewhere, no frames around it.

    Args:
        script_hashes: Of the inline scripts of the page, as ``Dash.csp_hashes`` gives them.
    """
    scripts = " ".join(("'self'", *script_hashes))
    # The components, the tables and plotly set styles while they draw; plotly makes pictures for its download button.
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Guard:
    """A WSGI application around another one.

    Args:
        app: What answers the requests that pass.
        access: What they must bring.
        content_policy: Gives the Content-Security-Policy; called at the first request, when the page is known.
    """

    def __init__(
        self, app: WSGIApplication, access: Access, content_policy: Callable[[], str]
    ) -> None:
        self._app = app
        self._access = access
        self._content_policy = content_policy
        self._headers: list[tuple[str, str]] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        headers = self._security_headers()

        def start(status: str, given: list[tuple[str, str]], *more: Any) -> Any:
            ours = {name.lower() for name, _ in headers}
            kept = [(name, value) for name, value in given if name.lower() not in ours]
            has = {name.lower() for name, _ in kept}
            if "cache-control" not in has:
                # Scripts have a tag by which the browser asks whether they changed; what pages say is not kept.
                kept.append(("Cache-Control", "no-cache" if "etag" in has else "no-store"))
            return start_response(status, kept + headers, *more)

        refused = refusal(environ, self._access)
        if refused is not None and refused.status == 401:
            target = _exchange(environ, self._access)
            if target is not None:
                cookie = f"{self._access.cookie}={self._access.session}; Path=/; HttpOnly; SameSite=Strict"
                return _answer(
                    start, "303 See Other", "", [("Location", target), ("Set-Cookie", cookie)]
                )
        elif refused is None:
            # A browser that has the cookie and opens the printed address again must not keep the token in its address bar.
            target = _exchange(environ, self._access)
            if target is not None:
                return _answer(start, "303 See Other", "", [("Location", target)])
        if refused is not None:
            return _answer(start, f"{refused.status} Refused", refused.sentence, [])
        return self._app(environ, start)

    def _security_headers(self) -> list[tuple[str, str]]:
        if self._headers is None:
            self._headers = [
                ("Content-Security-Policy", self._content_policy()),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Referrer-Policy", "no-referrer"),
                ("Cross-Origin-Opener-Policy", "same-origin"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),
            ]
        return self._headers


def _answer(
    start: Any, status: str, sentence: str, headers: list[tuple[str, str]]
) -> Iterable[bytes]:
    body = f"{sentence}\n".encode() if sentence else b""
    start(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [body]


def _exchange(environ: WSGIEnvironment, access: Access) -> str | None:
    """Where to go on without the token that the address has; ``None`` where it has none, or a wrong one."""
    if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        return None
    pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    given = [value for name, value in pairs if name == "token"]
    if not given or not all(_equal(value, access.token) for value in given):
        return None
    rest = urlencode([pair for pair in pairs if pair[0] != "token"])
    # Two slashes at the beginning would lead to another host.
    path = "/" + environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "replace").lstrip(
        "/\\"
    )
    return quote(path) + (f"?{rest}" if rest else "")


def _same_origin(origin: str, host: tuple[str, int | None], scheme: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    there = canonical_host(parts.netloc)
    if there is None or parts.scheme != scheme or origin.count("/") != 2:
        return False
    default = {"http": 80, "https": 443}.get(scheme)
    return (there[0], there[1] or default) == (host[0], host[1] or default)


def _equal(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())
