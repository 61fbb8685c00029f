"""Libraries that diffusers, transformers and accelerate load whenever they find them, and that few runs use. Plain, no torch.

Loading them takes longer than diffusers itself, and one that is broken (after an update of torch, say) would end every run.
"""

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

HIDDEN = (
    *("bitsandbytes", "peft"),  # shown where a run uses them
    *("flash_attn", "flash_attn_interface", "flashinfer", "kernels", "sageattention", "xformers"),
    *("boto3", "gguf", "google", "hqq", "lomo_optim", "scipy", "sentencepiece", "torchao"),
    *("soundfile", "soxr", "torchaudio", "torchvision"),
    *("torch_mlu", "torch_musa", "torch_npu", "torch_sdaa", "torch_xla"),  # devices on which nothing is trained
)
REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"


def hide_optional_libraries() -> None:
    """Let those that are not loaded yet seem not installed: to be called before the libraries that look for them are loaded."""
    for name in HIDDEN:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType] - None there is how Python says so


def show_library(name: str) -> None:
    """Let one of them be imported from now on."""
    if name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]


def broken_library(error: BaseException) -> str:
    """Return the library whose import has failed with this error, or with one that it comes from; "" for any other error.

    Libraries fail to load with errors of all kinds, an OSError of a missing .so for one.
    """
    for cause in reversed(list(_chain(error))):  # the first of all that happened
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return _foreign(cause.name)
        if isinstance(cause, SyntaxError) and cause.filename:  # before anything of the module has run
            return _foreign(_top_level(Path(cause.filename)))
        loading = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(cause.__traceback__) if _loads(frame)]
        found = [name for name in map(_foreign, loading) if name]
        if found:
            return found[-1]
    return ""


def repair(library: str, error: BaseException) -> str:
    """Return the command that installs a library that is missing, or installs it again."""
    is_missing = any(isinstance(cause, ModuleNotFoundError) for cause in _chain(error))
    asked_for = re.findall(r"^[\w-]+", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    if is_missing and library in asked_for:
        return f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
    again = "" if is_missing else "--force-reinstall --no-deps "  # those that it needs include torch
    return f'"{sys.executable}" -m pip install {again}{library}'


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _loads(frame) -> bool:
    """Return whether a frame is a module that is being imported."""
    return frame.f_code.co_name == "<module>"


def _top_level(file: Path) -> str:
    """Return the name of the library that a file is of, by where it lies below a folder that modules are looked for in."""
    below = [file.relative_to(folder) for folder in sys.path if file.is_relative_to(folder)]
    return min(below, key=lambda path: len(path.parts)).parts[0].removesuffix(".py") if below else ""


def _foreign(module: str) -> str:
    """Return the library that a module is of; "" for our own."""
    library = module.partition(".")[0]
    return "" if library in ("trainer", "__main__") else library
