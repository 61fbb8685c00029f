"""The run directory: the contract between ComfyUI and the worker. Plain data, no torch.

<root>/<name>-<key>/
    run.json           settings, dataset, base, where to export; by the host, before each start of the worker
    base.safetensors   the base model; only while the run is unfinished, or draws
    embedding.safetensors   the vectors that the token starts from, if an embedding was given
    lora.safetensors   the LoRA that the run goes on from, if one was given
    metrics.jsonl      the losses of the steps and of the measurements; see metrics_file.py
    evaluations.jsonl  what EvaluateSubject measured of its steps' pictures; by the host
    state.safetensors  newest complete state; only while the run is unfinished or ended early, unless keep_state is set
    best.safetensors   the weights with the lowest held-out loss, if wanted; only while the run is unfinished or ended early
    finish             the step whose result the user asked for, once asked; only while the run is unfinished
    samples/           step-000500-0.png: picture of prompt 0 after 500 steps; grid.jpg: all of them
    drawing.json       what more the finished run shall draw; by the host, only while it does: see drawing.py
    loss.png           the chart of the losses; by the host, when it shows the result
    log.txt            what the worker and its libraries printed
    lock               held by the process that trains
    graph.lock         held by the ComfyUI that prepares the run and waits for it
    failure.lock       held by the process that tells why it failed, where several train together
    result.json        written last: its presence means the run is finished
"""

import hashlib
import itertools
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..dataset.photos import Dataset
from ..parts import TokenVectors, part_types, unused_settings
from .files import read_bytes, read_json, tensor_metadata
from .messages import Message, UserError
from .metrics_file import is_measurement, photos_loss, read_metrics
from .setting_groups import MAX_STEPS
from .settings import Settings

log = logging.getLogger("subject_trainer")

FORMAT = 5
MAX_RESULT_BYTES = 1_000_000
"""A result.json is a page of text, with as many warnings as there are. ComfyUI waits while those of all runs are read."""
_KEY = re.compile("[0-9a-f]{12}")
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
    """DreamBooth of a token with vectors of its own: where the worker writes them, absolute; `export_path` is the model's."""
    lora: str = ""
    """sha256 of the LoRA file that a LoRA goes on from; empty without one."""
    base_fingerprint: str
    """Of the base model's weights, as hex."""
    export_path: str
    """Where the worker writes the result, absolute. Later it is looked up by its file name: folders may move."""
    tokenizer_path: str
    """Folder of CLIP-L's tokenizer files, absolute."""
    base_checkpoint: str = ""
    """File name of the base among ComfyUI's checkpoints, where known: an embedding is of use only with its base."""
    preset: str = ""
    """What the widget `preset` was when the worker was started last. It is in no key: `settings` has what became of it."""
    choice: Message | None = None
    """The same in a sentence: what was chosen, and what the user had set beside it."""

    @property
    def key(self) -> str:
        """Return 12 hex digits of everything that decides the result."""
        class_images = self.class_dataset.deciding() if self.class_dataset else None
        captions, unused = self.settings.uses_captions, unused_settings(self)
        if not captions and (self.embedding or self.settings.inversion.initializer):  # nothing starts from the class either
            unused.add("class_word")
        settings = self.settings.deciding(unused, has_class=bool(self.class_dataset))
        deciding = [FORMAT, settings, self.dataset.deciding(captions), class_images, self.base_fingerprint]
        deciding += filter(None, (self.embedding, self.lora))
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """Return <name>-<key>: the name of the run's folder, and the stem of its exported file."""
        return f"{self.name}-{self.key}"

    @property
    def base_name(self) -> str:
        """Return what the base model is called to the user: its file, where known."""
        return self.base_checkpoint or self.base_fingerprint[:12]

    @property
    def result_kind(self) -> str:
        """Return what the exported file is: "checkpoint", "lora" or "embedding"."""
        return part_types(self)[0].result_kind

    @property
    def has_token_vectors(self) -> bool:
        """Return whether the token has vectors of its own, which are exported as an embedding."""
        return TokenVectors in part_types(self)

    def to_json(self) -> dict:
        """Return what run.json holds."""
        datasets = {"dataset": self.dataset.to_json(), "class_dataset": self.class_dataset and self.class_dataset.to_json()}
        return {"format": FORMAT, "key": self.key, **asdict(self), **datasets}

    @classmethod
    def from_json(cls, data: dict) -> "Run":
        """Read what `to_json` gave. Raises UserError when `data` is not a run of this format."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UserError("run.json is not of this version's format.")
        try:
            texts = {f.name: data[f.name] for f in fields(cls) if f.type is str and f.name in data}
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError("a name or path is not text")
            return cls(
                settings=Settings.from_json(data["settings"]),
                dataset=Dataset.from_json(data["dataset"]),
                class_dataset=Dataset.from_json(data["class_dataset"]) if data["class_dataset"] else None,
                choice=Message.from_json(data["choice"]) if data.get("choice") else None,
                **texts,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError("run.json is damaged: {reason}", reason=str(error)) from None


def at_step(path: str | Path, step: int) -> Path:
    """Return where an export of the weights after `step` steps goes, beside that of the finished run."""
    return Path(path).with_name(f"{Path(path).stem}-step-{step:06}.safetensors")


@dataclass(frozen=True)
class RunDir:
    """The paths of a run's files, and what they hold."""

    path: Path

    run_json = property(lambda self: self.path / "run.json")
    base = property(lambda self: self.path / "base.safetensors")
    embedding = property(lambda self: self.path / "embedding.safetensors")
    lora = property(lambda self: self.path / "lora.safetensors")
    # Not the exported checkpoint, but named so in all runs that were ever begun.
    state = property(lambda self: self.path / "state.safetensors")
    best = property(lambda self: self.path / "best.safetensors")
    finish = property(lambda self: self.path / "finish")
    drawing = property(lambda self: self.path / "drawing.json")
    samples = property(lambda self: self.path / "samples")
    grid = property(lambda self: self.samples / "grid.jpg")
    loss_chart = property(lambda self: self.path / "loss.png")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    evaluations = property(lambda self: self.path / "evaluations.jsonl")
    log = property(lambda self: self.path / "log.txt")
    lock = property(lambda self: self.path / "lock")
    graph_lock = property(lambda self: self.path / "graph.lock")
    failure_lock = property(lambda self: self.path / "failure.lock")
    result_json = property(lambda self: self.path / "result.json")

    def load_run(self) -> Run:
        """Read run.json. Raises OSError or ValueError."""
        return Run.from_json(read_json(self.run_json))

    @property
    def finished(self) -> bool:
        """Return whether the run has its result."""
        return self.result_json.is_file()

    def result(self) -> dict:
        """Read result.json. Raises OSError or ValueError."""
        found = read_json(self.result_json, MAX_RESULT_BYTES)
        if not isinstance(found, dict):
            raise UserError("{file} holds what this pack has not written.", file=self.result_json.name)
        return found

    def exported_step(self) -> int | None:
        """Return the step that the weights of the result are of; None where it does not say. Raises OSError or ValueError."""
        return step_number((self.result().get("exported") or {}).get("step"))

    def in_the_way(self) -> Path | None:
        """Return what stands where the run writes and is no file, such as a folder, or a link that would be written through."""
        replaced = (self.run_json, self.base, self.embedding, self.lora, self.state, self.best, self.result_json, self.drawing)
        written_to = (self.finish, self.metrics, self.log, self.lock, self.graph_lock, self.failure_lock)
        for path in (self.path, self.samples, *replaced, *written_to):
            with suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                is_right = stat.S_ISDIR(mode) if path in (self.path, self.samples) else stat.S_ISREG(mode)
                if not (is_right or (path in replaced and stat.S_ISLNK(mode))):
                    return path
        return None

    def check_way(self) -> None:
        """Raise UserError when something is in the way."""
        in_the_way = self.in_the_way()
        if in_the_way:
            raise UserError(
                "{path} is in the way: it is not the file that this run writes there. Move it away.", path=str(in_the_way)
            )

    def pictures(self) -> dict[Path, tuple[int, int]]:
        """Return the sample pictures, each with its step and the number of its prompt."""
        found = {path: path.stem.split("-") for path in self.samples.glob("step-*-*.png")}
        return {
            path: (int(parts[1]), int(parts[2]))
            for path, parts in found.items()
            if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal()
        }

    def picture(self, step: int, prompt: int) -> Path:
        """Return where the picture of a prompt, by its number, after so many steps is."""
        return self.samples / f"step-{step:06}-{prompt}.png"

    def set_samples_aside(self, prompts: Sequence[str]) -> Path | None:
        """Move the pictures away unless they are of these prompts, or of the first of them: a picture is known by its number.

        Returns where to; None where they stay or there are none.
        """
        had: Sequence[str] | None = None
        with suppress(OSError, ValueError):
            had = self.load_run().settings.samples.sample_prompts
        if self.samples.is_dir() and (had is None or tuple(had) != tuple(prompts)[: len(had)]):
            number = next(n for n in itertools.count(1) if not self.samples.with_name(f"samples-{n}").exists())
            return self.samples.rename(self.samples.with_name(f"samples-{number}"))
        return None

    def remove_pictures_from(self, number: int) -> None:
        """Remove the pictures of the prompts from this number on: what was drawn of more prompts, before that was ended."""
        for path, (_, prompt) in self.pictures().items():
            if prompt >= number:
                path.unlink(missing_ok=True)

    def finish_at(self) -> int | None:
        """Return the step whose result the user asked for; None: that of the last step."""
        with suppress(OSError, ValueError):
            return int(read_bytes(self.finish, 100))
        return None

    def can_go_on(self) -> bool:
        """Return whether the user has ended the run before its last step, and its state is there to train on from."""
        with suppress(OSError, ValueError, AttributeError):
            ended_early = (self.result().get("exported") or {}).get("finished_early", False)
            return bool(ended_early) and self.state.is_file()
        return False

    def saved_step(self) -> int | None:
        """Return the step of the newest saved state, by the header of its file; None where there is none."""
        with suppress(OSError, ValueError, KeyError):
            return step_number(int(tensor_metadata(self.state)["step"]))
        return None

    def remove_partial_files(self) -> None:
        """Remove what a process that was killed left half written: our files, and the temporary ones of safetensors."""
        for pattern in ("*.partial", ".tmp*"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def losses(self) -> list[float]:
        """Return the loss of every step so far that had one: of the photos alone, as the charts draw it."""
        return [photos_loss(entry) for entry in read_metrics(self.metrics) if "loss" in entry]

    def steps_done(self) -> int:
        """Return how many steps were done so far, skipped ones among them."""
        return sum(not is_measurement(entry) for entry in read_metrics(self.metrics))

    def measurements(self) -> list[dict]:
        """Return the losses under fixed noise, {"step": n, "trained", "held_out" and "class" where there are any}."""
        return [entry for entry in read_metrics(self.metrics) if is_measurement(entry)]


def step_number(value: object) -> int | None:
    """Return the number of a step as it is; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STEPS else None


def key_of(run_id: str) -> str:
    """Return the key at the end of a run's id, <name>-<key>, or "" where there is none."""
    key = run_id.rpartition("-")[2]
    return key if _KEY.fullmatch(key) else ""


def is_same_run(one: str, other: str) -> bool:
    """Return whether two ids are of one run: by their keys, because the name may have been changed."""
    return one == other or key_of(one) == key_of(other) != ""


def runs_with_key(root: Path, key: str) -> list[RunDir]:
    """Return the directories under `root` of the run with this key, whatever their names; a link is none."""
    found = [RunDir(path) for path in _folders(root) if key and key_of(path.name) == key]
    return sorted(found, key=lambda run_dir: run_dir.path.name)


def shorter_run(run: Run, root: Path) -> RunDir | None:
    """Return the newest run under `root` that has a saved state and asks for the same as `run`, but for fewer steps."""
    shorter: dict[RunDir, float] = {}
    for other in map(RunDir, _folders(root)):
        with passed_over(other.path):
            if not other.state.is_file():
                continue
            theirs = other.load_run()
            given = theirs.settings.flat()
            lengths = {name: given[name] for name in ("steps", "validate_every")}  # measurements change no weight
            alike = replace(run, settings=run.settings.replace(**lengths))
            if given["steps"] < run.settings.training.steps and alike.key == theirs.key:
                shorter[other] = other.state.stat().st_mtime
    return max(shorter, key=lambda other: shorter[other], default=None)


def finished_runs(root: Path) -> list[RunDir]:
    """Return the finished runs under `root`, newest first."""
    finished: dict[RunDir, float] = {}
    for run_dir in map(RunDir, _folders(root)):
        with passed_over(run_dir.path):
            if run_dir.finished:
                finished[run_dir] = run_dir.result_json.stat().st_mtime
    return sorted(finished, key=lambda run_dir: finished[run_dir], reverse=True)


_told: set[str] = set()
"""What was said of damaged folders, each of them once."""


def _folders(root: Path) -> list[Path]:
    """Return the folders in `root`, links left out; none where there is no such folder, or none that can be read."""
    with suppress(OSError), os.scandir(root) as entries:
        return [root / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


@contextmanager
def passed_over(folder: Path) -> Iterator[None]:
    """Name a folder in the log that cannot be read, and go on: one that is damaged, or anybody's, must not stop all others."""
    try:
        yield
    except Exception as error:  # of any kind: the folder may hold anything
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        told = f"The run in {folder} is passed over: {reason[:300]}"
        if told not in _told:
            _told.add(told)
            log.warning("%s", told)
