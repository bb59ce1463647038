"""Rules that hold for every file of the app, by its source."""

import ast
from pathlib import Path

import pytest

import dashboard

HOME = Path(dashboard.__file__).parent
FILES = sorted(HOME.rglob("*.py"))
FORBIDDEN_WORDS = {
    "srcDoc", "dangerously_allow_html", "allow_same_origin", "eval", "exec", "compile", "__import__", "import_module",
    "pickle", "DashIframe", "Iframe", "Upload", "enable_dev_tools",
}  # fmt: skip


def _names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_nothing_that_runs_what_came_in(path):
    tree = ast.parse(path.read_text())
    names = set(_names(tree)) - ({"compile"} if "re.compile" in path.read_text() else set())
    assert not names & FORBIDDEN_WORDS


def test_graphs_and_grids_are_made_in_one_place():
    made = {
        name: [path.name for path in FILES if f"{name}(" in path.read_text()]
        for name in ("dcc.Graph", "dag.AgGrid", "dcc.Markdown", "Flask", "app.run")
    }
    assert made == {
        "dcc.Graph": ["graph.py"], "dag.AgGrid": ["tables.py"], "dcc.Markdown": [], "Flask": ["app.py"], "app.run": [],
    }  # fmt: skip


def test_code_of_grids_is_ours():
    text = (HOME / "components" / "tables.py").read_text()
    assert "dangerously_allow_code=False" in text
    assert "enableEnterpriseModules=False" in text


@pytest.mark.parametrize("name", ["data.py", "shelf.py", "samples.py", "work.py", "history.py", "changes.py", "security.py"])  # fmt: skip
def test_what_is_tested_without_a_browser_knows_no_dash(name):
    tree = ast.parse((HOME / name).read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}  # fmt: skip
    assert not [m for m in modules if m.split(".")[0] in ("dash", "dash_mantine_components", "dash_ag_grid")]  # fmt: skip


def test_assets_name_no_other_host_and_run_no_text():
    for path in (HOME / "assets").iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "") or path.suffix == ".js"
        for word in (
            "http:",
            "https:",
            "innerHTML",
            "eval(",
            "new Function",
            "document.write",
            "@import",
        ):
            assert word not in text, (path.name, word)


def test_all_modules_say_what_is_public():
    for path in FILES:
        assert "__all__" in path.read_text(), path
