from __future__ import annotations

import pickle
import sys

import pytest

from mmaudit.checkpoint import importing
from mmaudit.checkpoint.loader import call_factory, import_callable, importable
from mmaudit.exceptions import MMAuditError, ModelError, SpecError


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
    """Modules of the test's folders do not outlive it."""
    monkeypatch.setattr(importing, "_displaced", {})
    monkeypatch.setattr(importing, "_left_by", {})
    before, path = dict(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def folder(root, name, **files):
    directory = root / name
    for file, text in files.items():
        path = directory / (file.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def test_folders_with_modules_of_the_same_name_get_their_own(tmp_path):
    first = folder(
        tmp_path,
        "first",
        train="import helper\ndef build(): return helper.NAME",
        helper="NAME = 'first'",
    )
    second = folder(
        tmp_path,
        "second",
        train="import helper\ndef build(): return helper.NAME",
        helper="NAME = 'second'",
    )
    one, two = import_callable("train:build", first), import_callable("train:build", second)
    assert (one(), two()) == ("first", "second")
    assert import_callable("train:build", first) is one
    assert import_callable("train:build", second) is two


def test_a_module_of_the_user_keeps_its_name(tmp_path):
    first = folder(tmp_path, "first", train="NAME = 'mine'\ndef build(): return 1")
    second = folder(tmp_path, "second", train="def build(): return 2")
    sys.path.insert(0, str(first))
    try:
        import train

        assert import_callable("train:build", second)() == 2
        assert sys.modules["train"] is train
        assert import_callable("train:build", first) is train.build
    finally:
        sys.path.remove(str(first))


def test_what_only_another_folder_has_is_not_found(tmp_path):
    first = folder(tmp_path, "first", train="import extra\ndef build(): return 1", extra="")
    second = folder(tmp_path, "second", train="import extra\ndef build(): return 2")
    import_callable("train:build", first)
    with pytest.raises(ModelError, match="needs the module 'extra'"):
        import_callable("train:build", second)


def test_packages_without_init_are_told_apart(tmp_path):
    first = folder(tmp_path, "first", src__models__net="def build(): return 1")
    second = folder(tmp_path, "second", src__models__net="def build(): return 2")
    assert import_callable("src.models.net:build", first)() == 1
    assert import_callable("src.models.net:build", second)() == 2
    assert import_callable("src.models.net:build", first)() == 1


def test_a_file_may_have_the_name_of_a_standard_module(tmp_path):
    import code

    directory = folder(
        tmp_path, "first", code="def build(): return 'own'", json="raise RuntimeError('shadowed')"
    )
    assert import_callable("code:build", directory)() == "own"
    assert sys.modules["code"] is code


def test_objects_of_the_folder_can_be_pickled_while_it_is_importable(tmp_path):
    for name in ("first", "second"):
        directory = folder(
            tmp_path, name, train=f"class Rows:\n    name = '{name}'\ndef build(): return Rows()"
        )
        rows = call_factory(import_callable("train:build", directory), directory=directory)
        with importable(directory):
            assert pickle.loads(pickle.dumps(rows)).name == name


def test_imports_inside_the_factory_work(tmp_path):
    directory = folder(
        tmp_path, "first", train="def build():\n    import late\n    return late.x", late="x = 5"
    )
    assert call_factory(import_callable("train:build", directory), directory=directory) == 5


def test_dotted_attributes(tmp_path):
    directory = folder(
        tmp_path, "first", train="class Net:\n    @classmethod\n    def build(cls): return cls"
    )
    assert import_callable("train:Net.build", directory)().__name__ == "Net"
    assert import_callable("collections:OrderedDict.fromkeys", None)("a") == {"a": None}


@pytest.mark.parametrize(
    ("text", "reference", "kind", "words"),
    [
        ("", "train", SpecError, "expected 'package.module:callable'"),
        ("", "train:", SpecError, "expected 'package.module:callable'"),
        ("", "../train:build", SpecError, "expected 'package.module:callable'"),
        ("", "trian:build", SpecError, "there is no module 'trian' in"),
        ("", "train.sub:build", SpecError, "there is no module"),
        ("def build_model(): pass", "train:build_modle", SpecError, "did you mean 'build_model'"),
        ("x = 1", "train:build", SpecError, r"train has no 'build'; define it in train\.py"),
        ("build = 3", "train:build", SpecError, "is of type int and cannot be called"),
        (
            "import nowhere_to_be_found",
            "train:build",
            ModelError,
            "needs the module 'nowhere_to_be_found'",
        ),
        (
            "raise ValueError('two\\nlines')",
            "train:build",
            ModelError,
            "raised ValueError: two lines;",
        ),
        ("import sys; sys.exit(3)", "train:build", ModelError, "raised SystemExit: 3"),
        ("def broken(:", "train:build", ModelError, "raised SyntaxError"),
    ],
)
def test_faults_of_the_import_are_one_sentence(tmp_path, text, reference, kind, words):
    directory = folder(tmp_path, "first", train=text)
    with pytest.raises(kind, match=words) as caught:
        import_callable(reference, directory)
    assert "\n" not in str(caught.value) and isinstance(caught.value, MMAuditError)
    assert str(directory) not in sys.path


def test_wrong_arguments_name_the_allowed_ones():
    def build(classes, width=3, *, deep=False):
        raise RuntimeError("no\nmemory")

    with pytest.raises(
        SpecError, match=r"'train:build' .*'widht'.*it takes classes, width=\.\.\., deep=\.\.\.\."
    ):
        call_factory(build, {"classes": 2, "widht": 4}, name="train:build")
    with pytest.raises(SpecError, match="missing a required argument: 'classes'"):
        call_factory(build, {})
    with pytest.raises(
        ModelError, match=r"'train:build' raised RuntimeError: no memory;"
    ) as caught:
        call_factory(build, {"classes": 2}, name="train:build")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_type_error_of_the_factory_itself_is_no_wrong_argument():
    def build():
        return len(3)

    with pytest.raises(ModelError, match="raised TypeError: object of type 'int'"):
        call_factory(build)


def test_ctrl_c_is_not_taken_for_a_fault():
    def build():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_factory(build)
