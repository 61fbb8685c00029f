import json
from pathlib import Path

import pytest

from trainer.dataset.photos import Dataset
from trainer.run.resources import GB, Resources, describe_resources, estimate, refusal
from trainer.run.run_dir import Run
from trainer.run.settings import Settings

ROOT = Path(__file__).parent.parent.parent
STUDY = Settings.of(
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


def run_of(settings: Settings, resolution: int = 512) -> Run:
    """Return a run of these settings on no photos, so that nothing is cached."""
    dataset = Dataset(photos=(), resolution=resolution, token="mysks")
    return Run(
        name="toy", settings=settings, dataset=dataset, base_fingerprint="", export_path="toy.safetensors", tokenizer_path=""
    )


def needed(settings: Settings, resolution: int = 512) -> Resources:
    return estimate(run_of(settings, resolution))


def test_full_fine_tuning_costs_its_weights_gradients_and_moments():
    """16 bytes a weight for AdamW in fp32 before any activation: 13.75 GB for SD v1.5's U-Net."""
    plain = STUDY.replace(optimizer="adamw", precision="fp32", train="unet", batch_size=1)
    assert needed(plain).memory > 16 * 859_520_964
    assert needed(plain).memory < 16 * 859_520_964 + 2 * GB


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw"},
        {"optimizer": "prodigy", "learning_rate": 1.0},
        {"ema_decay": 0.99},
        {"gradient_checkpointing": False},
        {"batch_size": 16},
        {"class_images": 100, "class_prompt": "a toy"},
        {"train": "unet_and_text_encoder"},
    ],
)
def test_what_costs_memory_is_counted(change):
    assert needed(STUDY.replace(**change)).memory > needed(STUDY).memory


def test_what_saves_memory_is_counted():
    assert needed(STUDY.replace(train="lora")).memory < 0.5 * needed(STUDY).memory
    assert needed(STUDY.replace(optimizer="adafactor")).memory < needed(STUDY).memory
    assert needed(STUDY.replace(devices=2)).memory < needed(STUDY).memory
    assert needed(STUDY, 256).memory < needed(STUDY).memory


def test_the_work_of_the_study_is_its_samples():
    plain = STUDY.replace(gradient_checkpointing=False)
    assert needed(plain).flop == pytest.approx(1600 * 8 * 2.41e12)


def test_a_refusal_has_the_numbers_and_the_remedies():
    found = Resources(memory=20 * GB, disk=30 * GB, flop=1.0)
    plain = STUDY.replace(optimizer="adamw", gradient_checkpointing=False)
    sentence = str(refusal(found, run_of(plain), 12 * GB, 100 * GB))
    for part in ("20.0 GB of memory", "has 12.0 GB", "gradient_checkpointing on", "smaller batch_size", "adamw_8bit", "'lora'"):
        assert part in sentence
    assert "30.0 GB of disk" in str(refusal(found, run_of(plain), 24 * GB, 10 * GB))
    assert refusal(found, run_of(plain), 24 * GB, 100 * GB) is None
    assert str(describe_resources(found, 3000.0)).endswith("30.0 GB of disk, and very roughly 50 min")
    assert str(describe_resources(found, 4.0)).endswith("20.0 GB of memory on the device, and 30.0 GB of disk")


@pytest.mark.parametrize(
    ("preset", "card"), [("study, 24 GB", 24), ("paper, 24 GB", 24), ("12 GB card", 12), ("8 GB card (LoRA)", 8)]
)
def test_every_preset_is_valid_and_fits_its_card(preset, card):
    values = json.loads((ROOT / "js" / "presets.json").read_text(encoding="utf-8"))[preset]
    values["precision"] = "bf16"
    settings = Settings.of(
        method="dreambooth", token="mysks", seed=0, class_prompt="a toy" if values["class_images"] else "", **values
    )
    found = needed(settings)
    assert found.memory < (card - 0.5) * GB
    (row,) = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith(f"| {preset} |")]
    assert row.endswith(f"| {found.memory / GB:.1f} GB | {found.disk / GB:.0f} GB |")
