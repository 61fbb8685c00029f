"""What the page shows of a folder of photos, and what is written back."""

import io

import pytest
from PIL import Image, ImageFilter

from tests.pack import load
from trainer.dataset.caption_files import MAX_CAPTION, ConflictError, write_caption
from trainer.dataset.folder import read_folder
from trainer.dataset.photo_checks import BLURRY, blurriness, check_photo
from trainer.run.messages import ENGLISH

folder_view = load("nodes.page.folder_view")


@pytest.fixture
def photo() -> Image.Image:
    noise = Image.effect_noise((30, 20), 200).resize((600, 400), Image.Resampling.NEAREST)
    return Image.merge("RGB", (noise, noise, noise))


def notes(folder, resolution=64) -> dict[str, list[str]]:
    return {photo["name"]: photo["notes"] for photo in folder_view.photo_list(folder, resolution, "center", ENGLISH)["photos"]}


def test_what_is_suspicious_is_marked_on_each_photo(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photo.filter(ImageFilter.GaussianBlur(8)).save(tmp_path / "c.png")
    photo.resize((50, 40)).save(tmp_path / "d.png")
    (tmp_path / "e.png").write_bytes(b"broken")
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("a mysks")
    assert notes(tmp_path) == {
        "a.png": ["the same photo as b.png"],
        "b.png": ["the same photo as a.png"],
        "c.png": ["blurry"],
        "d.png": ["small: 50x40", "no caption"],
        "e.png": ["cannot be read: damaged or not an image"],
    }


def test_of_a_large_folder_the_first_photos_are_listed(tmp_path):
    for number in range(folder_view.MAX_PHOTOS + 5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:04}.png")
    listed = folder_view.photo_list(tmp_path, 64, "center", ENGLISH)
    assert listed["total"] == 205
    assert [photo["name"] for photo in listed["photos"]] == [f"{number:04}.png" for number in range(200)]


def test_a_caption_is_settled_by_a_file_beside_its_photo_be_it_empty(tmp_path, photo):
    for name in "abc":
        photo.save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("a mysks")
    listed = folder_view.photo_list(tmp_path, 64, "center", ENGLISH)["photos"]
    assert [(photo["caption"], photo["settled"]) for photo in listed] == [("", True), ("a mysks", True), ("", False)]


def test_a_photo_that_changed_is_looked_at_again(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    before = check_photo(tmp_path / "a.png")
    photo.filter(ImageFilter.GaussianBlur(8)).save(tmp_path / "a.png")
    assert before.blurriness < BLURRY < check_photo(tmp_path / "a.png").blurriness


def test_what_has_little_contrast_is_not_blurry_for_that(photo):
    assert blurriness(photo.point(lambda value: 120 + value // 16)) < BLURRY
    assert blurriness(Image.new("RGB", (1, 1))) == 0


@pytest.mark.parametrize(("crop", "size"), [("center", (224, 224)), ("bucket", (224, 134))])
def test_the_thumbnail_has_the_shape_that_training_sees(tmp_path, photo, crop, size):
    photo.save(tmp_path / "a.png")
    with Image.open(io.BytesIO(folder_view.thumbnail(tmp_path / "a.png", 512, crop, tmp_path / "a.png"))) as image:
        assert image.format == "JPEG"
        assert image.size == pytest.approx(size)


def test_a_caption_is_written_beside_its_photo_and_read_by_the_loader(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "old"}\n')
    write_caption(tmp_path, "a.png", " <b>a</b> mysks on a  märz meadow", was="old")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "<b>a</b> mysks on a märz meadow\n"
    assert read_folder(tmp_path, 64)[0].photos[0].caption == "<b>a</b> mysks on a märz meadow"
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.txt", "metadata.jsonl"}


def test_a_caption_that_changed_elsewhere_is_not_overwritten(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("theirs")
    with pytest.raises(ConflictError, match="theirs"):
        write_caption(tmp_path, "a.png", "mine", was="old")
    assert (tmp_path / "a.txt").read_text() == "theirs"
    with pytest.raises(ValueError, match=f"at most {MAX_CAPTION}"):
        write_caption(tmp_path, "a.png", "x" * (MAX_CAPTION + 1), was="theirs")


def test_what_the_node_says_of_the_folder_the_panel_says_too(tmp_path, photo):
    for name in ("a.png", "b.jpg", "a-condlabel.png"):
        photo.save(tmp_path / name)
    (tmp_path / "c.png.part").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "d.txt").write_text("x")
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\n')
    said = [str(note) for note in read_folder(tmp_path, 64)[0].warnings]
    assert len(said) == 5
    assert folder_view.photo_list(tmp_path, 64, "center", ENGLISH)["notes"] == said


def test_the_panel_of_a_folder_without_photos_says_what_the_node_says(tmp_path, photo):
    (tmp_path / "img" / "10_dog").mkdir(parents=True)
    photo.save(tmp_path / "img" / "10_dog" / "a.png")
    with pytest.raises(ValueError, match="Choose one of its subfolders: img/10_dog"):
        folder_view.photo_list(tmp_path / "img", 64, "center", ENGLISH)
