"""Every request is checked: by route, by method, by header, by cookie."""

import logging

import pytest

from dashboard.security import LARGEST_BODY, Access, canonical_host, new_token, policy, refusal
from mmaudit.exceptions import SpecError
from tests.dashboard.conftest import HOST, TOKEN, make_app

ACCESS = Access.of(TOKEN)
COOKIE = f"{ACCESS.cookie}={ACCESS.session}"

GOOD = [
    {"Host": HOST},
    {"Host": "LOCALHOST:8050"},
    {"Host": "localhost.:8050"},
    {"Host": "[::1]:8050"},
    {"Host": "[0:0:0:0:0:0:0:1]:8050"},
    {"Host": "localhost:9999"},  # through a tunnel
    {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"},
    {"Host": "LocalHost:8050", "Origin": "http://localhost:8050"},
    {"Host": "localhost", "Origin": "http://localhost:80"},
    {"Host": HOST, "Sec-Fetch-Site": "none"},
]
BAD = [
    ({"Host": "evil.example"}, 400),
    ({"Host": "127.0.0.1.evil.example:8050"}, 400),
    ({"Host": f"{HOST}@evil.example"}, 400),
    ({"Host": f"{HOST}, evil.example"}, 400),
    ({"Host": ""}, 400),
    ({"Host": "2130706433:8050"}, 400),
    ({"Host": "127.0.0.1:99999"}, 400),
    ({"Host": "0.0.0.0:8050"}, 400),
    ({"Host": HOST, "Origin": "null"}, 403),
    ({"Host": HOST, "Origin": ""}, 403),
    ({"Host": HOST, "Origin": "http://evil.example"}, 403),
    ({"Host": HOST, "Origin": "http://127.0.0.1:8051"}, 403),
    ({"Host": HOST, "Origin": "http://localhost:8050"}, 403),
    ({"Host": HOST, "Origin": f"https://{HOST}"}, 403),
    ({"Host": HOST, "Origin": f"http://{HOST}, http://evil.example"}, 403),
    ({"Host": HOST, "Origin": f"http://{HOST}/evil"}, 403),
    ({"Host": HOST, "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": HOST, "Sec-Fetch-Site": "same-site"}, 403),
    ({"Host": HOST, "Sec-Fetch-Site": "Same-Origin, cross-site"}, 403),
    ({"Host": HOST}, 413),
    ({"Host": HOST, "Cookie": ""}, 401),
    ({"Host": HOST, "Cookie": f"{ACCESS.cookie}="}, 401),
    ({"Host": HOST, "Cookie": f"{ACCESS.cookie}={TOKEN}"}, 401),
    ({"Host": HOST, "Cookie": f"{ACCESS.cookie}={Access.of(new_token()).session}"}, 401),
    ({"Host": HOST, "Cookie": f"{ACCESS.cookie}=\N{SNOWMAN}".encode().decode("latin-1")}, 401),
    ({"Host": HOST, "Cookie": f"{ACCESS.cookie}=ümläut"}, 400),
]
TOO_LARGE = b" " * (LARGEST_BODY + 1)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def _addresses(app):
    """Every route that the server has, with something in its variable parts, and some that it has not."""
    fill = {"package_name": "dash", "fingerprinted_path": "deps/x.js", "filename": "app.css", "path": "diagnosis/x"}  # fmt: skip
    with app.server.test_request_context(base_url=f"http://{HOST}"):
        found = []
        for rule in app.server.url_map.iter_rules():
            values = {name: fill[name] for name in rule.arguments}
            found.append(rule.build(values, append_unknown=False)[1])
    return [*found, "/console", "/_mcp", "/a/b/c", "/assets/none.js", "/%2e%2e/etc/passwd"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return make_app(tmp_path_factory.mktemp("empty"))


def test_the_table_has_every_route(served):
    addresses = _addresses(served.app)
    assert {"/", "/_dash-layout", "/_dash-update-component", "/assets/app.css"} <= set(addresses)
    assert len(addresses) >= 13


@pytest.mark.parametrize("method", METHODS)
def test_every_attack_on_every_route_is_refused(served, method):
    for address in _addresses(served.app):
        for headers, status in BAD:
            sent = {"Cookie": COOKIE, **headers}
            answer = served.anonymous.open(
                address,
                method=method,
                headers=sent,
                base_url=served.base,
                data=TOO_LARGE if status == 413 else None,
            )
            assert answer.status_code == status, (address, method, headers)
            assert "Set-Cookie" not in answer.headers
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert len(answer.data) < 300


@pytest.mark.parametrize("headers", GOOD, ids=lambda headers: str(headers))
def test_the_owner_gets_through(served, headers):
    for address in ("/", "/_dash-layout", "/_dash-dependencies", "/assets/app.css"):
        answer = served.anonymous.get(address, headers={"Cookie": COOKIE, **headers}, base_url=served.base)  # fmt: skip
        assert answer.status_code == 200, address
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        answer.close()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 401),
        ("?token=", 401),
        (f"?token={TOKEN[:-1]}", 401),
        (f"?token={TOKEN}x", 401),
        (f"?token=wrong&token={TOKEN}", 401),
        (f"?Token={TOKEN}", 401),
        (f"?token={TOKEN}", 303),
    ],
)
def test_only_the_token_of_this_launch_becomes_a_cookie(served, query, status):
    answer = served.anonymous.get(f"/{query}", base_url=served.base)
    assert answer.status_code == status
    assert ("Set-Cookie" in answer.headers) == (status == 303)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_is_not_the_token(served):
    answer = served.anonymous.get(f"/?token={TOKEN}", base_url=served.base)
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        ("/", "", "/"),
        ("/diagnosis/abc", "a=1&b=%2F", "/diagnosis/abc?a=1&b=%2F"),
        ("//evil.example/x", "", "/evil.example/x"),
        ("/\\evil.example", "", "/evil.example"),
        ("/a\r\nX: y", "", "/a%0D%0AX%3A%20y"),
        ("/\xc3\xa9", "", "/%C3%A9"),
    ],
)
def test_the_token_leaves_the_address_and_the_address_stays_here(served, path, query, target):
    environ = {"PATH_INFO": path, "QUERY_STRING": f"{query}&token={TOKEN}".lstrip("&")}
    answer = served.anonymous.get("/", environ_overrides=environ, base_url=served.base)
    assert answer.status_code == 303
    assert answer.headers["Location"] == target


def test_who_has_the_cookie_and_opens_the_printed_address_again_loses_the_token_from_it(served):
    answer = served.client.get(f"/?token={TOKEN}", base_url=served.base)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_a_token_opens_nothing_but_pages(served):
    for method in ("POST", "PUT", "DELETE"):
        answer = served.anonymous.open(f"/?token={TOKEN}", method=method, base_url=served.base)
        assert answer.status_code == 401


def test_the_token_is_in_no_log_and_no_representation(served, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        served.anonymous.get(f"/?token={TOKEN}", base_url=served.base)
        served.anonymous.get("/?token=wrong", base_url=served.base)
    said = caplog.text + "".join(capfd.readouterr()) + repr(served.access)
    assert TOKEN not in said
    assert served.access.session not in said


def test_a_short_token_is_refused_and_a_drawn_one_has_256_bits():
    with pytest.raises(SpecError, match="128 bits"):
        Access.of("x" * 21)
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) == 43


@pytest.mark.parametrize("name", ["*", "", "a b", "a/b", "a,b", "http://a", "-a", "a:0"])
def test_a_trusted_host_is_a_name(name):
    with pytest.raises(SpecError, match="name of a host"):
        Access.of(TOKEN, [name])


def test_a_trusted_host_gets_through_by_its_name_only():
    access = Access.of(TOKEN, ["GPU1.example.org:8050"])
    environ = {"HTTP_COOKIE": f"{access.cookie}={access.session}", "wsgi.url_scheme": "http"}
    assert refusal({**environ, "HTTP_HOST": "gpu1.example.org:8050"}, access) is None
    assert refusal({**environ, "HTTP_HOST": "gpu2.example.org:8050"}, access).status == 400


def test_two_apps_on_one_host_do_not_share_a_cookie():
    assert Access.of(TOKEN, port=8050).cookie != Access.of(TOKEN, port=8051).cookie


def test_the_length_of_a_body_is_a_number():
    environ = {"HTTP_HOST": HOST, "HTTP_COOKIE": COOKIE, "wsgi.url_scheme": "http"}
    assert refusal({**environ, "CONTENT_LENGTH": "-1"}, ACCESS).status == 400
    assert refusal({**environ, "CONTENT_LENGTH": "١"}, ACCESS).status == 400


def test_a_large_body_is_refused_even_where_its_length_is_not_told(served):
    body = b"[" + b"1," * LARGEST_BODY + b"1]"
    answer = served.client.post("/_dash-update-component", data=body, content_type="application/json", base_url=served.base)  # fmt: skip
    assert answer.status_code == 413


def test_the_policy_names_no_other_origin():
    text = policy(["'sha256-abc'"])
    assert "http" not in text
    assert "unsafe-eval" not in text
    assert "script-src 'self' 'sha256-abc';" in text


@pytest.mark.parametrize("value", ["[::1", "a:b:c", "a b", "[::1]x", "ü.example", "a" * 300])
def test_what_is_no_host_is_none(value):
    assert canonical_host(value) is None


def test_what_pages_say_is_not_kept_by_the_browser(served):
    for address, kept in (("/", "no-store"), ("/_dash-layout", "no-store"), ("/assets/app.css", "no-cache")):  # fmt: skip
        answer = served.client.get(address, base_url=served.base)
        assert answer.headers["Cache-Control"] == kept
        answer.close()
