import pytest
from pydantic import ValidationError

from mmaudit.exceptions import SpecError
from mmaudit.masking.reading import checkpoint_paths, fault_sentences, load_yaml
from mmaudit.masking.spec import AuditSpec, MaskingSpec, read_spec


def written(folder, text):
    path = folder / "audit.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(value, kind=MaskingSpec):
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(value)
    return fault_sentences(caught.value, kind)


def test_a_mapping_is_read_as_it_stands(tmp_path):
    text = "modalities: {a: &it {inputs: '0'}, b: *it}\ntarget: '2'\n"
    assert load_yaml(written(tmp_path, text)) == {
        "modalities": {"a": {"inputs": "0"}, "b": {"inputs": "0"}},
        "target": "2",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "expected a mapping with 'model', 'data', 'modalities', ..., found list"),
        ("", "found NoneType"),
        ("a: b: c\n", r"not readable as YAML \(line 1, column 5\): mapping values"),
        ("a: [1, 2\n", r"not readable as YAML \(line 2, column 1\)"),
        (b"\xff\xfe\x00a", "no text in UTF-8; save it as UTF-8"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: 2020-99-99\n", "not readable as YAML: ValueError"),
        ("[" * 5000, "not readable as YAML"),
        ("a: &a x\nb: [" + "*a, " * 101 + "]\n", "more than 100 YAML aliases"),
        ("a: " + "x" * 1_000_000, "larger than 1 MB, which no audit file is"),
    ],
)
def test_what_is_no_audit_file_ends_in_one_sentence(tmp_path, text, said):
    with pytest.raises(SpecError, match=said) as caught:
        load_yaml(written(tmp_path, text))
    assert str(caught.value).startswith("audit.yaml: ") and "\n" not in str(caught.value)


def test_a_hundred_aliases_are_no_attack(tmp_path):
    text = "a: &a x\nb: [" + "*a, " * 100 + "]\n"
    assert load_yaml(written(tmp_path, text))["b"] == ["x"] * 100


def test_a_file_that_is_not_there_can_be_drafted(tmp_path):
    with pytest.raises(SpecError, match="no such file; 'mmaudit init' drafts one"):
        load_yaml(tmp_path / "audit.yaml")


def test_a_typo_is_told_with_its_place_and_what_was_meant():
    (fault,) = faults({"modalities": {"a": {"inputs": "0", "prezent": "1"}}})
    assert fault.startswith("modalities.a.prezent: unknown key, did you mean 'present'? (allowed: ")
    assert "encoders" in fault
    (fault,) = faults({"modalities": {"a": "0"}, "zzz": 1})
    assert fault.startswith("zzz: unknown key (allowed: modalities, target, ")


def test_all_faults_are_told_at_once_each_a_line():
    found = faults({"modalities": {"a": "0"}, "seed": -1, "weights": "best"}, AuditSpec)
    assert found == [
        "weights: input should be 'model' or 'ema', found 'best'",
        "data: is required",
        "seed: input should be greater than or equal to 0, found -1",
    ]
    with pytest.raises(SpecError) as caught:
        read_spec({"modalities": {"a": "0"}, "seed": -1, "weights": "best"})
    assert str(caught.value) == "\n".join(["spec: 3 faults", *(f"  {line}" for line in found)])


def test_the_path_of_a_mask_has_no_words_that_nobody_wrote():
    found = faults({"modalities": {"a": {"inputs": {"x": "0"}, "mask": {"x": {"constant": "?"}}}}})
    assert found and all(fault.startswith("modalities.a.mask.x") for fault in found)


def test_a_long_value_is_cut():
    (fault,) = faults({"modalities": {"a": "0"}, "batching": "x" * 200})
    assert fault.endswith("found '" + "x" * 56 + "...")


AUDIT = {"modalities": {"a": "0"}, "data": "t.npz", "model": "m:build"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "found 5; write the path of the weights"),
        (["a.pt"], r"found \['a.pt'\]"),
        ("", "found ''"),
        (True, "found True"),
        ({"audio": None}, "found None for 'audio'; write the path of its weights, or take it out"),
        ({"audio": 3}, "found 3 for 'audio'"),
        (
            {"audio": {"fc": "a.pt"}},
            r"a mapping under 'audio'; name a part .* with a dot \('audio.fc'\)",
        ),
    ],
)
def test_a_checkpoint_that_is_no_path_is_one_fault(value, said):
    (fault,) = faults({**AUDIT, "checkpoint": value}, AuditSpec)
    assert fault.startswith("checkpoint: expected a path, or {sub-module: path}, ")
    assert "union" not in fault
    with pytest.raises(ValueError, match=said):
        checkpoint_paths(value)


def test_paths_of_a_checkpoint_stay():
    for value in (None, "a.pt", {"a": "a.pt", "b.c": "b.pt"}):
        assert checkpoint_paths(value) == value
    spec = AuditSpec.model_validate({**AUDIT, "checkpoint": {0: "a.pt"}})
    assert {part: str(path) for part, path in spec.checkpoint.items()} == {"0": "a.pt"}


def test_a_blank_checkpoint_of_a_file_is_refused(tmp_path):
    text = "model: m:build\ndata: t.npz\nmodalities: {a: '0'}\n"
    for blank in ("checkpoint:\n", "checkpoint: null\n", "checkpoint: ~\n"):
        with pytest.raises(SpecError, match="'checkpoint' is blank; write the path") as caught:
            read_spec(written(tmp_path, text + blank))
        assert "\n" not in str(caught.value)
    assert read_spec(written(tmp_path, text)).checkpoint is None
    assert read_spec({**AUDIT, "checkpoint": None}).checkpoint is None


@pytest.mark.parametrize(
    ("second", "line", "key"),
    [("modalities:\n  a: a\n  b: b\n  a: c\n", 2, "a"), ("target: x\ntarget: y\n", 1, "target")],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, second, line, key):
    path = tmp_path / "audit.yaml"
    path.write_text(second)
    with pytest.raises(SpecError, match=f"the key '{key}' stands in line {line} and again"):
        read_spec(path, MaskingSpec)


def test_merged_mappings_may_be_overridden(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text(
        "modalities: {a: &m {inputs: a, mask: mean}, b: {<<: *m, inputs: b}}\ntarget: y\n"
    )
    spec = read_spec(path, MaskingSpec)
    assert list(spec.modalities["b"].inputs.values()) == ["b"]


def test_tabs_and_other_encodings_are_told(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text("modalities:\n\ta: a\n")
    with pytest.raises(SpecError, match="a tab, where YAML takes spaces"):
        read_spec(path, MaskingSpec)
    path.write_bytes("title: Bär\n".encode("latin-1"))
    with pytest.raises(SpecError, match="no text in UTF-8; save it as UTF-8"):
        read_spec(path, MaskingSpec)


def test_an_input_belongs_to_one_modality():
    shared = {"a": "x", "b": {"inputs": "x", "mask": "zero"}}
    with pytest.raises(SpecError, match="'a' and 'b' both take the input 'x'"):
        read_spec({"modalities": shared, "target": "y"}, MaskingSpec)
    looked_at = {"inputs": {"p": "p", "x": "x"}, "mask": {"p": "zero", "x": "keep"}}
    assert read_spec({"modalities": {"a": "x", "b": looked_at}, "target": "y"}, MaskingSpec)


def test_what_the_model_is_always_given():
    spec = {"modalities": {"a": "a", "b": "batch.b"}, "target": "y"}
    assert read_spec(spec, MaskingSpec).always_given == ()
    call = {"args": ["batch.a", "b"], "kwargs": {"c": "batch.extra"}}
    assert read_spec(spec | {"call": call}, MaskingSpec).always_given == ("batch.extra",)
    assert read_spec(spec | {"call": {"args": ["batch"]}}, MaskingSpec).always_given == ()
