"""Libraries that are broken or missing: a run that does not use them trains, and one that does says how to repair them."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from trainer.optional_libraries import REQUIREMENTS, broken_library, repair

from .runs import DREAMBOOTH, sentence, work

CHECKED_BY = ("diffusers.utils.import_utils", "transformers.utils.import_utils", "accelerate.utils.imports")
NEEDED = {
    *("PIL", "accelerate", "diffusers", "filelock", "huggingface_hub", "jinja2", "numpy", "packaging", "psutil", "regex"),
    *("requests", "safetensors", "tokenizers", "torch", "tqdm", "transformers", "triton", "yaml"),
}
"""What the worker, or torch itself, cannot do without."""


def optional_libraries() -> set[str]:
    """Every library that diffusers, transformers or accelerate look for, and that no run needs."""
    found: set[str] = set()
    for module in CHECKED_BY:
        text = Path(find_spec(module).origin).read_text(encoding="utf-8")
        found |= {name.split(".")[0] for name in re.findall(r'(?:_is_package_available|find_spec)\(\s*"(\w[\w.]*)"', text)}
    return found - NEEDED


def break_libraries(folder: Path, names, code: str = "raise ImportError('libcudart.so.12')") -> None:
    """Put libraries of these names into a folder, as installed, that cannot be imported."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
        info = folder / f"{name}-99.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
        (info / "top_level.txt").write_text(f"{name}\n")


def test_no_optional_library_can_break_a_run(make_run, tmp_path, monkeypatch):
    names = optional_libraries()
    assert {"xformers", "bitsandbytes", "flash_attn", "torchvision", "torchao", "scipy"} < names
    assert len(names) > 100
    break_libraries(tmp_path / "broken", names)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    run_dir = make_run(DREAMBOOTH.replace(steps=1, lr_warmup_steps=0, sample_prompts=("a toy",), sample_every=1))
    events = work(run_dir)
    assert events[-1]["event"] == "done", (events, run_dir.log.read_text())


@pytest.mark.parametrize(
    ("library", "code", "said"),
    [
        ("peft", "raise ImportError('libcudart.so.12')", r"peft is .*libcudart\.so\.12\).* --force-reinstall --no-deps peft\."),
        (
            "prodigyopt",
            "raise ModuleNotFoundError(name='prodigyopt')",
            r"prodigyopt is .* -m pip install -r \".*\.txt\"\.",
        ),
        (
            "diffusers",
            "raise OSError('no such symbol')",
            r"diffusers is .*no such symbol.* --no-deps diffusers\.",
        ),
        ("accelerate", "1 +", r"accelerate is .*SyntaxError.* accelerate\."),
    ],
)
def test_a_library_that_a_run_needs_is_named_with_its_repair(make_run, tmp_path, monkeypatch, library, code, said):
    break_libraries(tmp_path / "broken", [library], code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    uses = {"peft": {"train": "lora"}, "prodigyopt": {"optimizer": "prodigy", "learning_rate": 1.0}}
    events = work(make_run(DREAMBOOTH.replace(steps=1, lr_warmup_steps=0, **uses.get(library, {}))))
    assert events[-1]["event"] == "error"
    assert re.search(said, sentence(events[-1])), sentence(events[-1])
    assert "in ComfyUI's Python" in sentence(events[-1])


def raised(code: str) -> BaseException:
    try:
        exec(compile(code, "code", "exec"), {"__name__": "trainer.made_up"})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("code", "library"),
    [
        ("import not_there", "not_there"),
        ("import not_there.inner", "not_there"),
        (
            "try:\n    import not_there\nexcept ImportError as e:\n    raise RuntimeError('lazily') from e",
            "not_there",
        ),
        ("import outer_one", "inner_one"),
        ("import outer_syntax", "inner_syntax"),
        ("1 / 0", ""),
        ("raise OSError('disk')", ""),
        ("import trainer.nowhere", ""),
    ],
)
def test_the_library_that_failed_first_is_named(tmp_path, monkeypatch, code, library):
    (tmp_path / "inner_one.py").write_text("raise AttributeError('changed')")
    (tmp_path / "outer_one.py").write_text("import inner_one")
    (tmp_path / "inner_syntax").mkdir()
    (tmp_path / "inner_syntax" / "__init__.py").write_text("1 +")
    (tmp_path / "outer_syntax.py").write_text("import inner_syntax")
    monkeypatch.syspath_prepend(tmp_path)
    assert broken_library(raised(code)) == library


def test_every_requirement_that_is_missing_is_installed_from_the_list():
    for name in re.findall(r"^(\w+)>=", REQUIREMENTS.read_text(), re.MULTILINE):
        assert "-r" in repair(name, ModuleNotFoundError(name=name))
