"""What `auto` takes on any device really trains: on the stand-in, for two steps."""

import math

import pytest
import torch
from safetensors.torch import load_file

from trainer.run.choice import Asked, choose
from trainer.training.export import TOKEN_TABLE

from ..simulated import AUTO, PHOTOS, card
from .runs import losses_of, work_here

PICKS = {picked: device for device, picked, _ in AUTO.values()}
"""A device for each different choice."""


def settings_for(device, method: str = "dreambooth"):
    known = {"token": "mysks", "class_word": "plush toy"} | ({"initializer": "toy"} if method != "dreambooth" else {})
    asked = Asked(method=method, preset="auto", widgets={}, known=known, dataset=PHOTOS)
    settings = choose(asked, device).settings.replace(steps=2)
    return settings.replace(precision="fp32") if settings.training.precision == "fp16" else settings  # no CPU has a scaler for it


@pytest.mark.parametrize("picked", PICKS, ids=lambda picked: "-".join(map(str, picked)))
def test_each_choice_trains(make_run, small_base, picked):
    run_dir = make_run(settings_for(PICKS[picked]))
    work_here(run_dir)
    assert run_dir.finished
    assert [math.isfinite(loss) for loss in losses_of(run_dir)] == [True, True]
    exported = load_file(run_dir.load_run().export_path)
    if picked[0] == "lora":
        assert all(tensor.any() for name, tensor in exported.items() if "lora_up" in name)
    else:
        base = load_file(small_base)
        changed = {name for name in base if not torch.equal(base[name], exported[name])}
        assert TOKEN_TABLE in changed
        assert any(name.startswith("model.diffusion_model.") for name in changed)


@pytest.mark.parametrize("gigabytes", [4, 24])
def test_each_choice_of_an_embedding_trains(make_run, gigabytes):
    run_dir = make_run(settings_for(card(gigabytes), "textual_inversion"))
    work_here(run_dir)
    assert [math.isfinite(loss) for loss in losses_of(run_dir)] == [True, True]
    assert load_file(run_dir.load_run().export_path)["emb_params"].isfinite().all()
