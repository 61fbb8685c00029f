"""The run directory: the contract between ComfyUI and the worker. Plain data, no torch.

<root>/<name>-<key>/
    run.json           settings, dataset, base, where to export; by the host, before each start of the worker
    base.safetensors   the base model; only while the run is unfinished
    embedding.safetensors   the vectors that the token starts from, if an embedding was given
    metrics.jsonl      one line a step (step, loss, learning_rate), one a measurement (step, held_out, trained, class)
    checkpoint.safetensors   newest complete state; only while the run is unfinished, unless keep_state is set
    best.safetensors   the weights with the lowest held-out loss, if wanted; only while the run is unfinished
    samples/           step-000500-0.png: picture of prompt 0 after 500 steps; grid.jpg: all of them
    log.txt            what the worker and its libraries said
    lock               held by the process that trains
    graph.lock         held by the ComfyUI that prepares the run and waits for it
    result.json        written last: its presence means the run is finished
"""

import errno
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .config import Settings
from .photos import Dataset

FORMAT = 2
EMBEDDING_KEY = "emb_params"
"""The one tensor of an embedding file, (vectors, 768): ComfyUI, A1111-style programs and diffusers read it under this name."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What run.json holds."""

    name: str
    settings: Settings
    dataset: Dataset
    class_dataset: Dataset | None = None
    """Class images for prior preservation."""
    embedding: str = ""
    """sha256 of the vectors, (V, 768) fp32, that the token starts from; empty without a given embedding."""
    embedding_path: str = ""
    """DreamBooth with an embedding: where the worker writes the token's vectors, absolute; `export_path` is the model's."""
    base_fingerprint: str
    """Of the base model's weights, as hex."""
    export_path: str
    """Where the worker writes the result, absolute. Later it is looked up by its file name: folders may move."""
    tokenizer_path: str
    """Folder of CLIP-L's tokenizer files, absolute."""
    base_checkpoint: str = ""
    """File name of the base among ComfyUI's checkpoints, where known: an embedding is of use only with its base."""

    @property
    def key(self) -> str:
        """12 hex digits of everything that decides the result."""
        class_images = self.class_dataset.deciding() if self.class_dataset else None
        deciding = [FORMAT, self.settings.deciding(), self.dataset.deciding(), class_images, self.base_fingerprint]
        if self.embedding:
            deciding.append(self.embedding)
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        return f"{self.name}-{self.key}"

    def to_json(self) -> dict:
        return {"format": FORMAT, "key": self.key, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict) -> "Run":
        """ValueError when `data` is not a run of this format."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("run.json is not of this version's format.")
        try:
            texts = {field.name: data[field.name] for field in fields(cls) if field.type is str and field.name in data}
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError("a name or path is not text")
            return cls(
                settings=Settings(**{**data["settings"], "sample_prompts": tuple(data["settings"]["sample_prompts"])}),
                dataset=Dataset.from_json(data["dataset"]),
                class_dataset=Dataset.from_json(data["class_dataset"]) if data["class_dataset"] else None,
                **texts,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"run.json is damaged: {error}") from None


def at_step(path: str | Path, step: int) -> Path:
    """Where an export of the weights after so many steps goes, beside the one of the finished run."""
    return Path(path).with_name(f"{Path(path).stem}-step-{step:06}.safetensors")


@dataclass(frozen=True)
class RunDir:
    path: Path

    run_json = property(lambda self: self.path / "run.json")
    base = property(lambda self: self.path / "base.safetensors")
    embedding = property(lambda self: self.path / "embedding.safetensors")
    checkpoint = property(lambda self: self.path / "checkpoint.safetensors")
    best = property(lambda self: self.path / "best.safetensors")
    samples = property(lambda self: self.path / "samples")
    grid = property(lambda self: self.samples / "grid.jpg")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    log = property(lambda self: self.path / "log.txt")
    lock = property(lambda self: self.path / "lock")
    graph_lock = property(lambda self: self.path / "graph.lock")
    result_json = property(lambda self: self.path / "result.json")

    def load_run(self) -> Run:
        return Run.from_json(read_json(self.run_json))

    @property
    def finished(self) -> bool:
        return self.result_json.is_file()

    def remove_partial_files(self) -> None:
        """What a process that was killed left half written: ours, and the temporary files of safetensors."""
        for pattern in ("*.partial", ".tmp*"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def losses(self) -> list[float]:
        """The loss of every step so far."""
        return [entry["loss"] for entry in read_metrics(self.metrics) if "loss" in entry]

    def measurements(self) -> list[dict]:
        """The losses under fixed noise: {"step": after so many steps, "trained", "held_out" and "class" where there are any}."""
        return [entry for entry in read_metrics(self.metrics) if "loss" not in entry]


def read_metrics(path: Path) -> list[dict]:
    """The entries of metrics.jsonl, {"step": n, name: number, ...}. Other lines, as a power loss may leave, are passed over."""
    found = map(metrics_entry, path.read_bytes().split(b"\n") if path.is_file() else ())
    return [entry for entry in found if entry]


def metrics_entry(line: bytes) -> dict[str, int | float] | None:
    """What a line of metrics.jsonl says; None where that is not numbers by name, the step among them."""
    with suppress(ValueError, RecursionError, OverflowError):
        entry = json.loads(line)
        if isinstance(entry, dict) and "step" in entry and all(_is_number(value) for value in entry.values()):
            return entry
    return None


def _is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A temporary name for the block to write to. It becomes `path` when all is written and on the disk, so that neither a
    crash nor a power loss leaves half a file there; when the block fails, nothing stays.

    Raises OSError(ENOSPC) when the disk is full, whatever library found that out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors makes its files private
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        _replace(partial, path)
    except Exception as error:
        if re.search(r"\(os error (28|112)\)", str(error)):  # safetensors' own error, on Linux and on Windows
            raise OSError(errno.ENOSPC, "The disk is full. Free some space and queue the graph again", str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _replace(partial: Path, path: Path) -> None:
    """Give the file its name, and have the name on the disk before anything that follows."""
    for left in reversed(range(20)):
        try:
            os.replace(partial, path)
            break
        except PermissionError:  # Windows refuses while someone reads the old one, as the page does
            if os.name != "nt" or not left:
                raise
            time.sleep(0.1)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network drives cannot
                os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, data) -> None:
    with partial_file(path) as partial:
        partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shorter_run(run: Run, root: Path) -> RunDir | None:
    """The newest run under `root` that has a saved state and asks for the same as `run`, but for fewer steps."""
    found = []
    for other in map(RunDir, root.iterdir()):
        if not other.checkpoint.is_file():
            continue
        with suppress(OSError, ValueError):
            given = other.load_run()
            # What is measured and drawn on the way changes no weight.
            lengths = {name: getattr(given.settings, name) for name in ("steps", "validate_every", "sample_every")}
            alike = replace(run, settings=replace(run.settings, **lengths))
            if given.settings.steps < run.settings.steps and alike.key == given.key:
                found.append(other)
    return max(found, key=lambda other: other.checkpoint.stat().st_mtime, default=None)


def finished_runs(root: Path) -> list[RunDir]:
    """The finished runs under `root`, newest first."""
    results = sorted(root.glob("*/result.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    return [RunDir(p.parent) for p in results]
