"""The drawn world: the judge on pictures that it has not seen, and the weights as they are kept."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from demo.world import weights
from demo.world.judge import SUBJECT, Verdict, decoded, judge
from demo.world.scenes import STYLES, Scene, draw_scene, random_scene
from demo.world.subject import PHOTO_PLACES, photos, piglet, subject_scene
from tools import standin

ASPECTS = ("thing", "colour", "place", "style")


def right(verdicts: list[Verdict], truth: list[Scene]) -> dict[str, float]:
    """Return the share of right words; the colour's in pictures that have colours: a pencil's red and blue are the same grey."""
    shares = {}
    for aspect in ASPECTS:
        pairs = [(getattr(v, aspect), getattr(t, aspect), t.style) for v, t in zip(verdicts, truth, strict=True)]
        shares[aspect] = float(
            np.mean([told == true for told, true, style in pairs if aspect != "colour" or "pencil" not in style])
        )
    return shares


def told(shares: dict[str, float]) -> str:
    return ", ".join(f"{aspect} {share:.1%}" for aspect, share in shares.items())


def test_the_judge_is_right_on_renderings_that_it_has_not_seen():
    """Every third picture shows the subject; none is of a seed, size or position that the judge drew."""
    r = random.Random(20_000)
    truth, pictures = [], []
    for number in range(150):
        scene = random_scene(r)
        is_subject = number % 3 == 0
        pictures.append(decoded(draw_scene(r, scene, piglet if is_subject else None)))
        truth.append(replace(scene, thing=SUBJECT, colour=SUBJECT) if is_subject else scene)
    verdicts = judge(pictures)
    shares = right(verdicts, truth)
    taken = np.mean([v.thing == SUBJECT for v, t in zip(verdicts, truth, strict=True) if t.thing != SUBJECT])
    likeness = np.mean([v.likeness for v in verdicts])
    print(f"\nright: {told(shares)}; taken for the subject: {taken:.1%}; likeness {likeness:.3f}")
    assert min(shares.values()) >= 0.95
    assert taken <= 0.02
    assert likeness > 0.95


def test_the_judge_is_not_led_astray_by_noise():
    """Latents that a model draws are never as clean as a rendering."""
    r, numbers = random.Random(30_000), np.random.default_rng(0)
    truth = [random_scene(r) for _ in range(60)]
    pictures = []
    for scene in truth:
        small = np.asarray(draw_scene(r, scene).resize((16, 16), Image.Resampling.BOX), float)
        noisy = (small + numbers.normal(0, 0.06 * 255, small.shape)).clip(0, 255).astype(np.uint8)
        pictures.append(decoded(Image.fromarray(noisy)))
    verdicts = judge(pictures)
    print(f"\nright under noise of 0.06: {told(right(verdicts, truth))}")
    assert min(right(verdicts, truth).values()) >= 0.95
    assert np.mean([v.likeness for v in verdicts]) < 0.97  # it says that they are worse


def test_photos_of_the_subject_show_it_where_their_captions_say():
    taken = photos()
    verdicts = judge(decoded(photo) for photo, _ in taken)
    assert [v.thing for v in verdicts] == [SUBJECT] * len(taken)
    assert [v.place for v in verdicts] == list(PHOTO_PLACES)
    assert all(verdict.place in caption for verdict, (_, caption) in zip(verdicts, taken, strict=True))
    assert judge([decoded(subject_scene("in space", style)) for style in STYLES])[2].style == "a pencil drawing of {}"


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="must have 128 x 128"):
        judge([Image.new("RGB", (64, 64))])


@pytest.mark.parametrize("shape", [(6, 100), (5, 4, 3, 3)])
def test_four_bits_keep_a_weight(shape):
    value = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    back = weights.dequantized(*weights.quantized(value), shape)
    error = ((back - value).square().mean() / value.square().mean()).sqrt()
    print(f"\nrelative error {error:.3f}")
    assert back.shape == shape
    assert error < 0.12
    assert weights.quantized(value)[0].dtype == torch.uint8


def test_the_weights_are_those_that_their_facts_tell_of(tmp_path):
    shapes = standin.unet_shapes(standin.CHANNELS)
    taught = weights.load(shapes)
    assert {name: tuple(value.shape) for name, value in taught.items()} == shapes
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in taught.values())
    assert weights.FILE.stat().st_size < 20e6
    damaged = tmp_path / "weights.safetensors"
    content = bytearray(weights.FILE.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        weights.load(shapes, damaged)
    with pytest.raises(ValueError, match="another U-Net"):
        weights.load(standin.unet_shapes((320, 320, 320)))
    losses = [loss for _, loss in json.loads(weights.FACTS.read_text(encoding="utf-8"))["loss"]]
    assert losses[-1] < losses[0] / 5


def test_the_world_is_drawn_as_it_was_taught():
    pytest.importorskip("diffusers")  # where the worker's libraries are missing, nothing is taught
    from demo.world import teach

    facts = json.loads(weights.FACTS.read_text(encoding="utf-8"))
    assert teach.checksum(*teach.draw_scenes(teach.FIRST_SEED)) == facts["first_scenes"]


def test_a_taught_stand_in_of_other_words_is_refused(tmp_path):
    for words in ({"seed": 1}, {"size": standin.SMALL}):
        with pytest.raises(ValueError, match="taught=False"):
            standin.build(tmp_path / "base.safetensors", **words)
    assert not list(tmp_path.iterdir())
