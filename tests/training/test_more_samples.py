"""A finished run draws more prompts: what it would have drawn of them at its last step, with the weights that it has exported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.run.drawing import Drawing
from trainer.run.files import write_json
from trainer.run.run_dir import RunDir

from .runs import DREAMBOOTH, INVERSION, work_here

PROMPTS = ("a red ball", "mysks on grass")
DRAWN = {"steps": 2, "sample_every": 2, "learning_rate": 1e-3, "lr_scheduler": "constant", "lr_warmup_steps": 0}
SAME = DREAMBOOTH.replace(**DRAWN, batch_size=1)
RUNS = {
    "unet": SAME.replace(train="unet", learning_rate=1e-4, ema_decay=0.9),
    "unet_and_token": SAME.replace(train="unet_and_token", learning_rate=1e-4, text_learning_rate=1e-2),
    "unet_and_text_encoder": SAME.replace(train="unet_and_text_encoder", learning_rate=1e-4, gradient_checkpointing=True),
    "lora": SAME.replace(train="lora"),
    "lokr": SAME.replace(train="lora", lora_kind="lokr", lora_rank=64, lora_alpha=32.0, lora_layers="all", learning_rate=1e-2),
    "lora_and_token": SAME.replace(train="lora_and_token", text_learning_rate=1e-2),
    "lora_and_text_encoder": SAME.replace(train="lora_and_text_encoder"),
    "teacher": SAME.replace(train="unet", prior="teacher", class_prompt="a toy", prior_loss_weight=0.5, text_layer=-2),
    "inversion": INVERSION.replace(**DRAWN, batch_size=1, vectors=2).replace(learning_rate=0.3),
    # The one file that is always fp32: weights that were fp16 before are not always the same ones in bf16.
    "bf16": INVERSION.replace(**DRAWN, batch_size=1, precision="bf16").replace(learning_rate=0.3),
}
GIVEN = torch.randn((2, 768), generator=torch.Generator().manual_seed(1)) * 0.02
STARTS = {"unet with an embedding": ("unet", GIVEN), "lora with an embedding": ("lora", GIVEN)}

USUAL = ("unet", "unet_and_token", "lora", "lora_and_token", "inversion")


def more(run_dir: RunDir, base: Path, prompts: Sequence[str]) -> list[dict]:
    """Let the worker draw, as the host does; its events."""
    run = run_dir.load_run()
    kind = run.result_kind
    vectors = run.export_path if kind == "embedding" else run.embedding_path
    Drawing(
        prompts=tuple(prompts),
        base=run.export_path if kind == "checkpoint" else str(base),
        lora=run.export_path if kind == "lora" else "",
        embedding=vectors if run.has_token_vectors else "",
    ).write(run_dir)
    return work_here(run_dir)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=int)


def files(run_dir: RunDir) -> dict[Path, bytes]:
    """All that a run has written, but for what is drawn."""
    paths = [*run_dir.path.iterdir(), *run_dir.path.parent.glob(f"{run_dir.path.name}*.safetensors")]
    return {path: path.read_bytes() for path in paths if path.is_file() and path not in (run_dir.drawing, run_dir.lock)}


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.nightly) for name in (*RUNS, *STARTS)]
)
def test_a_new_prompt_is_drawn_as_the_run_would_have_drawn_it(make_run, small_base, name):
    settings, embedding = (RUNS[name], None) if name in RUNS else (RUNS[STARTS[name][0]], STARTS[name][1])
    knew, asked = (
        make_run(settings.replace(sample_prompts=prompts), folder, embedding=embedding)
        for folder, prompts in (("knew", PROMPTS), ("asked", PROMPTS[:1]))
    )
    work_here(knew)
    work_here(asked)
    had, written = {path: path.stat().st_mtime_ns for path in asked.pictures()}, files(asked)
    events = more(asked, small_base, PROMPTS)
    assert [(e["step"], e["prompt"]) for e in events if e["event"] == "sample"] == [(2, 1)]
    assert not [e for e in events if e["event"] in ("progress", "warning") or e.get("phase") == "training"]
    assert {path: path.stat().st_mtime_ns for path in had} == had
    assert files(asked) == written
    with Image.open(asked.grid) as grid:
        assert grid.size == (2 * 256, 20 + 2 * (20 + 256))
    for number in range(len(PROMPTS)):
        drawn, wanted = (pixels(run_dir.picture(2, number)) for run_dir in (asked, knew))
        print(f"\n{name}, {PROMPTS[number]!r}: {np.abs(drawn - wanted).max()} of 255 apart")
        assert np.abs(drawn - wanted).max() <= 1
    learned = np.abs(pixels(asked.picture(2, 1)) - pixels(knew.picture(0, 1))).max()
    print(f"from the base: {learned}")
    assert learned > 8  # so that the base's weights, or the start's, are not taken for the result's


def test_the_pictures_are_of_the_step_that_was_exported(make_run, small_base):
    """Those of earlier prompts, too, where the best step was none at which they were drawn."""
    run_dir = make_run(RUNS["lora"].replace(sample_prompts=PROMPTS[:1]))
    work_here(run_dir)
    write_json(run_dir.result_json, run_dir.result() | {"exported": {"step": 1, "weights": "last"}})
    events = more(run_dir, small_base, PROMPTS)
    assert [(e["step"], e["prompt"]) for e in events if e["event"] == "sample"] == [(1, 0), (1, 1)]
    assert np.abs(pixels(run_dir.picture(1, 0)) - pixels(run_dir.picture(2, 0))).max() <= 1  # the file's weights
