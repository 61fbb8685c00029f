"""What holds the project together: directions of import, lists that must agree."""

import ast
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parent.parent.parent
PLAIN_DATA = {
    "captions",
    "config",
    "events",
    "folder_view",
    "framing",
    "locks",
    "messages",
    "needs",
    "photos",
    "run_card",
    "rundir",
    "templates",
}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "nodes"}
HEAVY = {"diffusers", "bitsandbytes", "peft", "accelerate", "transformers"}
SHIPPED = {"__init__.py", "nodes", "trainer", "js", "locales", "workflows", "pyproject.toml", "requirements.txt"}
SHIPPED |= {"README.md", "CHANGELOG.md", "LICENSE", "icon.png"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, relative ones with their dots."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module if node.module else module + alias.name for alias in node.names}
            if module == "..trainer":
                found |= {f"..trainer.{alias.name}" for alias in node.names}
    return found


def test_the_trainer_knows_nothing_of_comfyui():
    for path in (ROOT / "trainer").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & HOST, path.name


def test_nodes_import_only_plain_data_from_the_trainer_and_nothing_heavy():
    for path in (ROOT / "nodes").glob("*.py"):
        names = imports(path)
        of_trainer = {name.split(".")[3] for name in names if name.startswith("..trainer.")}
        assert of_trainer <= PLAIN_DATA, path.name
        assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY, path.name


def test_plain_data_modules_load_no_torch():
    for name in PLAIN_DATA:
        outside = {n.split(".")[0] for n in imports(ROOT / "trainer" / f"{name}.py") if not n.startswith(".")}
        assert outside <= set(sys.stdlib_module_names) | {"PIL", "numpy", "filelock"}, name
        inside = {n.lstrip(".") for n in imports(ROOT / "trainer" / f"{name}.py") if n.startswith(".")}
        assert inside <= PLAIN_DATA, name


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
    assert names >= {".ci", ".github", "bench", "demo", "tests", "Makefile"}
    assert not names & SHIPPED


def test_shipped_workflows_are_api_format(shipped_workflow):
    assert {n["class_type"] for n in shipped_workflow.values()} >= {"DatasetLoader", "CaptionWithToken", "DreamBoothTrain"}
