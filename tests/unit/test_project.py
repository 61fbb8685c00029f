"""What holds the project together: directions of import, lists that must agree."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parent.parent.parent
MODULES = [path for room in ("nodes", "trainer") for path in sorted((ROOT / room).rglob("*.py"))]
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "nodes"}
HEAVY = {"diffusers", "bitsandbytes", "peft", "accelerate", "transformers"}
LONGEST_FUNCTION, MOST_PARAMETERS, LONGEST_FILE = 60, 7, 400
SHIPPED = {"__init__.py", "nodes", "trainer", "js", "docs", "locales", "workflows", "pyproject.toml", "requirements.txt"}
SHIPPED |= {"README.md", "CHANGELOG.md", "LICENSE", "icon.png"}


def module_name(path: Path) -> str:
    """Return "trainer.run.settings" for trainer/run/settings.py, "trainer.run" for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Return the modules that a file imports, in full, but for type checks alone. `top_level`: not those in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    package = path.relative_to(ROOT).parts[:-1]
    names: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module]
            is_package = node.level and (ROOT.joinpath(*base) / "__init__.py").is_file()
            known = {".".join([*base, alias.name]) for alias in node.names} if is_package else set()
            modules = {name for name in known if name in {module_name(p) for p in MODULES}}
            names |= modules | ({".".join(base)} if known != modules or not is_package else set())
    return names


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return all functions of the pack with where they are."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_the_trainer_knows_nothing_of_comfyui():
    for path in (ROOT / "trainer").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & HOST, path


def test_nodes_import_of_the_trainer_its_plain_data_alone():
    for path in (ROOT / "nodes").rglob("*.py"):
        of_trainer = {name for name in imports(path) if name.split(".")[0] == "trainer"}
        assert all(name.startswith(("trainer.run.", "trainer.dataset.")) for name in of_trainer), (path, of_trainer)


def test_nodes_load_nothing_heavy_when_comfyui_starts():
    for path in (ROOT / "nodes").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY, path


def test_plain_data_loads_no_torch():
    plain = [module_name(path) for room in ("run", "dataset", "parts") for path in (ROOT / "trainer" / room).glob("*.py")]
    code = f"import sys, {', '.join(plain)}; sys.exit(', '.join(sys.modules.keys() & {HEAVY | {'torch'}!r}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_import_goes_in_a_circle():
    graph = {module_name(path): imports(path, top_level=True) for path in MODULES}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in seen:
            for imported in graph.get(name, ()):
                visit(imported, (*above, name))
            seen.add(name)

    seen: set[str] = set()
    for name in graph:
        visit(name, ())


def test_functions_and_files_are_short():
    for where, function in functions():
        given = function.args
        parameters = [a for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]
        assert len(parameters) <= MOST_PARAMETERS, where
        is_table = function.name == "define_schema"  # a node's sockets and widgets, one after the other
        assert is_table or (function.end_lineno or 0) - function.lineno < LONGEST_FUNCTION, where
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE, path


def test_what_is_trained_is_asked_of_the_parts_alone():
    for path in MODULES:
        if path.parent.name != "parts":
            assert not re.search(r"\btrain (==|!=|in|not in) ", path.read_text(encoding="utf-8")), path


def test_every_public_docstring_begins_with_a_sentence():
    for where, function in functions():
        text = ast.get_docstring(function)
        if text:
            first = text.splitlines()[0]
            assert first.endswith((".", ":")), (where, first)
            assert first[0].isupper(), (where, first)


def test_requirements_txt_is_the_list_of_pyproject():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [line for line in lines if line and not line.startswith("#")] == project["dependencies"]


def test_the_changelog_has_a_section_for_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_archive_for_users_leaves_out_development_alone():
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = {pattern.strip("/") for pattern in patterns}
    # Whole entries of the top folder, no globs: a pattern without its first slash would also hit files deep in what is shipped.
    assert all(pattern.startswith("/") for pattern in patterns)
    assert names <= {path.name for path in ROOT.iterdir()}
    assert names >= {".ci", ".github", "bench", "demo", "tests", "tools", "Makefile"}
    assert not names & SHIPPED


def test_shipped_workflows_are_api_format(shipped_workflow):
    assert {n["class_type"] for n in shipped_workflow.values()} >= {"DatasetLoader", "CaptionWithToken", "DreamBoothTrain"}


def test_shipped_workflows_have_no_id_of_their_own():
    """All who opened such a template would share it, and a page could take a run of one for the other's."""
    workflows = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows").glob("*.json")]
    assert len(workflows) > 5
    assert [workflow["id"] for workflow in workflows if "id" in workflow] == []
