"""The teacher of the drawn world: a short run of it, as one would run it to see that it works."""

import json
import subprocess
import sys

import pytest

from demo.world import weights
from tools import standin

from .runs import ROOT


@pytest.mark.nightly
def test_a_short_run_of_the_teacher_has_a_falling_loss_and_goes_on_from_its_weights(tmp_path):
    def taught(name: str, *more: str) -> list[float]:
        command = ["-m", "demo.world.teach", str(tmp_path / name), "--seconds", "45", "--scenes", "500", "--batch", "8", *more]
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        facts = json.loads((tmp_path / name / "weights.json").read_text())
        assert facts["first_scenes"] == json.loads(weights.FACTS.read_text())["first_scenes"]
        assert weights.load(
            standin.unet_shapes(standin.CHANNELS), *((tmp_path / name / f"weights.{s}") for s in ("safetensors", "json"))
        )
        return [loss for _, loss in facts["loss"]]

    losses = taught("begun")
    further = taught("further", "--start", str(weights.FILE), "--rate", "1e-4")
    print(f"\nloss from nothing: {losses[0]} -> {losses[-1]}; from the weights: {further[0]} -> {further[-1]}")
    assert losses[-1] < 0.6 * losses[0]
    assert max(further) < losses[-1]
