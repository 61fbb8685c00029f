"""What the trained word means to ComfyUI's own text encoder, compared tensor by tensor."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tools.setup import comfyui_path

SCRIPT = Path(__file__).with_name("conditioning.py")


@pytest.mark.parametrize("vectors", [pytest.param(1, marks=pytest.mark.nightly), 3])
def test_the_token_means_the_embedding_and_nothing_else_changes(standin_base, tmp_path, vectors):
    file, other_file = tmp_path / "mysks-0123456789ab.safetensors", tmp_path / "my-mysks.safetensors"
    for seed, path in enumerate((file, other_file)):
        save_file({"emb_params": np.random.default_rng(seed).standard_normal((vectors, 768), dtype=np.float32)}, path)
    command = [sys.executable, SCRIPT, comfyui_path(), standin_base, tmp_path, file, "mysks", other_file, "blorp"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert {label for label, same in found["same"].items() if not same} == {
        label for label in found["same"] if label.startswith("differs: ")
    }
    assert np.array_equal(np.array(found["vectors"], dtype=np.float32), load_file(file)["emb_params"])
    assert set(found["refused"]) == {"mysks (1)", "my toy", "mysks[1]"}
    assert found["refused"]["my toy"].startswith("The embedding my toy.safetensors cannot be written in a prompt: ")
