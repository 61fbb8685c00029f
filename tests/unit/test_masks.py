"""Masks: where they are found, what they change, and that they are framed as their photos are."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.pack import load
from trainer.dataset.folder import read_folder
from trainer.dataset.masks import decode_mask, mask_path
from trainer.dataset.photos import Dataset, read_photo
from trainer.dataset.wired import Wired
from trainer.run.files import partial_file
from trainer.run.messages import UserError

folder_view = load("nodes.page.folder_view")


def shape(size=(150, 110), spot=(20, 15, 90, 70)) -> Image.Image:
    """A white ellipse on black, where nothing is symmetric."""
    image = Image.new("L", size, 0)
    ImageDraw.Draw(image).ellipse(spot, 255)
    return image


def masked(folder: Path, **options) -> Dataset:
    return read_folder(folder, 64, **({"mask_weight": 0.1} | options))[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A photo with a label beside it, one with an alpha channel, one with neither."""
    shape().convert("RGB").save(tmp_path / "label.png")
    shape().save(tmp_path / "label-masklabel.png")
    transparent = shape().convert("RGB")
    transparent.putalpha(shape(spot=(60, 40, 130, 100)))
    transparent.save(tmp_path / "see-through.png")
    shape(spot=(1, 2, 50, 60)).convert("RGB").save(tmp_path / "whole.png")
    return tmp_path


def test_a_mask_is_a_file_beside_the_photo_or_its_alpha_channel(folder):
    label, alpha, whole = masked(folder).photos
    assert (Path(label.mask).name, alpha.mask, whole.mask) == ("label-masklabel.png", alpha.path, "")
    for photo, wanted in ((label, shape()), (alpha, shape(spot=(60, 40, 130, 100)))):
        found = decode_mask(Path(photo.mask).read_bytes(), (photo.width, photo.height), photo.mask == photo.path)
        assert found.tobytes() == wanted.tobytes()


def test_a_wired_mask_takes_the_place_of_both(folder, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    for name in ("label", "see-through", "whole"):
        shape().resize((75, 55)).save(masks / f"{name}.png.png")
    photos = masked(folder, wired=Wired(masks=masks)).photos
    assert [Path(photo.mask).parent for photo in photos] == [masks] * 3
    assert decode_mask(Path(photos[0].mask).read_bytes(), (150, 110), False).size == (150, 110)


@pytest.mark.parametrize("ending", [".png", "x" * 240 + ".png", "x" * 250 + ".png", "ї" * 124 + ".jpeg"], ids=len)
def test_a_photo_of_the_longest_name_may_have_a_wired_mask(tmp_path_factory, ending):
    folder, masks = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("masks")
    for photo, left in (("a" + ending, 20), ("b" + ending, 40)):
        shape().convert("RGB").save(folder / photo, "PNG")
        with partial_file(mask_path(folder / photo, None, masks)) as partial:
            shape(spot=(left, 15, 90, 70)).save(partial, "PNG")
    for photo, left in zip(masked(folder, wired=Wired(masks=masks)).photos, (20, 40), strict=True):
        assert Image.open(photo.mask).tobytes() == shape(spot=(left, 15, 90, 70)).tobytes()


@pytest.mark.parametrize("grey", [0, 7, 248, 255])
def test_a_mask_that_tells_nothing_is_none(folder, grey):
    """LoadImage gives a black one for each picture without transparency."""
    Image.new("L", (64, 64), grey).save(folder / "label-masklabel.png")
    assert masked(folder).photos[0].mask == ""


def test_a_soft_mask_that_found_nothing_is_none_and_a_faint_subject_is_one(folder):
    noise = np.random.default_rng(0).integers(0, 8, (110, 150), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "label-masklabel.png")
    assert masked(folder).photos[0].mask == ""
    noise[40:60, 50:80] = 30
    Image.fromarray(noise).save(folder / "label-masklabel.png")
    assert Path(masked(folder).photos[0].mask).name == "label-masklabel.png"


@pytest.mark.parametrize("size", [(110, 150), (110, 110), (150, 100), (75, 59)])
def test_a_mask_of_another_shape_is_refused_and_not_squeezed(folder, size):
    """Turned, cropped to a square, or to another frame: it would lie beside the subject."""
    shape().resize(size).save(folder / "label-masklabel.png")
    said = (
        rf"label-masklabel\.png \(a mask of {size[0]}x{size[1]} pixels for a photo of 150x110: a mask must show the whole photo"
    )
    with pytest.raises(UserError, match=said):
        masked(folder)


@pytest.mark.parametrize("size", [(75, 55), (64, 47), (50, 37), (300, 220), (1500, 1101)])
def test_a_mask_of_another_size_is_scaled(folder, size):
    shape().resize(size).save(folder / "label-masklabel.png")
    photo = masked(folder).photos[0]
    found = decode_mask(Path(photo.mask).read_bytes(), (photo.width, photo.height), False)
    assert found.size == (150, 110)
    assert np.abs(np.asarray(found, int) - np.asarray(shape(), int)).mean() < 8


def test_a_mask_that_cannot_be_read_is_named(folder):
    (folder / "label-masklabel.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 4 images cannot be read: label-masklabel\.png \("):
        masked(folder)


def test_a_wired_mask_that_cannot_be_used_is_named_by_its_photo(folder, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    for name, size in (("label", (75, 75)), ("see-through", (75, 55)), ("whole", (75, 75))):
        shape().resize(size).save(masks / f"{name}.png.png")
    said = (
        r"^2 of 3 images cannot be read: label\.png \(its wired mask: a mask of 75x75 .*, whole\.png \(its wired mask: a mask of"
    )
    with pytest.raises(UserError, match=said):
        masked(folder, wired=Wired(masks=masks))


def test_masks_decide_the_result_where_they_count_and_only_there(folder, tmp_path_factory):
    plain = tmp_path_factory.mktemp("plain")
    (folder / "whole.png").rename(plain / "whole.png")
    without, weighed = masked(plain, mask_weight=1.0), masked(plain, mask_weight=0.1)
    assert without.deciding() == weighed.deciding()
    assert not weighed.masked
    found = [masked(folder, mask_weight=weight) for weight in (1.0, 0.1, 0.0)]
    assert [dataset.masked for dataset in found] == [False, True, True]
    assert found[0].deciding() == replace(found[1], mask_weight=1.0).deciding() != found[1].deciding() != found[2].deciding()
    shape(spot=(21, 15, 90, 70)).save(folder / "label-masklabel.png")
    assert masked(folder).deciding() != found[1].deciding()
    assert Dataset.from_json(found[1].to_json()) == found[1]


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_weight_out_of_bounds_is_refused(folder, weight):
    with pytest.raises(UserError, match=r"mask_weight is .*; it must be between 0 and 1"):
        masked(folder, mask_weight=weight)


@pytest.mark.parametrize("crop", ["center", "top", "pad", "bucket"])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("size", [(150, 110), (90, 160)], ids=str)
def test_a_mask_is_framed_as_its_photo_is(tmp_path, crop, jitter, size):
    """The photo shows its own mask: in each view, its pixels are the mask's. On white, in the padding, nothing is the subject."""
    shape(size).convert("RGB").save(tmp_path / "a.png")
    shape(size).save(tmp_path / "a-masklabel.png")
    options = {"flip": True, "view_jitter": jitter, "variants": 4, "mask_weight": 0.0}
    dataset, _ = read_folder(tmp_path, 128, crop, **options)
    (photo,) = dataset.photos
    image, mask = read_photo(Path(photo.path)).image, Image.open(photo.mask)
    views = set()
    for number in range(dataset.views):
        seen = np.asarray(dataset.view(image, photo, number), dtype=float)[..., 0]
        weighed = np.asarray(dataset.mask_view(mask, photo, number), dtype=float)
        views.add(weighed.tobytes())
        if crop == "pad":  # but at its seam, where the photo fades to white and the mask to black
            whole = dataset.mask_view(Image.new("L", size, 255), photo, number)
            assert weighed[np.asarray(whole) == 0].max() <= 5
            inside = np.asarray(whole.filter(ImageFilter.MinFilter(5))) == 255
            seen, weighed = seen[inside], weighed[inside]
        assert np.abs(seen - weighed).max() <= 1
    assert len(views) == dataset.views == (8 if jitter else 2)


@pytest.mark.parametrize(
    ("crop", "named"), [("center", "left.png, top.png"), ("top", "left.png"), ("pad", ""), ("bucket", "")], ids=str
)
def test_photos_whose_masked_subject_the_crop_cuts_off_are_named(tmp_path, crop, named):
    """But for a twentieth. What is small, or cut to a fifth, is there."""
    cases = {
        "left": ((200, 100), (0, 0, 52, 100)),
        "top": ((100, 200), (0, 0, 100, 52)),
        "fifth": ((200, 100), (0, 0, 62, 100)),
        "small": ((200, 100), (100, 50, 104, 54)),
    }
    for name, (size, box) in cases.items():
        shape(size).convert("RGB").save(tmp_path / f"{name}.png")
        mask = Image.new("L", size, 0)
        mask.paste(255, box)
        mask.save(tmp_path / f"{name}-masklabel.png")
    said = f"The crop cuts off what the masks of these photos show: {named}. Choose another crop, pad for example."
    warnings = [str(note) for note in read_folder(tmp_path, 256, crop, mask_weight=0.1)[0].warnings]
    assert [note for note in warnings if "masks of these" in note] == ([said] if named else [])
    plain = [str(note) for note in read_folder(tmp_path, 256, crop, mask_weight=1.0)[0].warnings]
    assert plain == [note for note in warnings if note != said]


def test_colour_and_light_leave_a_mask_where_its_photo_is(tmp_path):
    shape().convert("RGB").save(tmp_path / "a.png")
    shape().save(tmp_path / "a-masklabel.png")
    jitters = {"view_jitter": 0.2, "color_jitter": 0.4, "light_jitter": 0.4, "variants": 6}
    dataset, _ = read_folder(tmp_path, 128, mask_weight=0.0, **jitters)
    (photo,) = dataset.photos
    image, mask = read_photo(Path(photo.path)).image, Image.open(photo.mask)
    for number in range(dataset.views):
        seen = np.asarray(dataset.view(image, photo, number), dtype=float)[..., 0]
        weighed = np.asarray(dataset.mask_view(mask, photo, number), dtype=float)
        assert np.corrcoef(seen.ravel(), weighed.ravel())[0, 1] > 0.999


def test_the_panel_shows_the_mask_over_the_photo(tmp_path, tmp_path_factory):
    Image.new("RGB", (128, 128), (200, 200, 200)).save(tmp_path / "a.png")
    half = Image.new("L", (128, 128), 0)
    half.paste(255, (0, 0, 64, 128))
    masks = tmp_path_factory.mktemp("masks")
    half.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(masks / "a.png.png")

    def sides(wired=None) -> list[bool]:
        """Whether the left and the right side are as bright as the photo."""
        photo = tmp_path / "a.png"
        shown = Image.open(io.BytesIO(folder_view.thumbnail(photo, 128, "center", folder_view.mask_of(photo, wired))))
        return [shown.getpixel((x, 64))[0] > 150 for x in (20, 108)]

    assert sides() == [True, True]
    half.save(tmp_path / "a-masklabel.png")
    assert sides() == [True, False]
    assert sides(masks) == [False, True]
