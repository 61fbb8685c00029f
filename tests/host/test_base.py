"""What ComfyUI's own models are taken for, asked in a process without a server: tests/host/base_checks.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.setup import comfyui_path

CHECKS = Path(__file__).with_name("base_checks.py")
OTHER, SCHEDULE = "a model that predicts something else than noise ({})", "a model with another noise schedule than SD v1.5's"
V = "a v-prediction model"


@pytest.fixture(scope="module")
def answers(standin_base) -> dict:
    done = subprocess.run([sys.executable, CHECKS, comfyui_path(), standin_base], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_model_sampling_but_sd15s_own_is_named(answers):
    discrete = {"v_prediction": V} | {name: OTHER.format(name.upper()) for name in ("lcm", "x0", "img_to_img", "img_to_img_flow")}
    wanted = {f"discrete {name} {zsnr}": told for name, told in discrete.items() for zsnr in (False, True)}
    wanted |= {"discrete eps False": "", "discrete eps True": SCHEDULE}
    wanted |= {"continuous v_prediction": V, "continuous eps": SCHEDULE, "continuous cosmos_rflow": OTHER.format("COSMOS_RFLOW")}
    wanted |= {f"continuous {name}": OTHER.format("EDM") for name in ("edm", "edm_playground_v2.5")}
    wanted |= {"flow": OTHER.format("CONST"), "cascade": SCHEDULE}
    assert answers["model samplings"] == wanted  # and so every option that these nodes have


def test_only_clip_l_alone_is_sd15s_text_encoder(answers):
    told = answers["text encoders"]
    assert told.pop("sd1") == ""
    found = {"sdxl": "CLIP-L + CLIP-G", "refiner": "CLIP-G", "sd2": "OpenCLIP-H", "sd3": "CLIP-L + CLIP-G", "sd3 t5": "T5-XXL"}
    found["sd3 clip_l"] = "CLIP-L"  # without the last norm
    assert told.keys() == found.keys()
    for kind, sentence in told.items():
        assert sentence.startswith(f"The text encoder is {found[kind]}, set up for "), kind


def test_what_a_file_lacks_is_what_comfyui_does_not_load(answers):
    assert len(answers["complete"]) == 24
    assert all(answers["complete"].values()), answers["complete"]


def test_the_worker_reads_prompts_as_comfyuis_clip_does(answers):
    assert answers["text embeddings"].keys() == {"None", "-1", "-2", "-3", "-4", "-12"}
    assert max(answers["text embeddings"].values()) < 1e-4


def test_the_layer_is_that_of_clip_set_last_layer(answers):
    layers = answers["text layers"]
    assert {index: layer for index, layer in layers.items() if isinstance(layer, int)} == {
        "None": -1,
        "-1": -1,
        "-2": -2,
        "-12": -12,
        "10": -2,
        "11": -1,
    }
    for index in ("-13", "-24", "12"):
        assert "The text encoder has 12 layers, and CLIP Set Last Layer is" in layers[index]


def test_what_is_in_no_weight_is_refused(answers):
    told = {name: sentence for name, sentence in answers["patches"].items() if isinstance(sentence, str)}
    assert {name for name, sentence in told.items() if not sentence} == {"nothing", "weight patch", "sampling"}
    for name, found in {
        "bypass": "injections (bypass_lora)",
        "forced hooks": "hooks",
        "hook patches": "hooks",
        "weight wrapper": "wrapped weights",
        "replaced layer": "replaced layers (diffusion_model.weight)",
    }.items():
        assert told[name].startswith(f"The U-Net comes with {found}: this changes what its weights do"), name


def test_a_trained_model_samples_as_the_given_one(answers):
    kept = {name: is_so for name, is_so in answers["patches"].items() if isinstance(is_so, bool)}
    assert len(kept) == 10
    assert all(kept.values()), kept
