from mmaudit.report import AuditReport
from mmaudit.report.schema import FileRecord, Finding
from mmaudit.report.sentences import standout
from mmaudit.report.statements import advice, further_advice, of_the_model, statement, verdicts
from tests.report.fixtures import make_report, twelve_report, with_findings


def _judged(*names, whole=True):
    modalities = ("audio", "image", "text")[: len(names)]
    return with_findings(make_report(modalities, samples=60), *names, whole=whole).record


def test_verdicts_are_in_the_order_of_the_modalities():
    record = _judged("well used", "harmful")
    assert {k: v.verdict for k, v in verdicts(record).items()} == {"audio": "well used", "image": "harmful"}  # fmt: skip
    turned = record.model_copy(update={"findings": record.findings[::-1]})
    assert list(verdicts(turned)) == ["audio", "image"]


def test_only_what_asks_for_something_is_advised():
    (found,) = advice(_judged("under-used", "well used"))
    assert found.text.startswith("audio is under-used")
    assert found.below == ("Worth trying: agm, mla.",)
    assert found.command == "mmaudit retrain audit.yaml --remedy agm"
    assert found.mark == "!"


def test_the_worst_comes_first_and_a_missing_piece_is_said():
    found = advice(_judged("undetermined", "under-used", "harmful"))
    assert [one.level for one in found] == ["problem", "attention", "information"]
    assert found[2].below == (
        "No unimodal model was given; train one with 'mmaudit unimodal audit.yaml'.",
    )
    assert found[2].command is None


def test_where_nothing_is_to_be_done_the_verdicts_themselves_are_told():
    found = advice(_judged("well used", "redundant"))
    assert [one.level for one in found] == ["information", "good"]
    assert all(one.command is None and not one.below for one in found)


def test_of_twelve_three_are_told_the_others_counted_and_a_command_is_said_once():
    report = with_findings(twelve_report(), *["under-used"] * 12)
    found = advice(report.record)
    assert len(found) == 3
    assert further_advice(report.record).startswith("9 more ask for a look: sensor_03")
    assert further_advice(_judged("harmful", "under-used", "well used")) == ""
    assert [one.command is None for one in found] == [False, True, True]


def test_the_model_comes_with_its_worst_first():
    record = _judged("well used", "well used")
    mild = Finding(rule="synergy", level="information", text="They work together.")
    record = record.model_copy(update={"findings": (mild, *record.findings)})
    assert [f.level for f in of_the_model(record)] == ["problem", "information"]


def test_a_summary_is_problems_then_advice_at_most_three():
    record = _judged("under-used", "under-used", "under-used")
    told = standout(record)
    assert len(told) == 3
    assert told[0].startswith("The model is worse")
    assert told[1].startswith("audio is under-used")
    assert AuditReport(record).summary() == told


def test_the_command_names_the_audit_file_as_a_shell_needs_it():
    record = _judged("under-used")
    finding = record.findings[-1]

    def command(path):
        files = (FileRecord(path=path, sha256="", bytes=1, role="audit file"),)
        subject = record.subject.model_copy(update={"files": files})
        return statement(record.model_copy(update={"subject": subject}), finding).command

    assert command("my runs/a.yaml") == "mmaudit retrain 'my runs/a.yaml' --remedy agm"
    for hidden in ("a\u202eb.yaml", "a\nb.yaml", "x" * 500):
        assert command(hidden) == "mmaudit retrain AUDIT.yaml --remedy agm"


def test_missing_training_data_is_said_once_before_the_command():
    record = _judged("under-used", "harmful")
    known = record.model_copy(update={"spec": {"data": {"test": {}, "train": None}}})
    shown = [text for found in advice(known) for text in found.below]
    assert sum("names no training data" in text for text in shown) == 1
    for data in ({"test": {}, "train": {}}, None):
        other = record.model_copy(update={"spec": {"data": data}})
        assert "training data" not in str(advice(other))


def test_records_without_findings_have_no_statements():
    record = make_report(samples=60).record
    assert advice(record) == of_the_model(record) == ()
    assert verdicts(record) == {}
