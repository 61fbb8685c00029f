"""What a finished run is asked to draw: sample pictures of prompts that it was not trained with. Plain data, no torch."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from .files import read_json, write_json
from .run_dir import Run, RunDir
from .setting_groups import MAX_SAMPLE_PROMPTS


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What drawing.json holds: the prompts, and where the files lie now that the run's model is made from, absolute."""

    prompts: tuple[str, ...]
    """All of the run's: those that it has pictures of keep their numbers, and with them their noise."""
    base: str
    """The checkpoint that the run has exported; of a LoRA or an embedding the base."""
    lora: str = ""
    """The LoRA that it has exported; empty for another kind of result."""
    embedding: str = ""
    """The vectors of the token that it has exported; empty without any."""

    def write(self, run_dir: RunDir) -> None:
        """Write drawing.json."""
        write_json(run_dir.drawing, asdict(self))

    @classmethod
    def read(cls, run_dir: RunDir) -> "Drawing":
        """Read drawing.json. Raises OSError, ValueError, KeyError or TypeError for what the host has not written."""
        data = read_json(run_dir.drawing)
        return cls(**{**data, "prompts": tuple(data["prompts"])})


def with_new_prompts(had: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts that a run has, and behind them those that are asked for more often than it has them."""
    spare, new = list(had), []
    for prompt in asked:
        if prompt in spare:
            spare.remove(prompt)
        else:
            new.append(prompt)
    return (*had, *new)


@contextmanager
def room_made(run_dir: RunDir, run: Run, asked: Sequence[str]) -> Iterator[Run]:
    """Yield the run; its pictures are set aside where with what is asked for it would have more prompts than a run can have.

    They are put back where the body fails.
    """
    if len(with_new_prompts(run.settings.samples.sample_prompts, asked)) <= MAX_SAMPLE_PROMPTS:
        yield run
        return
    aside = run_dir.set_samples_aside(asked)
    try:
        made = replace(run, settings=run.settings.replace(sample_prompts=()))
        write_json(run_dir.run_json, made.to_json())
        yield made
    except BaseException:
        shutil.rmtree(run_dir.samples, ignore_errors=True)
        write_json(run_dir.run_json, run.to_json())  # before its pictures: those of no known prompt are removed
        if aside:
            aside.rename(run_dir.samples)
        raise
