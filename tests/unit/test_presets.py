"""What a preset, the widgets beside it and the device make of a run's settings, and what cannot go together."""

import json
import math
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from trainer.parts import TRAIN
from trainer.parts.text_side import text_rate
from trainer.run.choice import (
    Asked,
    Choice,
    Device,
    check_used,
    check_widgets,
    choices,
    choose,
    may_be_finished,
    never_fits,
    unknown_photos,
)
from trainer.run.files import write_json
from trainer.run.messages import UserError
from trainer.run.presets import NAMED, for_page, presets, steps_for, widget_values
from trainer.run.resources import DRIVER, GB, estimate, refusal
from trainer.run.run_dir import Run, RunDir
from trainer.run.settings import method_settings, widget_default
from trainer.run.slow import slow_parts

from ..simulated import AUTO, FULL, PHOTOS, SMALL, TOO_SMALL, card

ROOT = Path(__file__).parent.parent.parent
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
CARD = card(12)
DREAMBOOTH, INVERSION = "dreambooth", "textual_inversion"


def asked(preset: str = "auto", method: str = DREAMBOOTH, **widgets) -> Asked:
    known = {"token": "mysks", "class_word": "toy"} | ({"initializer": "toy"} if method == INVERSION else {})
    return Asked(method=method, preset=preset, widgets=widgets, known=known, dataset=PHOTOS)


def chosen(preset: str = "auto", method: str = DREAMBOOTH, device: Device = CARD, **widgets) -> Choice:
    return choose(asked(preset, method, **widgets), device)


def values(choice: Choice, *names: str) -> tuple:
    return tuple(choice.settings.flat()[name] for name in names)


def run_of(choice: Choice, preset: str = "") -> Run:
    more = {"base_fingerprint": "", "export_path": "", "tokenizer_path": ""}
    return Run(name="toy", settings=choice.settings, dataset=PHOTOS, preset=preset, choice=choice.told, **more)


@pytest.mark.parametrize(("device", "picked", "memory"), AUTO.values(), ids=AUTO.keys())
def test_auto_takes_what_fits_the_device(device, picked, memory):
    choice = chosen(device=device)
    assert values(choice, "train", "optimizer", "batch_size", "gradient_checkpointing", "low_memory", "precision") == picked
    needed = estimate(run_of(choice))
    assert needed.memory / GB == pytest.approx(memory, abs=0.05)
    assert refusal(needed, run_of(choice), replace(device, memory=0.9 * device.memory), 1000 * GB) is None
    text = str(choice.told)
    assert text.startswith("auto: LoRA rank 16, " if picked[0] == "lora" else "auto: model, token, ")
    assert f"1500 steps for 15 photos; about {memory:.1f} of your {device.memory / GB:.1f} GB" in text


@pytest.mark.parametrize("device", TOO_SMALL.values(), ids=TOO_SMALL.keys())
def test_without_half_precision_a_lora_needs_more_and_the_texts_say_so(device):
    choice = chosen(device=device)
    run = run_of(choice)
    assert values(choice, "train", "gradient_checkpointing", "precision") == ("lora", True, "fp32")
    told = str(refusal(estimate(run), run, device, 1000 * GB))
    if device.memory < 4.5 * GB:  # the U-Net and the text encoder alone are 3.7 GB as fp32
        assert told.endswith("Even with all that makes it less, at 64 pixels, it would need 3.7 GB.")
    else:
        assert told.endswith("It becomes less with: a lower resolution.")  # 8-bit AdamW would save a LoRA 0.02 GB
    need = (estimate(run).memory + DRIVER) / GB
    assert 5 < need < 6
    assert f"in fp32 {need:.1f} GB" in " ".join((ROOT / "docs" / "settings.md").read_text(encoding="utf-8").split())
    assert "a LoRA from 4 GB up, in fp32 from 6 GB up" in README


def test_the_readme_says_from_which_size_a_card_trains_the_whole_model():
    ((bf16, fp16),) = re.findall(r"on a graphics card the whole model from (\d+) GB up, without bf16 .* from (\d+) GB up", README)
    for half, size in (("bf16", int(bf16)), ("fp16", int(fp16))):
        trained = [values(chosen(device=card(gigabytes, half)), "train") for gigabytes in range(4, 25)]
        assert trained == [("lora",)] * (size - 4) + [(FULL,)] * (25 - size)


@pytest.mark.parametrize("device", [card(4), card(24), AUTO["CPU"][0], AUTO["Mac, 8 GB"][0]])
def test_an_embedding_is_trained_everywhere(device):
    choice = chosen(method=INVERSION, device=device)
    assert estimate(run_of(choice)).memory + DRIVER < 0.9 * device.memory
    assert values(choice, "steps", "learning_rate", "gradient_checkpointing") == (3000, 5e-3, device.memory < 10 * GB)


@pytest.mark.parametrize("held", [0.5, 4, 8, 12, 16, 18, 30])
@pytest.mark.parametrize("preset", ["auto", "12 GB card"])
def test_what_comfyuis_models_hold_is_taken_off(preset, held):
    """As on a card that is so much smaller, of which a tenth is left to others; larger choices come first."""
    device = card(24, held=held * GB)
    every = list(choices(asked(preset), device))
    smaller = chosen(preset, device=card(max(1, 24 - held / 0.9)))
    assert every[-1] == chosen(preset, device=device)
    assert every[-1].settings == smaller.settings
    assert every[0] == chosen(preset, device=card(24))
    needs = [estimate(run_of(choice)).memory for choice in every]
    assert all(need + DRIVER + held * GB > 0.9 * 24 * GB for need in needs[:-1])
    assert re.search(r"of your 24\.0 GB of memory$", str(every[-1].told))
    assert (len(every) > 1) == (preset == "auto" and held > 3)


def test_where_nothing_fits_the_smallest_is_refused_with_numbers():
    tiny = card(2)
    choice = chosen(device=tiny)
    assert values(choice, "train", "gradient_checkpointing") == ("lora", True)
    assert "needs about 2.3 GB of memory" in str(refusal(estimate(run_of(choice)), run_of(choice), tiny, 1000 * GB))


def test_auto_keeps_what_is_given_and_looks_for_what_fits_beside_it():
    assert values(chosen(device=card(80), train="lora"), "train", "learning_rate") == ("lora", 1e-4)
    assert values(chosen(device=card(80), lora_rank=8), "train", "lora_rank", "lora_alpha") == ("lora", 8, 8.0)
    assert values(chosen(device=card(8), train="unet"), "train", "batch_size") == ("unet", 1)  # refused later, with numbers
    assert values(chosen(device=card(24), ema_decay=0.99), "optimizer", "gradient_checkpointing") == (SMALL, False)
    assert values(chosen(device=card(24), batch_size=32), "batch_size", "gradient_checkpointing") == (32, True)
    assert values(chosen(device=AUTO["CPU"][0], train=FULL), "train") == (FULL,)


def test_a_lora_to_go_on_from_means_a_lora():
    meant = replace(asked(), start_lora="a.safetensors")
    assert values(choose(meant, card(80)), "train", "learning_rate") == ("lora", 1e-4)
    with pytest.raises(UserError, match=r"start_lora is a\.safetensors, but no LoRA is trained: train is unet"):
        choose(replace(meant, widgets={"train": "unet"}), card(80))


@pytest.mark.parametrize("preset", ["auto", "8 GB card (LoRA)", "own settings"])
def test_the_rank_is_that_of_the_lora_to_go_on_from(preset):
    """Of a file of rank 4, whose alpha is made up for."""
    train = {} if preset == "auto" else {"train": "lora"}
    choice = choose(replace(asked(preset, **train), start_lora="a.safetensors", start_rank=4), CARD)
    assert values(choice, "lora_rank", "lora_alpha") == (4, 4.0)
    assert re.match(rf"{re.escape(preset)}[^:]*: LoRA rank 4, ", str(choice.told))
    assert "lora_rank" not in str(choice.told)  # nobody set it
    same = replace(asked(preset, lora_rank=4, lora_alpha=2.0, **train), start_lora="a.safetensors", start_rank=4)
    assert values(choose(same, CARD), "lora_rank", "lora_alpha") == (4, 2.0)
    with pytest.raises(UserError, match=r"lora_rank is 16, but the LoRA to go on from has 4\. Set lora_rank to 4, or to 0"):
        choose(replace(same, widgets={"lora_rank": 16, **train}), CARD)


def test_the_rank_of_a_lora_is_held_against_that_of_its_file_when_queued():
    inputs = {"preset": "auto", "start_lora": "a.pt"}
    for widgets in ({}, {"lora_rank": 0}, {"lora_rank": 4}, {"lora_rank": LINK}):
        check_widgets(DREAMBOOTH, inputs | widgets, start_rank=4)
    check_widgets(DREAMBOOTH, inputs | {"lora_rank": 16})  # of a file that does not name it
    check_widgets(DREAMBOOTH, {"preset": "12 GB card", "train": LINK, "lora_rank": 16, "start_lora": "a.pt"}, start_rank=4)
    with pytest.raises(UserError, match="lora_rank is 16, but the LoRA to go on from has 4"):
        check_widgets(DREAMBOOTH, inputs | {"lora_rank": 16}, start_rank=4)
    with pytest.raises(UserError, match=r"a\.pt, but no LoRA is trained"):
        check_widgets(DREAMBOOTH, inputs | {"train": "unet"}, start_rank=4)


@pytest.mark.parametrize("rank", [1, 320])
def test_what_never_fits_is_not_told_of_a_lora_whose_rank_is_not_known_yet(tmp_path, rank):
    """A wired one: it may be of the least rank, and the very run may be finished."""
    wired = replace(asked("auto"), dataset=unknown_photos(512), known={"token": "token"}, start_lora="LORA_MODEL")
    least = estimate(run_of(choose(replace(wired, start_rank=1), card(4)))).memory + DRIVER
    assert never_fits(wired, card(least / GB)) is None
    told = never_fits(wired, card(least / GB - 0.01))
    assert told
    run = replace(run_of(choose(replace(asked("auto"), start_lora="LORA_MODEL", start_rank=rank), card(4))), lora="some")
    run_dir = RunDir(tmp_path / run.id)
    run_dir.path.mkdir()
    write_json(run_dir.run_json, run.to_json())
    write_json(run_dir.result_json, {})
    assert may_be_finished(wired, told.settings, tmp_path)


@pytest.mark.parametrize("device", [device for device, *_ in AUTO.values()], ids=AUTO.keys())
@pytest.mark.parametrize("more", [{}, {"lora_rank": 8}, {"start_lora": "a.safetensors"}], ids=str)
def test_a_text_rate_beside_auto_finds_a_text_side_on_every_device(device, more):
    widgets = {"text_learning_rate": 5e-5} | {name: value for name, value in more.items() if name != "start_lora"}
    known = replace(asked(**widgets), start_lora=more.get("start_lora", ""))
    choice = choose(known, device)
    check_used(known, run_of(choice))
    assert values(choice, "text_learning_rate") == (5e-5,)
    assert refusal(estimate(run_of(choice)), run_of(choice), device, 1000 * GB) is None


def test_a_text_rate_at_which_nothing_learns_is_refused_once_that_is_known():
    def check(train: str, embedding: str = "") -> None:
        known = asked(train=train, text_learning_rate=1e-4)
        check_used(known, replace(run_of(choose(known, CARD)), embedding=embedding))

    for train in ("lora_and_token", "lora_and_text_encoder", FULL):
        check(train)
    check("lora", embedding="some")
    with pytest.raises(UserError, match="Set train to lora_and_token, or text_learning_rate back"):
        check("lora")
    check_used(asked("study, 24 GB"), run_of(chosen("study, 24 GB", train="lora")))  # which the preset says, and not the user


def test_the_photos_size_counts():
    small, large = asked(), replace(asked(), dataset=replace(PHOTOS, resolution=1024))
    assert values(choose(small, card(6)), "gradient_checkpointing") == (False,)
    assert values(choose(large, card(6)), "gradient_checkpointing") == (True,)


def test_the_token_learns_at_a_rate_of_its_own():
    assert values(chosen(device=card(24)), "learning_rate", "text_learning_rate") == (2e-6, 1e-4)
    assert values(chosen(device=card(24), train="unet_and_text_encoder"), "learning_rate", "text_learning_rate") == (2e-6, 0)
    assert values(chosen("12 GB card"), "learning_rate", "text_learning_rate") == (2e-6, 1e-4)
    assert values(chosen("study, 24 GB"), "learning_rate", "text_learning_rate") == (2e-6, 0)
    assert values(chosen("own settings"), "learning_rate", "text_learning_rate") == (2e-6, 1e-4)
    assert values(chosen(train="lora_and_token"), "learning_rate", "text_learning_rate") == (1e-4, 1e-4)
    assert values(chosen(train="lora_and_text_encoder"), "learning_rate", "text_learning_rate") == (1e-4, 5e-5)
    assert values(chosen(train=FULL, optimizer="prodigy"), "learning_rate", "text_learning_rate") == (1, 0)


@pytest.mark.parametrize("preset", presets(DREAMBOOTH))
def test_whatever_a_preset_trains_learns(preset):
    fewest = replace(PHOTOS, photos=PHOTOS.photos[:1])
    for dataset, train in product((PHOTOS, fewest), ({}, *({"train": train} for train in TRAIN))):
        choice = choose(replace(asked(preset, **train), dataset=dataset), CARD)
        assert slow_parts(run_of(choice)) == [] or preset == "study, 24 GB"
    assert slow_parts(run_of(chosen("study, 24 GB"))) == []


@pytest.mark.parametrize(
    ("widgets", "said"),
    [
        ({"train": "lora", "learning_rate": 2e-6}, "(LoRA rank 16): 1500 steps at 2e-06, ... by about 6 % of what 500 steps"),
        ({"train": "lora", "lora_alpha": 0.1}, "(LoRA rank 16): 1500 steps at 6.25e-07, ... by about 2 % ... lora_alpha back"),
        ({"train": "lora", "lora_kind": "lokr", "steps": 20}, "(LoKr rank 16): 20 steps at 0.0001, ... by about 4 %"),
        ({"train": "lora_and_text_encoder", "text_learning_rate": 1e-9}, "(LoRA of the text encoder): ... text_learning_rate"),
        ({"train": "unet", "learning_rate": 1e-9}, "(model): 1500 steps at 1e-09, ... of what 400 steps at 5e-06 do"),
        ({"train": "unet_and_text_encoder", "text_learning_rate": 1e-8}, "(text encoder): ... text_learning_rate back to 0"),
        ({"train": FULL, "text_learning_rate": 2e-6, "steps": 800}, "(token): 800 steps at 2e-06, ... by about 11 % of the size"),
        ({"train": "lora_and_token", "text_learning_rate": 1e-6}, "(embedding): 1500 steps at 1e-06, ... by about 11 %"),
        ({"train": FULL, "text_learning_rate": 3e-6, "lr_scheduler": "polynomial"}, "(token): 1500 steps at 1e-06, "),
        ({"train": "lora", "learning_rate": 8e-6, "lr_warmup_steps": 1500}, "(LoRA rank 16): 1500 steps at 4e-06, "),
        (
            {"train": "lora", "steps": 50, "learning_rate": 1e-4},
            "(LoRA rank 16): 50 steps at 0.0001, ... are usual. Train longer.",
        ),
        ({"train": "unet", "steps": 20}, "(model): 20 steps at 2e-06, ... Train longer."),
        ({"method": INVERSION, "learning_rate": 1e-7}, "(embedding): 3000 steps at 1e-07, ... Set learning_rate back to 0"),
    ],
)
def test_what_will_hardly_learn_is_told(widgets, said):
    (note,) = slow_parts(run_of(chosen(**widgets)))
    assert re.search(".*".join(map(re.escape, said.split("..."))), str(note)), str(note)


@pytest.mark.parametrize(
    "widgets",
    [
        {"train": "lora", "lora_alpha": 1.0},  # kohya's example (docs/train_network.md)
        {"train": "lora", "lora_alpha": 8.0, "lr_scheduler": "cosine", "steps": 400},
        {"train": "lora", "optimizer": "prodigy", "steps": 10},
        {"train": "lora_and_text_encoder", "text_learning_rate": 1e-5},
        {"train": "unet_and_text_encoder", "lr_scheduler": "polynomial"},
        {"method": INVERSION, "learning_rate": 5e-4},
        {"method": INVERSION},
    ],
)
def test_nothing_is_said_of_what_is_usual(widgets):
    assert slow_parts(run_of(chosen(**widgets))) == []


SAYS = {
    "study, 24 GB": {"train": FULL, "steps": 1600, "batch_size": 8, "optimizer": SMALL, "gradient_checkpointing": True},
    "paper, 24 GB": {"train": "unet", "steps": 1000, "class_images": 200, "learning_rate": 5e-6, "optimizer": "adamw"},
    "12 GB card": {"train": FULL, "steps": 1500, "class_images": 100, "optimizer": SMALL, "gradient_checkpointing": True},
    "8 GB card (LoRA)": {"train": "lora", "steps": 1500, "lora_rank": 16, "lora_alpha": 16.0, "lr_scheduler": "cosine"},
    "own settings": {"train": FULL, "steps": 1500, "batch_size": 1, "learning_rate": 2e-6, "optimizer": "adamw"},
}


@pytest.mark.parametrize("preset", presets(DREAMBOOTH)[1:])
def test_a_preset_is_what_is_trained(preset):
    choice = chosen(preset)
    assert choice.settings.flat().items() >= SAYS[preset].items()
    assert str(choice.told).startswith(f"{preset}: ")
    untouched = {name: widget_default(f) for name, f in method_settings(DREAMBOOTH).items()}
    assert chosen(preset, **untouched) == choice  # as the page sends it


@pytest.mark.parametrize("preset", ["12 GB card", "study, 24 GB"])
def test_what_is_given_beside_a_preset_wins_and_is_named(preset):
    choice = chosen(preset, train="lora", lora_rank=32, gradient_checkpointing="off", optimizer="adamw_8bit")
    assert values(choice, "train", "lora_rank", "gradient_checkpointing") == ("lora", 32, False)
    assert values(choice, "learning_rate") == (1e-4,)  # those of the preset are a model's
    named = f"{preset}, with train lora, lora_rank 32, gradient_checkpointing off: LoRA rank 32, 8-bit AdamW"
    assert str(choice.told).startswith(named)


@pytest.mark.parametrize("preset", NAMED)
def test_what_a_preset_says_itself_is_not_named_beside_it(preset):
    """Nor does the page name it, which has these values from here. The study's text rate is that of the model, 0 in short."""
    choice = chosen(preset, **for_page(DREAMBOOTH)["named"][preset])
    assert str(choice.told) == str(chosen(preset).told)


def test_own_settings_name_nothing_and_have_the_plain_defaults():
    assert str(chosen("own settings", train="unet", steps=7).told).startswith("own settings: model, AdamW, 7 steps")
    assert values(chosen("own settings", train="lora"), "learning_rate") == (1e-4,)
    assert values(chosen("own settings", INVERSION), "steps", "learning_rate", "batch_size") == (3000, 5e-3, 1)


@pytest.mark.parametrize(("photos", "steps"), [(1, 400), (4, 400), (5, 500), (15, 1500), (30, 3000), (500, 3000)])
def test_the_steps_follow_the_photos(photos, steps):
    assert steps_for(DREAMBOOTH, photos) == steps


def test_a_teacher_takes_the_place_of_a_presets_class_images():
    assert values(chosen("12 GB card"), "class_images", "class_prompt") == (100, "a photo of a toy")
    choice = chosen("12 GB card", prior="teacher")
    assert values(choice, "class_images", "class_prompt", "prior_loss_weight") == (0, "a photo of a toy", 1.0)
    assert "a teacher" in str(choice.told)


@pytest.mark.parametrize("prior", ["teacher", "teacher_outside_masks"])
@pytest.mark.parametrize("preset", presets(DREAMBOOTH))
def test_what_takes_the_place_of_a_presets_class_images_is_named(preset, prior):
    """As the page names it, see tests/js/settings.test.js. Where the preset makes none, nothing is replaced."""
    masked = replace(PHOTOS, photos=(replace(PHOTOS.photos[0], mask="a.png"), *PHOTOS.photos[1:]), mask_weight=0.1)
    taught = replace(asked(preset, prior=prior, steps=7), dataset=masked)
    wired = replace(asked(preset), class_dataset=PHOTOS)
    replaced = preset in ("paper, 24 GB", "12 GB card", "8 GB card (LoRA)")
    steps = "" if preset == "own settings" else ", with steps 7"
    assert str(choose(taught, CARD).told).startswith(f"{preset}{steps}, prior {prior}: " if replaced else f"{preset}{steps}: ")
    assert str(choose(wired, CARD).told).startswith(f"{preset}, with class_dataset: " if replaced else f"{preset}: ")


def test_a_teacher_outside_of_masks_needs_masks_that_count():
    asked_for = asked("own settings", prior="teacher_outside_masks", train="lora")
    with_mask = replace(PHOTOS, photos=(replace(PHOTOS.photos[0], mask="a.png"), *PHOTOS.photos[1:]))
    for photos in (PHOTOS, replace(with_mask, mask_weight=1.0)):
        with pytest.raises(UserError, match="no photo has a mask that counts"):
            choose(replace(asked_for, dataset=photos), CARD)
    choice = choose(replace(asked_for, dataset=replace(with_mask, mask_weight=0.1)), CARD)
    assert values(choice, "prior", "prior_loss_weight", "class_prompt") == ("teacher_outside_masks", 1.0, "")


@pytest.mark.parametrize(("weight", "refused"), [(1, True), (1.0, True), (0.5, False), (0, False), (None, False)])
def test_a_teacher_outside_of_masks_is_held_against_the_masks_weight_when_queued(weight, refused):
    known = unknown_photos(512) if weight is None else replace(unknown_photos(512), mask_weight=weight)
    check_widgets(DREAMBOOTH, {"prior": "teacher"}, dataset=known)
    if not refused:
        check_widgets(DREAMBOOTH, {"prior": "teacher_outside_masks"}, dataset=known)
        return
    with pytest.raises(UserError, match="no photo has a mask that counts"):
        check_widgets(DREAMBOOTH, {"prior": "teacher_outside_masks"}, dataset=known)


def test_photos_that_are_held_out_are_not_counted():
    assert values(chosen(hold_out=2), "steps") == (1300,)
    assert [steps_for(INVERSION, photos) for photos in (1, 12, 40)] == [2000, 2400, 3000]


def test_prodigy_finds_its_rates():
    for preset in ("auto", "study, 24 GB", "own settings"):
        assert values(chosen(preset, optimizer="prodigy"), "learning_rate", "text_learning_rate") == (1.0, 0.0)


def test_several_devices_share_the_batch():
    assert values(chosen(device=card(24), devices=3), "batch_size") == (3,)
    assert values(chosen("12 GB card", devices=2), "batch_size") == (2,)


def test_class_images_that_are_wired_replace_those_of_a_preset():
    wired = replace(asked("12 GB card"), class_dataset=PHOTOS)
    assert values(choose(wired, CARD), "class_images", "prior_loss_weight") == (0, 1.0)
    with pytest.raises(UserError, match="set class_images to 0, or unwire"):
        choose(replace(wired, widgets={"class_images": 10}), CARD)
    assert values(chosen(prior_loss_weight=0.5), "prior_loss_weight") == (1.0,)  # has no effect, and must not decide the key


def test_8_bit_adamw_that_cannot_run_is_replaced():
    without = card(12, eight_bit=False)
    for preset in ("12 GB card", "study, 24 GB", "8 GB card (LoRA)"):
        choice = chosen(preset, device=without)
        assert values(choice, "optimizer") == ("adafactor",)
        assert ", Adafactor, " in str(choice.told)
    assert values(chosen(optimizer="adamw_8bit", device=without), "optimizer") == ("adamw",)
    assert values(chosen("12 GB card", optimizer="adamw_8bit", device=without), "optimizer") == ("adamw",)


@pytest.mark.parametrize(("preset", "gigabytes"), [("12 GB card", 12), ("study, 24 GB", 24), ("8 GB card (LoRA)", 8)])
def test_a_preset_fits_its_card_without_8_bit_adamw(preset, gigabytes):
    device = card(gigabytes, eight_bit=False)
    run = run_of(chosen(preset, device=device))
    assert refusal(estimate(run), run, device, 1000 * GB) is None


@pytest.mark.parametrize("eight_bit", [True, False])
def test_the_remedy_is_an_optimizer_that_runs(eight_bit):
    device = card(12, eight_bit=eight_bit)
    run = run_of(chosen("12 GB card", optimizer="adamw", device=device))
    told = str(refusal(estimate(run), run, device, 1000 * GB))
    assert ("adamw_8bit" in told, "adafactor" in told) == (eight_bit, not eight_bit)


def test_the_choice_is_told_and_not_part_of_the_key():
    choice = chosen(device=card(24))
    run = run_of(choice, "auto")
    again = Run.from_json(json.loads(json.dumps(run.to_json())))
    assert (again, again.preset) == (run, "auto")
    assert str(again.choice) == str(choice.told)
    given = {name: choice.settings.flat()[name] for name in ("batch_size", "text_learning_rate", "learning_rate", "precision")}
    by_hand = chosen("own settings", device=card(80), **given)
    assert by_hand.told != choice.told
    assert run_of(by_hand, "own settings").key == run.key


REFUSED = {
    "a teacher and class images": ({"prior": "teacher", "class_images": 100}, "class_images is 100, but prior is teacher"),
    "a teacher and photos of the class": ({"prior": "teacher", "class_dataset": ["9", 0]}, "unwire class_dataset"),
    "a teacher outside and class images": (
        {"prior": "teacher_outside_masks", "class_images": 100},
        "class_images is 100, but prior is teacher_outside_masks",
    ),
    "a teacher outside that counts nothing": (
        {"prior": "teacher_outside_masks", "prior_loss_weight": 0.0},
        "which prior_loss_weight 0 leaves without effect",
    ),
    "a LoRA's rank without a LoRA": ({"preset": "12 GB card", "lora_rank": 32}, "lora_rank is 32, but no LoRA is trained"),
    "a LoRA's alpha": ({"preset": "12 GB card", "lora_alpha": 16.0}, "lora_alpha is 16, .* or lora_alpha back to 0[.]$"),
    "a LoRA's layers": (
        {"preset": "auto", "train": "unet", "lora_layers": "attention"},
        "Set train to lora, or lora_layers back",
    ),
    "Prodigy with a rate": ({"preset": "auto", "optimizer": "prodigy", "learning_rate": 1e-4}, "leave learning_rate and"),
    "Prodigy with a token's": ({"preset": "auto", "optimizer": "prodigy", "text_learning_rate": 1e-4}, "leave learning_rate"),
    "Prodigy with a rate, by its name": (
        {"preset": "auto", "optimizer": "prodigy", "learning_rate": 1e-4},
        r"in place of learning_rate 0\.0001\.$",
    ),
    "Prodigy with a token's, by its name": (
        {"preset": "auto", "optimizer": "prodigy", "text_learning_rate": 0.5},
        r"in place of text_learning_rate 0\.5\.$",
    ),
    "Prodigy with both": (
        {"preset": "auto", "optimizer": "prodigy", "learning_rate": 1e-4, "text_learning_rate": 0.2},
        r"in place of learning_rate 0\.0001, text_learning_rate 0\.2\.$",
    ),
    "a text rate beside the model alone": (
        {"preset": "paper, 24 GB", "text_learning_rate": 1e-4},
        "train is unet. Set train to unet_",
    ),
    "the study's model alone": ({"preset": "study, 24 GB", "train": "unet", "text_learning_rate": 1e-4}, "no text encoder is"),
    "a LoRA to go on from beside the model": (
        {"preset": "auto", "train": "unet", "start_lora": "a.pt"},
        "start_lora is a.pt, but",
    ),
    "one beside a preset": (
        {"preset": "study, 24 GB", "start_lora": "a.pt"},
        "train is unet_and_token. .* or start_lora back to none",
    ),
    "one that is wired": (
        {"preset": "study, 24 GB", "lora": ["9", 5]},
        r"train is unet_and_token\. Set train to lora, or unwire lora\.$",
    ),
    "one beside own settings": ({"preset": "own settings", "start_lora": "a.pt"}, "train is unet_and_token"),
    "class images that count nothing": (
        {"preset": "auto", "class_dataset": ["9", 0], "prior_loss_weight": 0.0},
        "Set it above 0, or unwire class_dataset",
    ),
    "a warm-up": ({"preset": "auto", "steps": 10, "lr_warmup_steps": 11}, "lr_warmup_steps is 11"),
    "a warm-up of a preset": ({"preset": "study, 24 GB", "lr_warmup_steps": 1700}, "between 0 and 1600"),
    "nothing held out": ({"preset": "auto", "early_stopping": "export_best"}, "set hold_out to 1 or more"),
    "a batch that cannot be shared": ({"preset": "auto", "batch_size": 3, "devices": 2}, "devices cannot share it evenly"),
    "class images twice": ({"preset": "auto", "class_images": 5, "class_dataset": ["3", 0]}, "come from class_dataset"),
    "no such preset": ({"preset": "4 GB card"}, "Unknown preset '4 GB card'; known are auto, study, 24 GB"),
    "too many prompts": ({"preset": "auto", "sample_prompts": "a\n" * 17}, "17 sample prompts"),
}


@pytest.mark.parametrize(("inputs", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_go_together_is_refused_before_anything_is_known(inputs, said):
    with pytest.raises(UserError, match=said):
        check_widgets(DREAMBOOTH, inputs)


def test_a_text_rate_beside_a_lora_is_refused_where_no_embedding_can_be():
    check_widgets(DREAMBOOTH, {"preset": "auto", "train": "lora_and_token", "text_learning_rate": 1e-4}, no_embedding=True)
    for inputs in ({"preset": "auto", "train": "lora"}, {"preset": "8 GB card (LoRA)"}):
        check_widgets(DREAMBOOTH, inputs, no_embedding=True)
        with pytest.raises(UserError, match=r"no text encoder is trained: train is lora\. Set train to lora_and_token"):
            check_widgets(DREAMBOOTH, inputs | {"text_learning_rate": 1e-4}, no_embedding=True)


LINK = ["9", 0]
HARMLESS = [
    *({"preset": preset} for preset in presets(DREAMBOOTH)),
    {"preset": "auto", "lora_rank": 8},
    {"preset": LINK, "lora_rank": 8},
    {"preset": "study, 24 GB", "train": LINK, "lora_rank": 8},
    {"preset": "study, 24 GB", "train": "lora", "lora_rank": 8},
    {"preset": "auto", "train": "lora", "text_learning_rate": 1e-4},  # the CLIP may have an embedding
    {"preset": "paper, 24 GB", "train": LINK, "text_learning_rate": 1e-4},
    {"preset": "auto", "text_learning_rate": 1e-4},
    {"preset": "auto", "start_lora": "a.pt"},
    {"preset": "auto", "train": "unet", "start_lora": "none"},
    {"preset": "study, 24 GB", "train": "lora_and_token", "start_lora": "a.pt"},
    {"preset": "study, 24 GB", "train": LINK, "start_lora": "a.pt"},
    {"preset": LINK, "start_lora": "a.pt"},
    {"preset": "study, 24 GB", "start_lora": LINK},
    {"preset": "auto", "class_dataset": LINK, "prior_loss_weight": LINK},
    {"preset": "auto", "prior_loss_weight": 0},
    {"preset": "auto", "optimizer": "prodigy", "learning_rate": LINK},
    {"preset": "auto", "steps": LINK, "lr_warmup_steps": 9000},
    {"preset": "auto", "early_stopping": "export_best", "hold_out": LINK},
    {"preset": "auto", "batch_size": 3, "devices": LINK},
    {"preset": "12 GB card", "class_dataset": LINK},
    {"preset": "auto", "class_images": LINK, "model": LINK, "name": LINK},
]


@pytest.mark.parametrize("inputs", HARMLESS, ids=str)
def test_what_is_not_known_yet_contradicts_nothing(inputs):
    check_widgets(DREAMBOOTH, inputs)


@pytest.mark.parametrize(
    ("inputs", "photos", "said"),
    [
        ({"lr_warmup_steps": 401}, 4, "between 0 and 400"),
        ({"lr_warmup_steps": 601}, 7, None),
        ({"lr_warmup_steps": 601, "hold_out": 1}, 7, "between 0 and 600"),
        ({"lr_warmup_steps": 601, "hold_out": LINK}, 7, None),
        ({"lr_warmup_steps": 601, "hold_out": 7}, 7, "between 0 and 400"),
        ({"lr_warmup_steps": 1600, "preset": LINK}, 4, None),  # "study, 24 GB" has as many steps
        ({"lr_warmup_steps": 3001}, None, "between 0 and 3000"),
        ({"lr_warmup_steps": 9000, "steps": LINK}, 4, None),
    ],
    ids=str,
)
def test_a_warm_up_is_held_against_the_steps_that_the_photos_decide(inputs, photos, said):
    if said is None:
        check_widgets(DREAMBOOTH, inputs, photos)
        return
    with pytest.raises(UserError, match=said):
        check_widgets(DREAMBOOTH, inputs, photos)


@pytest.mark.parametrize(
    ("inputs", "refused"),
    [
        ({"class_images": 2}, True),
        ({"prior": "teacher"}, True),
        ({"preset": "12 GB card"}, True),
        ({"preset": "12 GB card", "class_images": LINK}, False),
        ({"preset": "12 GB card", "class_dataset": LINK}, False),
        ({"preset": "12 GB card", "class_images": 0}, False),
        ({"preset": LINK}, False),
        ({}, False),
    ],
    ids=str,
)
def test_class_images_are_held_against_a_class_that_is_known(inputs, refused):
    check_widgets(DREAMBOOTH, inputs)
    nameless = replace(unknown_photos(512), class_word="", class_prompt="")
    if not refused:
        check_widgets(DREAMBOOTH, inputs, dataset=nameless)
        return
    with pytest.raises(UserError, match="Class images need a class"):
        check_widgets(DREAMBOOTH, inputs, dataset=nameless)


def test_the_inversion_s_widgets_are_checked_too():
    check_widgets(INVERSION, {"preset": "auto", "token": "mysks", "initializer": ""})
    with pytest.raises(UserError, match="leave learning_rate"):
        check_widgets(INVERSION, {"preset": "auto", "optimizer": "prodigy", "learning_rate": 0.005})
    with pytest.raises(UserError, match=r"Unknown preset .*; known are auto, own settings"):
        check_widgets(INVERSION, {"preset": "12 GB card"})


@pytest.mark.parametrize("method", [DREAMBOOTH, INVERSION])
def test_what_a_preset_decides_can_be_left_to_it(method):
    """Its widget has a value that says so, which is the default and no value of a run; a preset names no other setting."""
    settings = method_settings(method)
    left = {name: f for name, f in settings.items() if f.metadata["setting"].auto is not None}
    assert set().union(*NAMED.values()) <= set(method_settings(DREAMBOOTH))
    for said in NAMED.values() if method == DREAMBOOTH else ():
        assert said.keys() <= left.keys()
    for name, f in left.items():
        setting = f.metadata["setting"]
        assert widget_default(f) == setting.auto
        outside = (
            setting.auto not in setting.options if setting.options or f.type is bool else setting.auto < max(setting.low, 1e-9)
        )
        assert outside, name


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("ema_decay", 0.9999),
        ("ema_decay", 0.99999),
        ("weight_decay", 0.0001),
        ("lora_alpha", 0.5),
        ("prior_loss_weight", 0.25),
        ("learning_rate", 1e-7),
        ("learning_rate", 2.5e-6),
        ("text_learning_rate", 1e-7),
        ("noise_offset", 0.05),
        ("caption_dropout", 0.05),
        ("min_snr_gamma", 2.5),
    ],
)
def test_what_is_typed_keeps_its_decimals(name, typed):
    """ComfyUI's page rounds to as many as the step has: max(0, -floor(log10(step)))."""
    step = method_settings(DREAMBOOTH)[name].metadata["setting"].step
    assert round(typed, max(0, -math.floor(math.log10(step)))) == typed


def test_the_docs_have_what_auto_takes():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").split("### What `auto` takes")[1].split("###")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    shown = {cells[0]: cells[1:] for cells in rows[2:]}
    for name, cells in shown.items():
        device, (train, optimizer, batch, *savings, precision), memory = AUTO[name]
        words = ["LoRA" if train == "lora" else "model and token", optimizer, str(batch)]
        assert cells == [*words, *("on" if on else "off" for on in savings), precision, f"{memory:.1f} GB"], device
    assert len(shown) > 8


@pytest.mark.parametrize("train", ["auto", *TRAIN])
def test_the_page_fills_own_settings_in_with_what_they_are_anyway(train):
    """For any number of photos, on any device: what depends on these is left out."""
    filled = for_page(DREAMBOOTH)["plain"][train]
    assert not {"steps", "precision"} & filled.keys()
    assert chosen("own settings", **filled).settings == chosen("own settings", train=train).settings


def test_the_page_fills_own_settings_of_an_embedding_in():
    filled = for_page(INVERSION)["plain"]["auto"]
    assert chosen("own settings", INVERSION, **filled).settings == chosen("own settings", INVERSION).settings


@pytest.mark.parametrize(("key", "without_text"), [("unused", ("unet", "lora")), ("unused_beside_embedding", ("unet",))])
def test_the_page_is_told_what_means_nothing_for_each_value_of_train(key, without_text):
    """Beside an embedding that is given, the token learns on, but where the model alone is trained."""
    unused, lora = for_page(DREAMBOOTH)[key], {"lora_alpha", "lora_kind", "lora_layers", "lora_rank"}
    assert unused.keys() == TRAIN.keys()
    for train, names in unused.items():
        rates = {"text_learning_rate"} if train in without_text else set()
        assert set(names) == ({"low_memory"} if train.startswith("lora") else lora) | rates
    assert for_page(INVERSION)[key] == {}


@pytest.mark.parametrize("embedding", ["", "some"])
@pytest.mark.parametrize("train", TRAIN)
def test_the_tooltip_says_at_which_rate_the_text_is_trained(train, embedding):
    tooltip = method_settings(DREAMBOOTH)["text_learning_rate"].metadata["setting"].tooltip
    settings = choose(replace(asked("own settings", train=train, learning_rate=3e-5), embedding=embedding), CARD).settings
    said = {
        name: float(rate)
        for rate, names in re.findall(r"(\de-\d) for ([a-z_]+(?: and [a-z_]+)?)", tooltip)
        for name in names.split(" and ")
    }
    assert "else that of learning_rate" in tooltip
    assert text_rate(settings) == said.get(train, 3e-5)


@pytest.mark.parametrize("more", [{}, {"train": "lora"}, {"optimizer": "prodigy"}, {"preset": "12 GB card"}], ids=str)
def test_what_a_run_took_asks_for_the_same_run_again(more):
    was = chosen(**more)
    assert chosen("own settings", **widget_values(DREAMBOOTH, was.settings.flat())).settings == was.settings


def test_what_a_preset_says_is_what_own_settings_are_filled_in_with():
    """The study trains the token at the rate of the model; 0 in the widget would be the token's own rate."""
    for preset in NAMED:
        filled = for_page(DREAMBOOTH)["named"][preset]
        was, own = chosen(preset).settings, chosen("own settings", **filled).settings
        assert own.deciding(has_class=True) == was.deciding(has_class=True)


GIVEN = [
    {},
    {"train": "unet", "precision": "fp32"},
    {"train": "unet", "batch_size": 64},
    {"train": "lora", "batch_size": 64, "gradient_checkpointing": "on"},
    {"optimizer": SMALL, "sample_prompts": "a toy", "lr_warmup_steps": 900, "hold_out": 1},
    {"class_images": 100, "ema_decay": 0.99},
    {"prior": "teacher", "train": FULL},
]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("preset", "resolution"), [*product(presets(DREAMBOOTH), [64, 512, 1024])])
def test_what_never_fits_is_refused_when_it_runs_too_and_nothing_else(preset, resolution, given):
    """Whatever the photos and the embedding are, which are known only then; and what does not fit then is known now."""
    known = replace(asked(preset, **given), dataset=unknown_photos(resolution))
    for memory in (1.5, 2.5, 4, 6, 9, 11, 14, 20, 60):
        device = card(memory)
        told = never_fits(known, device)
        said = set()
        for count, embedding in product((10, 30), ("", "some")):
            photos = replace(PHOTOS, photos=PHOTOS.photos[:1] * count, resolution=resolution)
            later = replace(known, dataset=photos, embedding=embedding, widgets={"steps": 0} | known.widgets)
            run = run_of(choose(later, device))
            run = replace(run, dataset=photos, embedding=embedding)
            said.add(str(refusal(estimate(run), run, device, math.inf)))
        if told:
            assert str(told.told) in said
            assert "None" not in said
        else:
            assert "None" in said


@pytest.mark.parametrize("kind", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("precision", ["fp16", "fp32", "bf16", "auto"])
def test_fp16_is_told_where_the_device_cannot_train_in_it(kind, precision):
    device = Device(kind=kind, memory=64 * GB, half="")
    told = never_fits(replace(asked(precision=precision), dataset=unknown_photos(512)), device)
    said = "fp16 training needs a GPU. Choose precision auto or fp32."
    assert (told and str(told.told)) == (said if (kind, precision) == ("cpu", "fp16") else None)


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ({"train": "lora", "lora_rank": 64, "batch_size": 64}, {"lora_rank": 32}),
        ({"train": "unet", "batch_size": 64, "steps": 500}, {"steps": 400}),
        ({"train": "unet", "batch_size": 64, "save_every": 400}, {"learning_rate": 1e-5}),
        ({"train": FULL, "batch_size": 64, "optimizer": SMALL}, {"ema_decay": 0.9}),
    ],
    ids=str,
)
def test_what_never_fits_is_told_unless_the_very_run_is_finished(tmp_path, given, other):
    device, photos = card(4), replace(PHOTOS, photos=PHOTOS.photos[:1] * 10)
    known = replace(asked("own settings", **given), dataset=unknown_photos(512), known={"token": "token"})
    told = never_fits(known, device)
    assert told

    def finish(**changes) -> None:
        """As the node would ask for it, with a CLIP that ends a layer earlier."""
        later = asked("own settings", **given | changes)
        run = run_of(choose(replace(later, dataset=photos), device))
        run = replace(run, dataset=photos, settings=run.settings.replace(text_layer=-2))
        run_dir = RunDir(tmp_path / run.id)
        run_dir.path.mkdir()
        write_json(run_dir.run_json, run.to_json())
        write_json(run_dir.result_json, {})

    finish(**other)
    assert not may_be_finished(known, told.settings, tmp_path)
    finish()
    assert may_be_finished(known, told.settings, tmp_path)
    assert not may_be_finished(replace(known, class_dataset=photos), told.settings, tmp_path)
