import json
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config import Settings
from trainer.needs import GB, Needs, in_words, needs, refusal

ROOT = Path(__file__).parent.parent.parent
STUDY = Settings(
    method="dreambooth",
    token="mysks",
    steps=1600,
    batch_size=8,
    learning_rate=2e-6,
    seed=0,
    precision="bf16",
    train="unet_and_token",
    optimizer="adamw_8bit",
    gradient_checkpointing=True,
)


def test_full_fine_tuning_costs_its_weights_gradients_and_moments():
    """16 bytes a weight for AdamW in fp32 before any activation: 13.75 GB for SD v1.5's U-Net."""
    plain = replace(STUDY, optimizer="adamw", precision="fp32", train="unet", batch_size=1)
    assert needs(plain, 512).memory > 16 * 859_520_964
    assert needs(plain, 512).memory < 16 * 859_520_964 + 2 * GB


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw"},
        {"optimizer": "prodigy", "learning_rate": 1.0},
        {"ema_decay": 0.99},
        {"gradient_checkpointing": False},
        {"batch_size": 16},
        {"prior_loss_weight": 1.0},
        {"train": "unet_and_text_encoder"},
    ],
)
def test_what_costs_memory_is_counted(change):
    assert needs(replace(STUDY, **change), 512).memory > needs(STUDY, 512).memory


def test_what_saves_memory_is_counted():
    assert needs(replace(STUDY, train="lora"), 512).memory < 0.5 * needs(STUDY, 512).memory
    assert needs(replace(STUDY, optimizer="adafactor"), 512).memory < needs(STUDY, 512).memory
    assert needs(replace(STUDY, devices=2), 512).memory < needs(STUDY, 512).memory
    assert needs(STUDY, 256).memory < needs(STUDY, 512).memory


def test_the_work_of_the_study_is_its_samples():
    plain = replace(STUDY, gradient_checkpointing=False)
    assert needs(plain, 512).flop == pytest.approx(1600 * 8 * 2.41e12)


def test_a_refusal_has_the_numbers_and_the_remedies():
    found = Needs(memory=20 * GB, disk=30 * GB, flop=1.0)
    plain = replace(STUDY, optimizer="adamw", gradient_checkpointing=False)
    sentence = refusal(found, plain, 12 * GB, 100 * GB)
    for part in ("20.0 GB of memory", "has 12.0 GB", "gradient_checkpointing on", "smaller batch_size", "adamw_8bit", "'lora'"):
        assert part in sentence
    assert "30.0 GB of disk" in refusal(found, plain, 24 * GB, 10 * GB)
    assert refusal(found, plain, 24 * GB, 100 * GB) == ""
    assert in_words(found, 3000.0).endswith("30.0 GB of disk, and very roughly 50 min")
    assert in_words(found, 4.0).endswith("20.0 GB of memory on the device, and 30.0 GB of disk")


@pytest.mark.parametrize(
    ("preset", "card"), [("study, 24 GB", 24), ("paper, 24 GB", 24), ("12 GB card", 12), ("8 GB card (LoRA)", 8)]
)
def test_every_preset_is_valid_and_fits_its_card(preset, card):
    values = json.loads((ROOT / "js" / "presets.json").read_text(encoding="utf-8"))[preset]
    values["precision"] = "bf16"
    if not values["class_images"]:
        values.pop("prior_loss_weight", None)
    settings = Settings(
        method="dreambooth", token="mysks", seed=0, class_prompt="a toy" if values["class_images"] else "", **values
    )
    found = needs(settings, 512)
    assert found.memory < (card - 0.5) * GB
    (row,) = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith(f"| {preset} |")]
    assert row.endswith(f"| {found.memory / GB:.1f} GB | {found.disk / GB:.0f} GB |")
