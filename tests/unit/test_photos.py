import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from trainer.dataset.caption_files import ConflictError, write_caption
from trainer.dataset.crop import frame_size, prepare
from trainer.dataset.decode import decode_photo
from trainer.dataset.folder import fingerprint, read_folder
from trainer.dataset.named import listed
from trainer.dataset.photos import Dataset, check_framing, check_resolution, read_photo
from trainer.run.messages import MessageError, UserError, message


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def save(folder, name: str, size=(96, 80), colour=(200, 30, 40), plain=False) -> None:
    image = Image.new("RGB", size, colour)
    if not plain:
        image.paste((0, 90, 160), (0, 0, size[0] // 2, size[1] // 2))
    image.save(folder / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.bmp"])
def test_every_promised_format_is_read(tmp_path, name):
    save(tmp_path, name, plain=True)
    dataset, (square,) = read_folder(tmp_path, 64)
    assert square.size == (64, 64)
    assert np.abs(np.asarray(square, dtype=int) - (200, 30, 40)).max() <= 4
    assert (dataset.photos[0].width, dataset.photos[0].height) == (96, 80)


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (60, 40), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_photo(encoded(image, "JPEG", exif=exif)).size == (40, 60)


def test_transparency_becomes_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photo(encoded(image)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9])
    assert decode_photo(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_greyscale_keeps_its_brightness():
    image = Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))
    assert decode_photo(encoded(image)).getpixel((0, 0)) == (128, 128, 128)


def test_greyscale_and_cmyk_become_rgb():
    assert decode_photo(encoded(Image.new("L", (8, 8), 77))).getpixel((0, 0)) == (77, 77, 77)
    assert decode_photo(encoded(Image.new("CMYK", (8, 8)), "JPEG")).mode == "RGB"


@pytest.mark.parametrize(
    ("crop", "expected"),
    [("center", {"green"}), ("top", {"red"}), ("pad", {"white", "red", "green", "blue"})],
)
def test_crops_keep_what_they_promise_and_never_squash(crop, expected):
    image = Image.new("RGB", (64, 192))
    for i, colour in enumerate(("red", "green", "blue")):
        image.paste(colour, (0, 64 * i, 64, 64 * (i + 1)))
    square = prepare(image, 64, crop)
    names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}
    assert square.size == (64, 64)
    assert {names[c] for _, c in square.getcolors(64 * 64) if c in names} == expected


def test_captions_come_from_sidecars_before_metadata(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path, name)
    lines = [{"file_name": "a.png", "text": "from metadata"}, {"file_name": "b.png", "text": "b from metadata"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes("\ufeffфото  іграшки\r\n".encode())
    dataset, _ = read_folder(tmp_path, 64)
    assert [photo.caption for photo in dataset.photos] == ["фото іграшки", "b from metadata", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_captions_in_the_usual_encodings(tmp_path, encoding):
    save(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes("café".encode(encoding))
    assert read_folder(tmp_path, 64)[0].photos[0].caption == "café"


def test_a_broken_metadata_line_is_named(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n{"text": 1}\n')
    with pytest.raises(ValueError, match=r"Line 2 of metadata\.jsonl"):
        read_folder(tmp_path, 64)


def test_every_unreadable_image_is_named_with_reason_and_remedy(tmp_path):
    save(tmp_path, "good.png")
    (tmp_path / "IMG_04.heic").write_bytes(b"whatever")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.jpg").write_bytes(encoded(Image.effect_noise((200, 200), 80), "JPEG")[:2000])
    with pytest.raises(ValueError, match="4 of 5 images cannot be read") as error:
        read_folder(tmp_path, 64)
    for part in (
        "IMG_04.heic (damaged or not an image)",
        "empty.jpg (empty file)",
        "text.png (damaged",
        "cut.jpg (damaged",
        "convert",
    ):
        assert part in str(error.value)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no photos here")
    with pytest.raises(ValueError, match="has no photos"):
        read_folder(tmp_path, 64)


def test_a_bomb_is_refused_by_its_header():
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    with pytest.raises(ValueError, match="megapixels"):
        decode_photo(bomb)


def test_small_photos_and_odd_sizes_are_warned_of(tmp_path):
    save(tmp_path, "small.png", size=(100, 50))
    save(tmp_path, "large.png", size=(100, 90))
    dataset, _ = read_folder(tmp_path, 72)
    small, odd = map(str, dataset.warnings)
    assert "1 of 2 photos are smaller than 72 pixels" in small
    assert "small.png (100x50)" in small
    assert "multiple of 64" in odd


def test_the_same_photo_twice_is_warned_of(tmp_path):
    for name in ("a.png", "copy of a.png"):
        save(tmp_path, name)
    save(tmp_path, "b.png", colour=(1, 2, 3))
    (note,) = read_folder(tmp_path, 64)[0].warnings
    assert "more than once: a.png and copy of a.png." in str(note)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    (note,) = read_folder(tmp_path, 64)[0].warnings
    assert "more than once: a.png and c.png, a.png and copy of a.png." in str(note)


@pytest.mark.parametrize("resolution", [500, 513, 8, 4096])
def test_impossible_resolutions_are_refused_with_a_remedy(resolution):
    with pytest.raises(UserError, match=f"resolution {resolution}"):
        check_resolution(resolution)


def test_an_unknown_crop_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="Unknown crop 'squash'; known are center, top, pad, bucket"):
        check_framing(512, "squash")


def test_any_change_of_the_folder_changes_its_fingerprint(tmp_path):
    save(tmp_path, "a.png")
    seen = {fingerprint(tmp_path)}
    (tmp_path / "a.txt").write_text("one caption")
    seen.add(fingerprint(tmp_path))
    (tmp_path / "a.txt").write_text("two captions")
    seen.add(fingerprint(tmp_path))
    save(tmp_path, "a.png", colour=(1, 2, 3))
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 4


def gradient(size: tuple[int, int]) -> Image.Image:
    """Red grows to the right, green downwards: where a pixel came from can be read off its colour."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(512, 512), (900, 600), (600, 900), (4000, 500), (333, 777)])
def test_buckets_keep_the_shape_on_the_grid_of_64_pixels(size):
    width, height = frame_size(*size, 512, "bucket")
    assert width % 64 == height % 64 == 0
    assert width * height <= 512 * 512
    assert max(width, height) <= 1024
    if max(size) < 2 * min(size):
        assert width / height == pytest.approx(size[0] / size[1], rel=0.13)
    framed = prepare(gradient(size), 512, "bucket")
    assert framed.size == (width, height)
    # Not squashed: a step of one pixel means as much of the photo across as down.
    pixels = np.asarray(framed, dtype=float)
    across = (pixels[height // 2, -9, 0] - pixels[height // 2, 8, 0]) / (width - 17) * size[0]
    down = (pixels[-9, width // 2, 1] - pixels[8, width // 2, 1]) / (height - 17) * size[1]
    assert across == pytest.approx(down, rel=0.03)


def test_buckets_need_a_resolution_on_the_grid(tmp_path):
    save(tmp_path, "a.png")
    with pytest.raises(ValueError, match="Buckets need a resolution that is a multiple of 64, not 72"):
        read_folder(tmp_path, 72, "bucket")


def test_the_buckets_are_listed(tmp_path):
    save(tmp_path, "wide.png", size=(300, 100))
    save(tmp_path, "square.png", size=(200, 200))
    dataset, views = read_folder(tmp_path, 128, "bucket")
    assert {view.size for view in views} == {(128, 128), dataset.frame_size(dataset.photos[1])}
    assert "Buckets: 1 of 128x128, 1 of 192x64." in f"{dataset.warnings[-1]}."


def test_flip_doubles_the_views_and_is_off_by_default(tmp_path):
    gradient((64, 64)).save(tmp_path / "a.png")
    (plain,) = read_folder(tmp_path, 64)[1]
    one, mirrored = read_folder(tmp_path, 64, flip=True)[1]
    assert np.array_equal(np.asarray(plain), np.asarray(one))
    assert np.array_equal(np.asarray(plain)[:, ::-1], np.asarray(mirrored))


@pytest.mark.parametrize("jitter", ["view_jitter", "color_jitter", "light_jitter"])
def test_variants_are_others_always_the_same_and_the_photo_itself_is_first(tmp_path, jitter):
    gradient((128, 96)).save(tmp_path / "a.png")
    plain = np.asarray(read_folder(tmp_path, 64)[1][0], dtype=int)
    options = {jitter: 0.2, "variants": 4}
    first, again = ([np.asarray(v, dtype=int) for v in read_folder(tmp_path, 64, **options)[1]] for _ in range(2))
    assert len(first) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(first[0], plain)
    for variant in first[1:]:
        assert variant.shape == plain.shape
        assert 1 < np.abs(variant - plain).mean() < 60
        if jitter == "view_jitter":  # the blue is everywhere the same, so nothing from outside the photo came in
            assert np.abs(variant[..., 2] - 128).max() <= 2
    assert read_folder(tmp_path, 64, variants=4)[0].views == 1


def test_an_augmentation_out_of_bounds_is_refused(tmp_path):
    save(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"view_jitter is 0\.9"):
        read_folder(tmp_path, 64, view_jitter=0.9)
    with pytest.raises(ValueError, match="variants is 1000"):
        read_folder(tmp_path, 64, variants=1000)


def test_repeats_come_from_the_metadata_even_where_the_caption_is_in_a_sidecar(tmp_path):
    save(tmp_path, "a.png")
    save(tmp_path, "b.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x", "repeats": 3}\n')
    (tmp_path / "a.txt").write_text("a caption")
    dataset, _ = read_folder(tmp_path, 64)
    assert [(p.caption, p.repeats) for p in dataset.photos] == [("a caption", 3), ("", 1)]
    for wrong in ("0", "-1", "1e9", '"many"', "101"):
        (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "x", "repeats": {wrong}}}\n')
        with pytest.raises(ValueError, match=r"Line 1 of metadata\.jsonl"):
            read_folder(tmp_path, 64)


def test_of_a_large_folder_the_first_pictures_are_given_back_and_the_first_names_named(tmp_path):
    for number in range(130):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    seen = []
    dataset, views = read_folder(tmp_path, 64, flip=True, on_photo=lambda *progress: seen.append(progress))
    assert len(dataset.photos) == 130
    assert len(views) == 100
    assert (seen[0], seen[-1]) == ((0, 130), (129, 130))
    assert "130 of 130 photos are smaller" in str(dataset.warnings[0])
    assert "019.png (8x8) and 110 more" in str(dataset.warnings[0])


def test_a_caption_of_ten_thousand_words_and_an_empty_one_are_read(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("word " * 10_000)
    (tmp_path / "b.txt").touch()
    dataset, _ = read_folder(tmp_path, 64)
    assert [len(photo.caption.split()) for photo in dataset.photos] == [10_000, 0]


def test_a_dataset_and_its_warnings_survive_json(tmp_path):
    save(tmp_path, "{small}.png", size=(32, 16))
    save(tmp_path, "twin.png", size=(32, 16))
    dataset = read_folder(tmp_path, 72, flip=True)[0].with_captions(["a mysks", ""], token="mysks")
    again = Dataset.from_json(json.loads(json.dumps(dataset.to_json())))
    assert replace(again, warnings=()) == replace(dataset, warnings=())
    assert [str(warning) for warning in again.warnings] == [str(warning) for warning in dataset.warnings]
    assert len(again.warnings) == 3
    assert "{small}.png (32x16)" in str(again.warnings[0])


@pytest.mark.parametrize("hostile", ["a sentence", 1, None, {}, {"template": "{a}", "values": {}}, [["a"]]], ids=str)
def test_a_dataset_with_hostile_warnings_is_refused(tmp_path, hostile):
    save(tmp_path, "a.png")
    data = read_folder(tmp_path, 64)[0].to_json()
    with pytest.raises((ValueError, KeyError, TypeError)):
        Dataset.from_json({**data, "warnings": [hostile]})


def test_reasons_are_messages_inside_the_message(tmp_path):
    """What is nested stays data, so that it can be said in another language."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "IMG.heic").touch()
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, 64)
    assert error.value.message.values["images"] == [
        message("{name} ({reason})", name="IMG.heic", reason=message("empty file")),
        message("{name} ({reason})", name="empty.jpg", reason=message("empty file")),
    ]


def test_a_file_that_cannot_be_opened_is_refused_like_a_damaged_one(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_photo(tmp_path / "gone.png")


def test_of_many_items_the_first_are_listed():
    assert listed(["a"] * 20) == ["a"] * 20
    assert str(listed(["a", "b"] * 11)).endswith("a, b and 2 more")


def test_a_conflict_is_no_mistake_of_the_user_and_has_the_caption_as_it_is(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("their {caption}")
    with pytest.raises(ConflictError, match=r"changed elsewhere: it is now 'their \{caption\}'") as error:
        write_caption(tmp_path, "a.png", "mine", was="old")
    assert error.value.caption == "their {caption}"
    assert isinstance(error.value, MessageError)
    assert not isinstance(error.value, ValueError)
