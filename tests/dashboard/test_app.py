"""The app behind its check: pages, callbacks, and requests that no page of ours sends."""

import json
import logging
import random
import subprocess
import sys

import pytest

from dashboard.pages import PAGES
from dashboard.values import check_body
from mmaudit.jobs.offers import OFFERS
from tests.dashboard.conftest import add_audit_file, add_record, make_app
from tests.dashboard.requests import body, send
from tests.report.fixtures import (
    HOSTILE,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_findings,
)

SUBMIT = "0123456789abcdef0123456789abcdef"


def _go(served, path):
    return send(served, body(served.app, "content.children", {"location.pathname": path}))


def _page(served, path):
    answer = _go(served, path)
    assert answer.status_code == 200
    return _text(answer)


def _text(answer):
    """What an answer says, without the escapes of JSON."""
    return json.dumps(json.loads(answer.data), ensure_ascii=False)


def _ask_for(served, file_id, *, remedy="agm", settings=None, submit=SUBMIT, clicks=1):
    offer = OFFERS.get(remedy if isinstance(remedy, str) else "", OFFERS["agm"])
    values = {s.name: s.default for s in offer.form} | (settings or {})
    return body(
        served.app,
        "location.pathname",
        {
            "retrain-go.n_clicks": clicks,
            "retrain-submit.data": submit,
            "retrain-file.value": file_id,
            "retrain-remedy.value": remedy,
            "value": [(n, None if isinstance(v, bool) else v) for n, v in values.items()],
            "checked": [(n, v if isinstance(v, bool) else None) for n, v in values.items()],
            "id": [(n, {"type": "setting", "name": n}) for n in values],
        },
    )


def test_every_page_has_a_constant_title_and_opens(served):
    for name, page in PAGES.items():
        answer = _go(served, f"/{name}")
        assert answer.status_code == 200
        assert json.loads(answer.data)["response"]["page-title"]["data"]["title"] == page.title


def test_the_list_has_the_audits(served):
    text = _page(served, "/")
    assert "audio-visual digits, late fusion" in text
    assert "/diagnosis/" + "a" * 26 in text


def test_a_diagnosis_tells_the_story_in_the_order_of_the_report(served):
    text = _page(served, "/diagnosis/" + "a" * 26)
    parts = [
        "How it was done", '"Accuracy"', '"Modalities"', "What stands out", '"contributions-title"', '"coalitions-title"',
        '"utilization-title"', '"responses-title"', "Class by class", '"classes-title"', "All classes", '"samples"',
        "Methods and provenance",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_findings_come_before_the_figures_and_open(workspace):
    judged = with_findings(make_report(samples=60), "under-used", "undetermined")
    judged.save(workspace / "judged")
    text = _page(make_app(workspace), f"/diagnosis/{judged.record.report_id}")
    parts = [
        '"Accuracy"', '"Findings"', "The model is worse than audio alone", "verdict verdict-under-used",
        "depends on the mask: audio", "Worth trying: agm, mla.", "mmaudit retrain audit.yaml --remedy agm",
        "What lies behind each finding", "read and needed beyond delta", "Estimates behind it",
        "No unimodal model was given", '"contributions-title"',
    ]  # fmt: skip
    place = 0
    for part in parts:
        place = text.index(part, place)
    assert "What stands out" not in text


@pytest.mark.parametrize(
    "report",
    [
        empty_report(),
        with_findings(twelve_report(), *["harmful"] * 12),
        hostile_report(),
        make_report(("one",), samples=30),
        make_report(tuple("abcdef"), samples=30),
    ],
    ids=["empty", "twelve", "hostile", "one", "six"],
)
def test_every_kind_of_report_has_a_page(workspace, report):
    report.save(workspace / "it")
    served = make_app(workspace)
    for row in served.site.library.audits().rows:
        assert _page(served, f"/diagnosis/{row.key}")


@pytest.mark.parametrize(
    "path", ["/diagnosis/none", "/diagnosis/", "/jobs/none", "/compare/none", "/x", "/diagnosis/a/b", "/" + "x" * 150, ""]
)  # fmt: skip
def test_an_address_that_leads_nowhere_says_so(served, path):
    text = _page(served, path)
    assert path == "" or "No " in text or "no " in text


def test_samples_come_a_page_at_a_time(served):
    values = {
        "getRowsRequest": {"startRow": 10, "endRow": 15},
        "id": {"type": "samples-grid", "shown": "all"},
        "samples-key.data": "a" * 26,
    }
    answer = send(served, body(served.app, "getRowsResponse", values))
    rows = next(iter(json.loads(answer.data)["response"].values()))["getRowsResponse"]
    assert len(rows["rowData"]) == 5
    assert rows["rowCount"] == 60


def test_a_retraining_is_asked_for_once(workspace):
    file_id = add_audit_file(workspace)
    served = make_app(workspace)
    first = send(served, _ask_for(served, file_id))
    again = send(served, _ask_for(served, file_id))
    assert first.status_code == again.status_code == 200
    (job,) = served.site.desk.jobs()
    target = json.loads(first.data)["response"]["location"]["pathname"]
    assert target == json.loads(again.data)["response"]["location"]["pathname"] == f"/jobs/{job.id}"
    assert job.title in _page(served, target)


def test_the_confirmation_says_what_is_trained_and_written(workspace):
    file_id = add_audit_file(workspace)
    served = make_app(workspace)
    content = _ask_for(served, file_id, settings={"epochs": 7, "control": True})
    asked = body(
        served.app,
        "retrain-summary.children",
        {
            "retrain-ask.n_clicks": 1,
            **{f"{p['id']}.{p['property']}": p["value"] for p in content["state"][1:3]},
            "value": [(p["id"]["name"], p["value"]) for p in content["state"][3]],
            "checked": [(p["id"]["name"], p["value"]) for p in content["state"][4]],
            "id": [(p["id"]["name"], p["value"]) for p in content["state"][5]],
        },
    )
    text = _text(send(served, asked))
    for part in ("AGM", "7 epochs", "audit.yaml", "workspace/retrainings", "as a control", "stays as it is"):  # fmt: skip
        assert part in text
    assert served.site.desk.jobs() == ()


def test_the_button_is_off_while_what_is_stored_says_so(workspace):
    file_id = add_audit_file(workspace)

    def off(served):
        values = {"retrain-file.value": file_id, "retrain-remedy.value": "agm"}
        answer = json.loads(send(served, body(served.app, "retrain-ask.disabled", values)).data)
        return answer["response"]["retrain-ask"]["disabled"]

    served = make_app(workspace)
    assert off(served) is False
    send(served, _ask_for(served, file_id))
    assert off(served) is True
    assert off(make_app(workspace)) is True, "after a restart too"
    served.site.desk.cancel(served.site.desk.jobs()[0].id)
    assert off(served) is False


def test_a_file_that_has_changed_is_not_trained(workspace):
    file_id = add_audit_file(workspace)
    served = make_app(workspace)
    (workspace.parent / "project" / "net_of_the_app.py").write_text("import os\n")
    text = _text(send(served, _ask_for(served, file_id)))
    assert "net_of_the_app.py has changed" in text
    assert str(workspace.parent) not in text
    assert served.site.desk.jobs() == ()


@pytest.mark.parametrize("read_only", [True])
def test_a_read_only_app_has_nothing_to_press(workspace, read_only):
    file_id = add_audit_file(workspace)
    writing = make_app(workspace)
    content = _ask_for(writing, file_id)
    served = make_app(workspace, read_only=read_only)
    assert send(served, content).status_code == 400
    assert served.site.desk.jobs() == ()
    send(writing, content)
    (job,) = served.site.desk.jobs()
    assert "job-cancel-go" not in str([p["inputs"] for p in served.app.callback_map.values()])
    assert _page(served, f"/jobs/{job.id}")
    assert "read-only" in _page(served, "/retrain")


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": "10"},
        {"epochs": True},
        {"epochs": ""},
        {"lr": "1e-3; rm -rf /"},
        {"lr": 1e9},
        {"start": "/etc/passwd"},
        {"alpha": None},
        {"out": "/tmp/x"},
        {"audit_file": "../../x.yaml"},
        {"remedy": "os:system"},
        {"control": [1]},
    ],
    ids=str,
)
def test_settings_out_of_bounds_start_nothing(workspace, settings):
    file_id = add_audit_file(workspace)
    served = make_app(workspace)
    answer = send(served, _ask_for(served, file_id, settings=settings))
    assert answer.status_code in (200, 400)
    assert "/jobs/" not in answer.get_data(as_text=True).replace("\\u002f", "/")
    assert served.site.desk.jobs() == ()


@pytest.mark.parametrize("remedy", ["", "os:system", "../agm", "AGM", None, 3, ["agm"], {"a": 1}])
@pytest.mark.parametrize("file_id", ["", "../audit.yaml", "/etc/passwd", None, 1, "a" * 26])
def test_only_registered_files_and_offered_remedies_are_trained(served, file_id, remedy):
    answer = send(served, _ask_for(served, file_id, remedy=remedy))
    assert answer.status_code == 400
    assert served.site.desk.jobs() == ()


def _odd(random_, depth=0):
    """Something that a browser of ours would not send."""
    plain = [
        None, True, -1, 0, 1, 2**63, 1e308, 0.5, "", "x", HOSTILE, "../../etc/passwd", "os:system", "a" * 1000,
        "\0", "\ud800", "/diagnosis/" + "a" * 26, "__import__('os')", "agm", "all", "a" * 26,
    ]  # fmt: skip
    roll = random_.random()
    if depth < 3 and roll < 0.15:
        return [_odd(random_, depth + 1) for _ in range(random_.randrange(4))]
    if depth < 3 and roll < 0.3:
        return {str(_odd(random_, 3))[:20]: _odd(random_, depth + 1) for _ in range(random_.randrange(4))}  # fmt: skip
    return random_.choice(plain)


def _mutate(random_, value, rate):
    if random_.random() < rate:
        return _odd(random_)
    if isinstance(value, dict):
        kept = {k: _mutate(random_, v, rate) for k, v in value.items()}
        if random_.random() < rate:
            kept.pop(random_.choice(list(kept) or [""]), None)
        return kept
    if isinstance(value, list):
        return [_mutate(random_, v, rate) for v in value]
    return value


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_bodies_start_no_job_and_show_no_traceback(workspace, seed, caplog):
    """Five hundred: well-formed requests of every callback with odd values, and with odd shapes."""
    caplog.set_level(logging.CRITICAL)
    file_id = add_audit_file(workspace)
    served = make_app(workspace)
    random_ = random.Random(seed)
    specs = [key for key, spec in served.app.callback_map.items() if "callback" in spec]
    assert len(specs) >= 9
    seen = set()
    for number in range(125):
        key = specs[number % len(specs)]
        content = body(served.app, key, {})
        if number % 5 == 0:
            content = _ask_for(served, file_id, submit="x")  # a submit id that is none
        for part in (*content["inputs"], *content["state"]):
            if isinstance(part, dict) and random_.random() < 0.7:
                part["value"] = _odd(random_)
        if number % 2:
            content = _mutate(random_, content, 0.08)
        answer = send(served, json.dumps(content).encode())
        text = answer.get_data(as_text=True)
        seen.add(answer.status_code)
        assert answer.status_code in (200, 204, 400), (answer.status_code, content)
        for word in ("Traceback", 'File "', "site-packages", "/dashboard/", ".py"):
            assert word not in text.replace("audit.yaml", ""), word
    assert served.site.desk.jobs() == ()
    assert {200, 400} <= seen, "some passed the door and some did not"
    assert not (workspace / "jobs").exists() or not served.site.desk.jobs()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b'""', b"\xff", b'{"output": 1}', b'{"output": "x.y"}', b'{"output": ["a"]}', b"[" * 50_000],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(served, data):
    answer = send(served, data)
    assert answer.status_code == 400
    assert len(answer.data) < 200


def test_other_content_types_are_refused(served):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = served.client.post(
            "/_dash-update-component", data=b"{}", content_type=kind, base_url=served.base
        )
        assert answer.status_code == 415


def test_inputs_of_another_callback_are_refused(served):
    good = body(served.app, "content.children", {"location.pathname": "/"})
    check_body(good, served.app.callback_map)
    for change in (
        {"inputs": []},
        {"inputs": good["inputs"] * 2},
        {"inputs": [{"id": "other", "property": "pathname"}]},
        {"inputs": [{"id": "location", "property": "href"}]},
        {"state": good["inputs"]},
        {"changedPropIds": ["other.value"]},
        {"changedPropIds": "location.pathname"},
        {"outputs": []},
        {"outputs": {"id": "content", "property": "children"}},
    ):
        assert send(served, {**good, **change}).status_code == 400, change


def test_a_failure_says_an_id_and_nothing_else(served, monkeypatch, caplog):
    def broken(self):
        raise RuntimeError(f"secret in {__file__}")

    monkeypatch.setattr("dashboard.data.Library.audits", broken)
    answer = _go(served, "/")
    text = answer.get_data(as_text=True)
    assert "secret" not in text
    assert __file__ not in text
    number = text.split("under the id ")[1][:8]
    assert f"error {number} in the app" in caplog.text
    assert "secret" in caplog.text, "the terminal has the details"


@pytest.mark.parametrize(
    "path",
    ["/_dash-component-suites/dash/../../etc/passwd", "/_dash-component-suites/os/x.js", "/_dash-component-suites/dash/<script>",
     "/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/none.css"],
)  # fmt: skip
def test_files_beside_the_assets_are_out_of_reach(served, path):
    answer = served.client.get(path, base_url=served.base)
    text = answer.get_data(as_text=True)
    assert answer.status_code == 404 or "<title>mmaudit</title>" in text
    for word in ("script>alert", "def ", "root:", "registered"):
        assert word not in text
    answer.close()


def test_nothing_that_dash_could_do_besides_is_switched_on(served, monkeypatch):
    for name in ("_mcp", "console", "_alive", "health", "_dash-ws-callback"):
        answer = served.client.get(f"/{name}", base_url=served.base)
        assert "<title>mmaudit</title>" in answer.get_data(as_text=True), (
            "an address of the app itself"
        )
    config = served.client.get("/", base_url=served.base).get_data(as_text=True)
    assert '"ui":false' in config
    assert "hot_reload" not in config
    assert "<script>" not in config.replace("_dash-config", "").replace("_dash-renderer", "")


def test_the_environment_changes_nothing(workspace, monkeypatch):
    for name, value in (
        ("DASH_MCP_ENABLED", "true"), ("DASH_DEBUG", "true"), ("DASH_ASSETS_EXTERNAL_PATH", "https://evil.example/"),
        ("DASH_URL_BASE_PATHNAME", "/x/"), ("DASH_REQUESTS_PATHNAME_PREFIX", "/y/"), ("DASH_SERVE_LOCALLY", "false"),
        ("FLASK_DEBUG", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    served = make_app(workspace)
    text = served.client.get("/", base_url=served.base).get_data(as_text=True)
    assert "evil.example" not in text
    assert "/_mcp" not in {rule.rule for rule in served.app.server.url_map.iter_rules()}
    assert "/_dash-layout" in {rule.rule for rule in served.app.server.url_map.iter_rules()}


def test_no_page_asks_another_host_for_anything(served):
    text = served.client.get("/", base_url=served.base).get_data(as_text=True)
    assert "cdn" not in text
    assert "//unpkg" not in text


def test_the_app_loads_no_torch():
    """In a fresh interpreter, with a page drawn and a job looked for."""
    code = """
import sys, tempfile, pathlib
from dashboard.serving import serve
from tests.dashboard.conftest import make_app
from tests.dashboard.requests import body, send
served = make_app(pathlib.Path(tempfile.mkdtemp()))
for path in ("/", "/jobs", "/retrain", "/compare", "/diagnosis/x"):
    assert send(served, body(served.app, "content.children", {"location.pathname": path})).status_code == 200
for name in ("torch", "captum", "accelerate", "mmaudit.evidence", "mmaudit.training", "mmaudit.remedies", "sklearn"):
    assert name not in sys.modules, name
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_ids_in_addresses_are_ours(workspace):
    add_record(workspace / "odd", "../../etc", samples=20)
    served = make_app(workspace)
    assert "../../etc" not in _page(served, "/")
