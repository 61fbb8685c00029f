import math
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from bench.card import CASES, settings_of
from tools.standin import SD15, unet_shapes
from trainer.dataset.photos import Dataset
from trainer.parts import TRAIN
from trainer.parts.lora import ADAPTED_WEIGHTS
from trainer.parts.memory import SD15_UNET_WEIGHTS
from trainer.run.choice import Asked, choose
from trainer.run.devices import Device, low_memory_refusal
from trainer.run.messages import message
from trainer.run.presets import NAMED
from trainer.run.resources import (
    DRIVER,
    GB,
    OPTIMIZER_BYTES,
    Resources,
    describe_resources,
    drawing_memory,
    estimate,
    phases,
    refusal,
    remedies,
)
from trainer.run.run_dir import Run
from trainer.run.settings import Settings, method_settings

from ..simulated import card

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


def test_the_base_that_measures_a_card_has_the_size_that_is_counted_with():
    """SD v1.5's own: 859,520,964 weights."""
    shapes = unet_shapes(SD15.unet, SD15.unet_blocks)
    assert sum(math.prod(shape) for shape in shapes.values()) == SD15_UNET_WEIGHTS == 859_520_964


@pytest.mark.parametrize("case", CASES)
def test_each_case_of_a_card_is_what_a_node_would_train(case):
    settings = settings_of(CASES[case], steps=30)
    assert settings.flat() | {name: value for name, value in CASES[case].items() if name == "train"} == settings.flat()
    assert (settings.training.steps, settings.training.precision) == (30, "bf16")


def run_of(settings: Settings, resolution: int = 512) -> Run:
    """Return a run of these settings on no photos, so that nothing is cached."""
    dataset = Dataset(photos=(), resolution=resolution, token="mysks")
    return Run(
        name="toy", settings=settings, dataset=dataset, base_fingerprint="", export_path="toy.safetensors", tokenizer_path=""
    )


def needed(settings: Settings, resolution: int = 512) -> Resources:
    return estimate(run_of(settings, resolution))


def preset(name: str) -> Settings:
    photos = Dataset(photos=(), resolution=512, class_word="toy", class_prompt="a toy")
    asked = Asked(method="dreambooth", preset=name, widgets={}, known={"token": "mysks"}, dataset=photos)
    return choose(asked, Device(kind="cuda", memory=24 * GB, half="bf16")).settings


DEFAULTS = Settings.of(method="dreambooth", token="mysks", precision="bf16")
MEASURED = {
    "preset *study, 24 GB*": (preset("study, 24 GB"), 10.7),
    "preset *paper, 24 GB*": (preset("paper, 24 GB"), 15.1),
    "preset *12 GB card*": (preset("12 GB card"), 9.6),
    "preset *8 GB card (LoRA)*": (preset("8 GB card (LoRA)"), 2.6),
    "*own settings* of **Train with DreamBooth**": (DEFAULTS, 15.0),
    "*lora*, *attention*, batch 8": (DEFAULTS.replace(train="lora", lora_layers="attention", batch_size=8), 11.1),
    "*unet*, batch 8, 8-bit AdamW": (DEFAULTS.replace(train="unet", batch_size=8, optimizer="adamw_8bit"), 17.0),
}
"""GB that torch reserved while training on an NVIDIA H100, at 512 pixels in bf16 with a U-Net of SD v1.5's size."""


def training_bytes(settings: Settings) -> float:
    return phases(run_of(settings))["training"]


@pytest.mark.parametrize(("settings", "measured"), MEASURED.values(), ids=MEASURED.keys())
def test_the_memory_is_what_a_card_took(settings, measured):
    assert 0.97 * measured < training_bytes(settings) / GB < 1.07 * measured


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
        {"prior": "teacher", "class_prompt": "a toy"},
        {"prior": "teacher_outside_masks"},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_what_costs_memory_is_counted(change):
    assert needed(STUDY.replace(**change)).memory > needed(STUDY).memory


def test_a_teacher_of_a_whole_model_is_a_copy_in_half_precision_and_a_lora_is_its_own():
    taught = {"prior": "teacher", "class_prompt": "a toy", "class_images": 0}
    pictures = {"class_images": 100, "class_prompt": "a toy"}
    for settings, copy in ((STUDY, 2 * SD15_UNET_WEIGHTS), (STUDY.replace(train="lora"), 0)):
        more = training_bytes(settings.replace(**taught)) - training_bytes(settings.replace(**pictures))
        assert more == pytest.approx(copy)
    assert f"{2 * SD15_UNET_WEIGHTS / GB:.1f} GB more" in method_settings("dreambooth")["prior"].metadata["setting"].tooltip


def test_a_lokr_keeps_its_changes_of_all_weights():
    lora = DEFAULTS.replace(train="lora")
    more = training_bytes(lora.replace(lora_kind="lokr")) - training_bytes(lora)
    assert more == pytest.approx(2 * ADAPTED_WEIGHTS["attention_and_feed_forward"])


def test_drawing_with_a_finished_run_needs_less_than_training_it_and_drawing_then():
    taught = {"prior": "teacher", "class_prompt": "a toy"}
    for train in (*TRAIN, "inversion"):
        chosen = {"method": "textual_inversion"} if train == "inversion" else {"train": train}
        settings = STUDY.replace(**chosen, batch_size=1, sample_prompts=("a toy",))
        drawn = drawing_memory(run_of(settings))
        assert 2 * SD15_UNET_WEIGHTS < drawn < max(phases(run_of(settings)).values()), train
        if train != "inversion":
            assert drawing_memory(run_of(settings.replace(**taught))) == drawn
    whole, lora = drawing_memory(run_of(STUDY)), drawing_memory(run_of(STUDY.replace(train="lora")))
    assert whole > 4 * SD15_UNET_WEIGHTS  # as fp32, before it is cast
    assert lora + DRIVER < 4 * GB  # a card that can train it


def test_files_that_are_kept_on_the_way_are_counted():
    """1,600 steps: those of 500, 1,000 and 1,500."""
    assert needed(STUDY.replace(save_every=500)).disk - needed(STUDY).disk == pytest.approx(3 * 4.3 * GB)


def test_what_saves_memory_is_counted():
    assert needed(STUDY.replace(train="lora")).memory < 0.5 * needed(STUDY).memory
    assert needed(STUDY.replace(optimizer="adafactor")).memory < needed(STUDY.replace(optimizer="adamw")).memory
    plain = STUDY.replace(gradient_checkpointing=False)
    assert needed(plain.replace(devices=2)).memory < needed(plain).memory
    assert needed(STUDY, 256).memory < needed(STUDY).memory


@pytest.mark.parametrize(
    ("change", "tera"),
    [
        ({"gradient_checkpointing": False}, 2.41),
        ({"gradient_checkpointing": False, "train": "unet"}, 2.41),
        ({"gradient_checkpointing": False, "train": "unet_and_text_encoder"}, 2.41),
        ({"gradient_checkpointing": False, "train": "lora"}, 1.7),
        ({"gradient_checkpointing": False, "method": "textual_inversion"}, 1.7),
        ({}, 2.41 + 0.8),
        ({"train": "lora"}, 1.7 + 0.8),
        ({"train": "lora", "prior": "teacher", "class_prompt": "a toy"}, 2 * (1.7 + 0.8 + 0.4)),
        ({"train": "lora", "prior": "teacher_outside_masks"}, 1.7 + 0.8 + 0.8),
        ({"method": "textual_inversion"}, 1.7 + 0.8),
    ],
)
def test_the_work_of_a_run_is_its_samples(change, tera):
    """The gradients of frozen weights are not computed, and checkpointing adds a forward pass."""
    assert needed(STUDY.replace(**change)).flop == pytest.approx(1600 * 8 * tera * 1e12)
    assert needed(STUDY.replace(**change), 256).flop == pytest.approx(1600 * 2 * tera * 1e12)


def test_the_work_of_the_pictures_is_counted():
    """25 steps of two forward passes each: 200 class images are more than all samples of the paper's 1,000 steps."""
    picture = 25 * 2 * 0.8e12
    drawn = STUDY.replace(class_images=200, class_prompt="a toy", batch_size=4)
    assert needed(drawn).flop - needed(STUDY).flop == pytest.approx(200 * picture)
    assert estimate(replace(run_of(drawn), class_dataset=run_of(drawn).dataset)).flop == needed(STUDY).flop
    shown = STUDY.replace(sample_prompts=("a", "b"), sample_every=400)
    assert needed(shown).flop - needed(STUDY).flop == pytest.approx(2 * 5 * picture)


def test_a_refusal_has_the_numbers_and_the_remedies():
    found = Resources(memory=20 * GB, disk=30 * GB, flop=1.0)
    plain = STUDY.replace(optimizer="adamw", gradient_checkpointing=False)
    sentence = str(refusal(found, run_of(plain), card(12), 100 * GB))
    for part in ("20.0 GB of memory", "has 12.0 GB", "gradient_checkpointing on", "smaller batch_size", "adamw_8bit", "'lora'"):
        assert part in sentence
    assert "30.0 GB of disk" in str(refusal(found, run_of(plain), card(24), 10 * GB))
    assert refusal(found, run_of(plain), card(24), 100 * GB) is None
    chosen = message("auto: LoRA")
    assert str(describe_resources(chosen, found, 3000.0)) == "auto: LoRA, 30.0 GB of disk, very roughly 50 min"
    assert str(describe_resources(chosen, found, 4.0)) == "auto: LoRA, 30.0 GB of disk"


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "prodigy", "learning_rate": 1.0}, {"ema_decay": 0.99}])
def test_a_refusal_names_no_remedy_that_saves_next_to_nothing(optimizer):
    found, lora = Resources(memory=20 * GB, disk=1 * GB, flop=1.0), DEFAULTS.replace(train="lora", **optimizer)
    assert str(refusal(found, run_of(lora), card(12), 100 * GB)).endswith("gradient_checkpointing on, a lower resolution.")
    named = str(refusal(found, run_of(lora.replace(lora_rank=320)), card(12), 100 * GB))
    assert "optimizer adamw_8bit" in named
    assert ("ema_decay 0" in named) == ("ema_decay" in optimizer)


REMEDIES = {
    "gradient_checkpointing on": {"gradient_checkpointing": True},
    "a smaller batch_size": {"batch_size": 1},
    "gradient_accumulation_steps 1": {"gradient_accumulation_steps": 1},
    "optimizer adamw_8bit": {"optimizer": "adamw_8bit"},
    "ema_decay 0": {"ema_decay": 0.0},
    "class_images 0": {"class_images": 0},
    "no sample_prompts": {"sample_prompts": ()},
    "train 'lora'": {"train": "lora"},
}
"""What users do who read this."""
MADE = {"class_images": 100, "class_prompt": "a toy"}


@pytest.mark.parametrize("train", [*TRAIN, "embedding"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("more", [{}, MADE, {"sample_prompts": ("a",)}, MADE | {"sample_prompts": ("a",)}], ids=str)
def test_a_remedy_lowers_what_the_run_needs_and_one_that_does_is_named(train, checkpointing, more):
    what = {"method": "textual_inversion"} if train == "embedding" else {"train": train}
    more = {name: value for name, value in more.items() if train != "embedding" or name == "sample_prompts"}
    for batch, optimizer, precision in product((1, 4), ("adamw", "adamw_8bit"), ("bf16", "fp32")):
        own = {"batch_size": batch, "optimizer": optimizer, "precision": precision, "gradient_checkpointing": checkpointing}
        run = run_of(DEFAULTS.replace(**what, **own, ema_decay=0.9, **more))
        named = [str(remedy) for remedy in remedies(run)]
        assert named.pop() == "a lower resolution"
        assert estimate(replace(run, dataset=replace(run.dataset, resolution=448))).memory < estimate(run).memory
        for remedy, change in REMEDIES.items():
            possible = remedy != "train 'lora'" or run.result_kind == "checkpoint"
            saved = estimate(run).memory - estimate(replace(run, settings=run.settings.replace(**change))).memory
            assert (remedy in named) == (possible and saved > 0.1 * GB), (remedy, own)


ALL = [*REMEDIES.values(), {"low_memory": True}, {"precision": "bf16"}, {"prior": "class_images"}]
BIG = {"batch_size": 4, "gradient_checkpointing": True}
REFUSED = [
    DEFAULTS,
    DEFAULTS.replace(train="lora", gradient_checkpointing=True),
    DEFAULTS.replace(precision="fp32", optimizer="adamw_8bit", **BIG),
    DEFAULTS.replace(prior="teacher", class_prompt="a toy", optimizer="adamw_8bit", **BIG),
    DEFAULTS.replace(train="lora", **BIG, **MADE),
    DEFAULTS.replace(optimizer="prodigy", learning_rate=1.0, ema_decay=0.9),
    Settings.of(method="textual_inversion", token="mysks", precision="bf16", sample_prompts=("a",)),
]


@pytest.mark.parametrize("settings", REFUSED, ids=range(len(REFUSED)))
@pytest.mark.parametrize("resolution", [64, 512])
def test_remedies_are_named_where_together_they_make_the_run_fit(settings, resolution):
    """Found by trying all of them in every combination, at 64 pixels, of which no photo has less."""
    of_embedding = [{"sample_prompts": ()}, {"optimizer": "adamw_8bit"}, {"gradient_checkpointing": True}]
    run, changes = run_of(settings, resolution), ALL if settings.method == "dreambooth" else of_embedding

    def memory(chosen: tuple[bool, ...]) -> float:
        values: dict = {}
        for change, is_chosen in zip(changes, chosen, strict=True):
            values |= change if is_chosen else {}
        return needed(settings.replace(**values), 64).memory

    least = min(map(memory, product((False, True), repeat=len(changes))))
    for there in (least + DRIVER - 1e6, least + DRIVER + 1e6):
        told = str(refusal(estimate(run), run, card(there / GB), math.inf))
        fits = least + DRIVER <= there
        assert (told == "None") == (estimate(run).memory + DRIVER <= there)
        if told != "None":
            assert (f"at 64 pixels, it would need {least / GB:.1f} GB." in told) == (not fits)
            assert ("a lower resolution" in told) == (fits and resolution > 64)


def named(run: Run, device: Device) -> list[str]:
    return [str(remedy) for remedy in remedies(run, device)]


@pytest.mark.parametrize("half", ["bf16", "fp16", ""])
def test_the_precision_is_a_remedy_where_the_device_has_a_half_one(half):
    wide = run_of(DEFAULTS.replace(precision="fp32"))
    assert ("precision auto" in named(wide, card(12, half))) == bool(half)
    assert "precision auto" not in named(run_of(DEFAULTS), card(12, half))


@pytest.mark.parametrize(("train", "is_copy"), [("unet", True), ("lora", False)])
def test_to_have_no_teacher_is_a_remedy_where_it_saves_memory(train, is_copy):
    """A LoRA is its own teacher; in a batch of one, its class samples are no more than its photo."""
    told = "no teacher (prior class_images, class_images 0)"
    for prior in ("teacher", "teacher_outside_masks"):
        taught = DEFAULTS.replace(train=train, prior=prior, class_prompt="a toy", gradient_checkpointing=True)
        more = needed(taught).memory - needed(taught.replace(prior="class_images")).memory
        assert (told in named(run_of(taught), card(12))) == (more > 0.1 * GB)
        assert (more > GB) == is_copy


def test_one_process_is_a_remedy_where_they_share_the_memory():
    """On a CPU each has its own model; graphics cards share the batch, and each has its own memory."""
    lora = run_of(DEFAULTS.replace(train="lora", devices=40, batch_size=40))
    cpu = Device(kind="cpu", memory=64 * GB / 40, half="bf16")
    assert "devices 1" in named(lora, cpu)
    told = str(refusal(estimate(lora), lora, cpu, math.inf))
    assert "which has 1.6 GB" in told
    assert "devices 1, " in told
    assert "devices 1" not in named(lora, card(12))


def test_where_the_pictures_take_the_most_the_remedy_is_to_make_none():
    """The cases of a card of 4 GB."""
    lora = DEFAULTS.replace(train="lora", gradient_checkpointing=True)
    token = Settings.of(method="textual_inversion", token="mysks", gradient_checkpointing=True, precision="bf16")
    for settings, remedy in (
        (lora.replace(**MADE), "class_images 0"),
        (token.replace(sample_prompts=("a",)), "no sample_prompts"),
    ):
        assert [str(said) for said in remedies(run_of(settings))] == [remedy, "a lower resolution"]


def test_what_comfyuis_models_hold_is_not_there_for_the_run():
    """With --highvram and --gpu-only they stay on the card."""
    found = Resources(memory=8 * GB, disk=1 * GB, flop=1.0)
    run, memory = run_of(STUDY), 8 * GB + DRIVER + 2.7 * GB
    assert refusal(found, run, card(memory / GB, held=2.7 * GB), 100 * GB) is None
    sentence = str(refusal(found, run, card(memory / GB, held=2.8 * GB), 100 * GB))
    assert "ComfyUI's models hold 2.8 GB more, because it was started with --highvram or --gpu-only. Start it without" in sentence
    assert "--highvram" not in str(refusal(found, run, card(8, held=2.8 * GB), 100 * GB))  # too small in any case


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        ({"class_images": 10, "class_prompt": "a toy"}, "class_images"),
        ({"sample_prompts": ("a toy",)}, "sample_pictures"),
    ],
)
def test_a_run_needs_the_largest_of_its_phases(change, phase):
    """Those beside training are the largest where little is trained."""
    small = DEFAULTS.replace(train="lora", gradient_checkpointing=True, lora_rank=1)
    assert phase not in phases(run_of(small))
    found = phases(run_of(small.replace(**change)))
    assert needed(small.replace(**change)).memory == max(found.values()) == found[phase]
    large = DEFAULTS.replace(**change)
    assert needed(large).memory == phases(run_of(large))["training"] > phases(run_of(large))[phase]


def test_class_images_that_are_given_are_not_made():
    run = run_of(DEFAULTS)
    assert "class_images" not in phases(replace(run, class_dataset=run.dataset))


def test_pictures_take_more_where_they_are_larger():
    settings = DEFAULTS.replace(class_images=10, class_prompt="a toy")
    small, large = phases(run_of(settings, 512)), phases(run_of(settings, 1024))
    assert large["class_images"] - small["class_images"] == pytest.approx(3 * 0.81 * GB)
    assert large["encoding"] - small["encoding"] == pytest.approx(3 * 0.67 * GB)


def test_a_card_also_holds_its_driver():
    run, found = run_of(DEFAULTS), Resources(memory=8 * GB, disk=0, flop=1)
    assert refusal(found, run, card(8 + DRIVER / GB), 1) is None
    assert "has 8.7 GB, 0.8 GB of them for its driver" in str(refusal(found, run, card(8.7), 1))


@pytest.mark.parametrize(
    ("name", "gigabytes"), [("study, 24 GB", 24), ("paper, 24 GB", 24), ("12 GB card", 12), ("8 GB card (LoRA)", 8)]
)
def test_every_preset_is_valid_and_fits_its_card(name, gigabytes):
    settings = preset(name)
    assert refusal(needed(settings), run_of(settings), card(gigabytes), 100 * GB) is None
    assert needed(settings).memory + DRIVER < (gigabytes - 0.5) * GB


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """Return the cells of the table below a line of a page that begins like this, by their first one."""
    text = (ROOT / page).read_text(encoding="utf-8").split(heading)[1]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


@pytest.mark.parametrize("name", NAMED)
def test_the_readme_has_the_figures_of_the_presets(name):
    settings = preset(name)
    measured = MEASURED[f"preset *{name}*"][1]
    drawing = phases(run_of(settings)).get("class_images")
    assert rows("README.md", "much memory and disk you need")[name][1:] == [
        f"{training_bytes(settings) / GB:.1f} GB",
        f"{measured:.1f} GB",
        f"{drawing / GB:.1f} GB" if drawing else "-",
        f"{needed(settings).disk / GB:.0f} GB",
    ]


@pytest.mark.parametrize("name", MEASURED)
def test_the_documentation_has_the_figures_of_the_arithmetic(name):
    settings, measured = MEASURED[name]
    assert rows("docs/settings.md", "## What a run needs")[name] == [f"{training_bytes(settings) / GB:.1f} GB", f"{measured} GB"]


def growth(settings: Settings) -> float:
    """Return how many GB more the training takes with another photo in a batch so large that activations decide."""
    large = settings.replace(batch_size=63)
    return (training_bytes(settings.replace(batch_size=64)) - training_bytes(large)) / GB


def test_the_figures_in_the_texts_are_those_of_the_arithmetic():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").split("## What a run needs")[1]
    text = " ".join(text.split())
    lora, token = DEFAULTS.replace(train="lora"), DEFAULTS.replace(method="textual_inversion")
    for figure in (
        f"these are {8 + OPTIMIZER_BYTES['adamw']} bytes a weight, {16 * SD15_UNET_WEIGHTS / GB:.0f} GB",
        f"with 8-bit AdamW or Adafactor {8 + OPTIMIZER_BYTES['adafactor']:.0f} bytes, {10 * SD15_UNET_WEIGHTS / GB:.0f} GB",
        f"**Activations** are {growth(DEFAULTS):.2f} GB a sample when the U-Net is trained, {growth(lora):.2f} GB with a LoRA "
        f"({growth(lora.replace(lora_layers='attention')):.2f} GB with `lora_layers` *attention*, "
        f"{growth(lora.replace(lora_layers='all')):.2f} GB with *all*)",
        f"{growth(token):.2f} GB for an embedding",
        f"they are {growth(DEFAULTS.replace(gradient_checkpointing=True)):.2f} GB when the backward pass begins",
        f"about {growth(lora.replace(precision='fp32')) / growth(lora):.1f} times as much",
        f"about {DRIVER / GB:.1f} GB for the card's driver",
        f"makes {4 + OPTIMIZER_BYTES['adamw_8bit']:.0f} bytes of these 10, {6.03 * SD15_UNET_WEIGHTS / GB:.0f} GB",
        f"checkpointing takes {training_bytes(STUDY.replace(batch_size=1, low_memory=True)) / GB:.1f} GB, without it "
        f"{training_bytes(STUDY.replace(batch_size=1)) / GB:.1f} GB",
    ):
        assert figure in text, figure
    drawn = phases(run_of(DEFAULTS.replace(class_images=10, class_prompt="a toy")))["class_images"]
    assert f"**Class images** take {drawn / GB:.1f} GB" in text
    troubles = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"saved state ({12 * SD15_UNET_WEIGHTS / GB:.0f} GB, twice that" in troubles
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"about {DRIVER / GB:.1f} GB\nmore, for its driver" in readme


def test_the_tooltips_say_what_the_arithmetic_counts():
    tips = {name: f.metadata["setting"].tooltip for name, f in method_settings("dreambooth").items()}
    more = training_bytes(DEFAULTS.replace(ema_decay=0.9)) - training_bytes(DEFAULTS)
    assert f"{more / SD15_UNET_WEIGHTS:.0f} bytes more for each trained weight" in tips["ema_decay"]
    assert OPTIMIZER_BYTES["adamw_8bit"] / OPTIMIZER_BYTES["adamw"] == pytest.approx(1 / 4, abs=0.01)
    assert "a quarter of its memory" in tips["optimizer"]
    assert OPTIMIZER_BYTES["adafactor"] == pytest.approx(OPTIMIZER_BYTES["adamw_8bit"], rel=0.1)
    assert "adafactor: about as little" in tips["optimizer"]
    assert (4 + OPTIMIZER_BYTES["adamw"]) / 4 == 3
    assert "three times the size" in tips["keep_state"]
    warning = (ROOT / "trainer" / "training" / "optimizers.py").read_text(encoding="utf-8")
    assert f"needs {OPTIMIZER_BYTES['adamw'] - OPTIMIZER_BYTES['adamw_8bit']:.0f} more bytes" in warning
    (size,) = re.findall(r"for cards with less than (\d+) GB", tips["train"])
    assert needed(preset("8 GB card (LoRA)")).memory + DRIVER < int(size) * GB
    assert needed(STUDY.replace(batch_size=1, low_memory=True)).memory + DRIVER < 0.9 * int(size) * GB
    assert f"on a card of {size} GB" in tips["low_memory"]


@pytest.mark.parametrize("kind", ["cpu", "mps", "cuda", "xpu"])
def test_low_memory_is_for_devices_with_memory_of_their_own(kind):
    """Elsewhere nothing is saved: it is refused, and never named as a remedy."""
    shares = kind in ("cpu", "mps")
    assert bool(low_memory_refusal(kind, True)) == shares
    assert low_memory_refusal(kind, False) is None
    device = Device(kind=kind, memory=7 * GB, half="bf16")
    assert ("low_memory on" in map(str, remedies(run_of(STUDY), device))) == (not shares)


def test_gradients_of_several_batches_are_added_up_in_fp32():
    """Beside those of the newest batch: 2 bytes a weight of the first, 4 of more."""
    need = [training_bytes(STUDY.replace(batch_size=1, gradient_accumulation_steps=steps)) for steps in (1, 2, 3, 9)]
    assert [round((more - need[0]) / SD15_UNET_WEIGHTS, 2) for more in need] == [0, 2, 4, 4]
