"""Folders of photos as people have them: which files count, what their names mean, and that no link leads out."""

import errno
import os
import sys
import time
import unicodedata
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from tests.pack import load
from trainer.dataset import folder_files as files_module
from trainer.dataset.caption_files import read_captions, write_caption
from trainer.dataset.decode import decode_photo
from trainer.dataset.folder import fingerprint, folder_repeats, read_folder
from trainer.dataset.folder_files import RAW_SUFFIXES, count_photos, folder_files
from trainer.dataset.photo_roots import chosen_folders, find_folder
from trainer.dataset.wired import as_image, wired_pixels
from trainer.run import files, locks
from trainer.run.files import partial_file, write_json
from trainer.run.messages import ENGLISH, UserError, message
from trainer.run.names import check_name

folder_view = load("nodes.page.folder_view")
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (96, 80), (200, 30, 40))
    image.paste((0, 90, 160), (0, 0, 48, 40))
    image.save(path)
    return path


def told(folder: Path) -> str:
    return "\n".join(map(str, read_folder(folder, 64)[0].warnings))


def notes(folder: Path) -> dict[str, list[str]]:
    return {photo["name"]: photo["notes"] for photo in folder_view.photo_list(folder, 64, "center", ENGLISH)["photos"]}


@pytest.mark.parametrize("ending", ["-masklabel.png", "-condlabel.png", "-MaskLabel.PNG", "-masklabel.webp"])
def test_a_mask_of_another_trainer_is_no_photo(tmp_path, ending):
    save(tmp_path / "a.jpg")
    save(tmp_path / f"a{ending}")
    assert [Path(photo.path).name for photo in read_folder(tmp_path, 64)[0].photos] == ["a.jpg"]
    is_read = "masklabel" in ending.lower()
    assert (f"Masks and the like of other trainers are not used: a{ending}." in told(tmp_path)) is not is_read
    assert list(notes(tmp_path)) == ["a.jpg"]


MASKS = [
    *("a_mask.png", "a-mask.jpg", "a.mask.png", "A_Mask.PNG", "a_depth.png", "a mask.webp", "a.jpg_mask.png", "a_mask_0.png"),
    *("a_mask1.png", "mask_a.png", "a mask (1).png", "a_masklabel.png", "a_segmentation.png", "a_openpose.png", "a_lineart.png"),
    *("a.jpg-masklabel.png", "mask-a.jpg.png", "a_mask-2.png", "Mask_A.png", "a_normal_map.png"),
    *("a__mask.png", "a - mask.png", "a_mask .png", "mask__a.png", "a_msk.png", "a_segm.png", "a_controlnet.png", "a_edges.png"),
    *("a_pose.png", "a_sketch.jpg", "pose_a.png", "a-dwpose.png", "a_densepose.png", "a_canny.png", "a_trimap.png"),
    *("a.jpg_sketch.png", "A_Pose (1).PNG", "a_normalbae.png", "a_depth_anything.png", "a_scribble.webp", "a_mask_image.png"),
]


@pytest.mark.parametrize("mask", ["mask__DSC1.png", "_DSC1_mask.png", "_DSC1__mask_2.png"])
def test_a_mask_is_known_beside_a_photo_whose_name_begins_with_a_mark(tmp_path, mask):
    """As cameras name photos in Adobe RGB."""
    save(tmp_path / "_DSC1.jpg")
    save(tmp_path / mask)
    assert list(notes(tmp_path)) == ["_DSC1.jpg"]


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_known_by_the_photo_beside_it(tmp_path, mask):
    save(tmp_path / "a.jpg")
    save(tmp_path / mask)
    others = ["mask_of_zorro.jpg", "party_mask.jpg", "pose.jpg", "x_mask_1.jpg", "yoga_pose.jpg"]
    for other in others:
        save(tmp_path / other)
    assert [Path(photo.path).name for photo in read_folder(tmp_path, 64)[0].photos] == ["a.jpg", *others]
    assert f"Masks and the like of other trainers are not used: {mask}." in told(tmp_path)
    assert list(notes(tmp_path)) == ["a.jpg", *others]


@LINKS
def test_the_count_of_a_folder_is_that_of_the_photos_that_are_read(tmp_path):
    folder = tmp_path / "photos"
    save(tmp_path / "outside.jpg")
    for name in ("a.jpg", "b.PNG", "._a.jpg", ".hidden.jpg", "a-masklabel.png", "a_mask_0.png", "mask_a.png", "x-condlabel.png"):
        save(folder / name)
    (folder / "album.jpg").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "within.jpg").symlink_to("a.jpg")
    (folder / "notes.txt").write_text("x")
    assert count_photos(folder) == len(folder_files(folder).photos) == 3


FOREIGN = (".jxl", ".psd", ".tga", ".exr", ".pnm", ".pbm", ".pgm", ".ppm", ".pcx", ".dds", ".jp2", ".qoi")


@pytest.mark.parametrize("suffix", sorted({*RAW_SUFFIXES, *FOREIGN}))
def test_a_picture_that_cannot_be_read_is_named_in_the_node_and_in_the_panel(tmp_path, suffix):
    save(tmp_path / "a.png")
    (tmp_path / f"b{suffix.upper()}").write_bytes(b"whatever")
    with pytest.raises(UserError, match=rf"1 of 2 images cannot be read: b{suffix.upper()} \("):
        read_folder(tmp_path, 64)
    assert "cannot be read: " in notes(tmp_path)[f"b{suffix.upper()}"][0]


@pytest.mark.parametrize("suffix", [".nef", ".CR2", ".dng", ".psd", ".xcf", ".jxl"])
def test_what_a_photo_was_made_of_is_passed_over_with_a_word(tmp_path, suffix):
    save(tmp_path / "a.jpg")
    (tmp_path / f"A{suffix}").write_bytes(b"whatever")
    assert [Path(photo.path).name for photo in read_folder(tmp_path, 64)[0].photos] == ["a.jpg"]
    assert f"Passed over, because there is a photo of that name: A{suffix}." in told(tmp_path)
    assert list(notes(tmp_path)) == ["a.jpg"]


def test_many_raw_files_beside_their_photos_are_sorted_in_no_time(monkeypatch):
    names = [f"{number}{suffix}" for number in range(20_000) for suffix in (".jpg", ".nef")]
    monkeypatch.setattr(files_module, "_listed", lambda folder: names)
    monkeypatch.setattr(files_module, "_why_not", lambda folder, path, suffix: message("raw") if suffix == ".nef" else None)
    began = time.process_time()
    found = folder_files(Path("nowhere"))
    assert (len(found.photos), len(found.sources), found.foreign) == (20_000, 20_000, ())
    assert time.process_time() - began < 8  # it was the square of their number: a minute


@LINKS
def test_a_pipe_is_told_as_what_it_is_and_every_remedy_fits(tmp_path):
    save(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, 64)
    assert str(error.value) == (
        "2 of 3 images cannot be read: b.png (a pipe, a socket or a device, and no file: remove it), c.jpg (a link that leads "
        "out of the folder, or nowhere: put the file itself there). Where nothing else is said, convert them to jpg or png, or "
        "remove them."
    )


@pytest.mark.parametrize("name", ["b", "b.jpg_large", "b.part", "b.jpg~", "b.download"])
def test_a_picture_under_another_name_is_told(tmp_path, name):
    save(tmp_path / "a.jpg")
    (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "notes.md").write_text("BM is no picture")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    assert f"Pictures whose names do not end like a photo's were passed over: {name}. Rename or" in told(tmp_path)


@pytest.mark.parametrize("name", ["Folder.ico", "icon.ICNS", "logo.svg", "b.eps"])
def test_an_icon_or_a_drawing_does_not_stop_the_photos_beside_it(tmp_path, name):
    save(tmp_path / "a.jpg")
    (tmp_path / name).write_bytes(b"whatever")
    assert f"Pictures whose names do not end like a photo's were passed over: {name}." in told(tmp_path)


def test_kohya_s_subfolders_are_offered_and_their_repeats_read(tmp_path):
    img = tmp_path / "img"
    for name in ("10_mysks dog/a.jpg", "10_mysks dog/b.jpg", "3_ball/c.jpg", "x/y/deep/d.jpg", ".cache/e.jpg"):
        save(img / name)
    with pytest.raises(UserError) as error:
        read_folder(img, 64)
    assert str(error.value) == (
        "The folder 'img' has no photos of its own. Choose one of its subfolders: img/10_mysks dog (2 photos), "
        "img/3_ball (1 photo), img/x/y/deep (1 photo)."
    )
    assert [photo.repeats for photo in read_folder(img / "10_mysks dog", 64)[0].photos] == [10, 10]
    (img / "10_mysks dog" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "x", "repeats": 2}\n')
    assert [photo.repeats for photo in read_folder(img / "10_mysks dog", 64)[0].photos] == [2, 10]


def test_photos_below_a_folder_with_photos_are_told(tmp_path):
    save(tmp_path / "mine" / "a.jpg")
    for number in range(3):
        save(tmp_path / "mine" / "more" / f"{number}.jpg")
    assert "Photos in subfolders are not read: mine/more (3 photos)." in told(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("10_mysks dog", 10),
        ("1_a", 1),
        ("100_a", 100),
        ("0_a", 1),
        ("2024_summer", 1),
        ("150_a", 1),
        ("007_a", 7),
        ("٣_a", 1),
        ("10", 1),
        ("10_", 1),
        ("a_10", 1),
        ("99999_a", 1),
    ],
)
def test_the_repeats_of_a_folder(name, repeats):
    assert folder_repeats(Path("x") / name) == repeats


TAKEN = "By the name of the folder {!r}, each photo counts {} times."
NOT_USED = "The number of the folder {!r} is not used, and each photo counts once: repeats go from 1 to 100."


@pytest.mark.parametrize(
    ("name", "note"),
    [
        *((name, TAKEN.format(name, repeats)) for name, repeats in (("10_dog", 10), ("2_dog", 2), ("100_dog", 100))),
        *((name, NOT_USED.format(name)) for name in ("0_dog", "000_dog", "101_dog", "150_dog")),
        *((name, None) for name in ("1_dog", "2024_summer", "dog", "20240131_dog")),
    ],
)
def test_what_the_number_of_a_folder_does_is_told_in_the_node_and_in_the_panel(tmp_path, name, note):
    save(tmp_path / name / "a.jpg")
    said = [str(warning) for warning in read_folder(tmp_path / name, 64)[0].warnings]
    assert [sentence for sentence in said if "folder" in sentence] == ([note] if note else [])
    assert folder_view.photo_list(tmp_path / name, 64, "center", ENGLISH)["notes"] == said


@pytest.mark.parametrize("name", ["10_dog", "150_dog"])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_the_number_of_a_folder_is_not_told_where_no_photo_takes_it(tmp_path, name, taken):
    for number in range(2):
        save(tmp_path / name / f"{number}.jpg")
    entries = [f'{{"file_name": "{number}.jpg", "text": "x", "repeats": 3}}\n' for number in range(2 - taken)]
    (tmp_path / name / "metadata.jsonl").write_text("".join(entries))
    listed = folder_view.photo_list(tmp_path / name, 64, "center", ENGLISH)["notes"]
    for said in (told(tmp_path / name), "\n".join(listed)):
        assert (f"the folder '{name}'" in said) == bool(taken)


@pytest.fixture
def roots(tmp_path):
    """ComfyUI's input, and two folders registered as datasets."""
    for name in ("input/plush", "input/datasets/dog", "input/img/10_dog", "one/dog", "one/cat", "two/dog", "two/owl"):
        save(tmp_path / name / "a.jpg")
    for name in ("input/empty", "input/.hidden", "input/x/empty"):
        (tmp_path / name).mkdir(parents=True)
    return [("", tmp_path / "input"), ("datasets/", tmp_path / "one"), ("datasets/", tmp_path / "two")]


def test_every_listed_name_means_the_folder_that_was_listed(roots):
    listed = chosen_folders(roots)
    assert {name: count for name, (_, count) in listed.items()} == {
        "img/10_dog": 1, "plush": 1, "datasets/cat": 1, "datasets/dog": 1, "datasets/owl": 1,
        "datasets": 0, "empty": 0, "img": 0, "x": 0,
    }  # fmt: skip
    assert listed["datasets/dog"][0] == roots[1][1] / "dog"
    for name, (path, _) in listed.items():
        assert find_folder(roots, name) == path
    assert find_folder(roots, "datasets/owl") == roots[2][1] / "owl"
    assert find_folder(roots, "x/empty") == roots[0][1] / "x" / "empty"


def test_folders_with_photos_come_before_comfyui_s_own_3d_however_deep_they_lie(roots):
    (roots[0][1] / "3d").mkdir()
    save(roots[0][1] / "2024" / "summer" / "img" / "train" / "10_dog" / "a.jpg")
    listed = list(chosen_folders(roots))
    assert listed.index("2024/summer/img/train/10_dog") == 0
    assert listed.index("3d") > listed.index("datasets/owl")


@pytest.mark.parametrize(
    "name", ["..", ".", "", "plush/..", "../one", "datasets/..", "datasets/../input", "/etc", "\0", "plush/../../one"]
)
def test_no_name_leads_out_of_the_roots(roots, name):
    with pytest.raises(UserError, match=r"outside ComfyUI's input|does not exist"):
        find_folder(roots, name)


@LINKS
def test_a_link_to_a_folder_outside_is_neither_listed_nor_found(roots, tmp_path):
    save(tmp_path / "secret" / "a.jpg")
    for place in ("input/link", "input/plush/link", "one/link", "input/loop"):
        (tmp_path / place).symlink_to(tmp_path / ("secret" if "loop" not in place else place))
    (tmp_path / "input" / "within").symlink_to(tmp_path / "input" / "plush")
    assert not [name for name in chosen_folders(roots) if "link" in name or "loop" in name]
    assert "within" in chosen_folders(roots)
    for name in ("link", "plush/link", "datasets/link", "loop"):
        with pytest.raises(UserError, match=r"outside ComfyUI's input|does not exist"):
            find_folder(roots, name)


@LINKS
def test_links_in_a_circle_are_offered_once_at_most(roots):
    plush, cats = roots[0][1] / "plush", roots[1][1] / "cat"
    save(plush / "more" / "a.jpg")
    for link, target in ((plush / "self", plush), (plush / "more" / "up", plush), (cats / "dogs", cats.parent / "dog")):
        link.symlink_to(target)
    (cats.parent / "dog" / "cats").symlink_to(cats)
    listed = [name for name in chosen_folders(roots) if name.startswith(("plush", "datasets/"))]
    assert sorted(listed) == [
        "datasets/cat", "datasets/cat/dogs", "datasets/dog", "datasets/dog/cats", "datasets/owl", "plush", "plush/more",
        "plush/more/up", "plush/self",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="names must be Unicode here")
def test_a_name_that_is_not_utf_8_is_told_when_the_folder_is_read(tmp_path):
    save(tmp_path / "a.jpg")
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(odd + b".jpg")).write_bytes((tmp_path / "a.jpg").read_bytes())
    with pytest.raises(
        UserError, match=r"1 of 2 images cannot be read: caf\?\.jpg \(its name is not UTF-8: rename it\)"
    ) as error:
        read_folder(tmp_path, 64)
    assert str(error.value).encode()
    save(tmp_path / "caf?.jpg")  # what the other is shown as: its picture and caption are not the other's
    (tmp_path / "caf?.txt").write_text("a toy")
    listed = folder_view.photo_list(tmp_path, 64, "center", ENGLISH)["photos"]
    captions = [(photo["name"], photo["caption"]) for photo in listed]
    assert sorted(captions, key=str) == [("a.jpg", ""), ("caf?.jpg", "a toy"), ("caf?.jpg", None)]
    (tmp_path / "caf?.jpg").unlink()
    (tmp_path / "caf?.txt").unlink()
    assert notes(tmp_path)["caf?.jpg"] == ["cannot be read: its name is not UTF-8: rename it"]
    assert fingerprint(tmp_path)
    Path(os.fsdecode(odd + b".jpg")).unlink()
    Path(os.fsdecode(odd + b".txt")).write_text("x")
    assert "Files that may hold captions, but are no photo's: caf?.txt." in told(tmp_path)
    Path(os.fsdecode(odd)).mkdir()
    save(Path(os.fsdecode(odd + b"/a.jpg")))
    with pytest.raises(UserError, match=r"The name of the folder 'caf\?' is not UTF-8"):
        read_folder(Path(os.fsdecode(odd)), 64)


@pytest.fixture
def outside(tmp_path):
    """A folder beside that of the photos, with what nobody may read or change."""
    folder = tmp_path / "elsewhere"
    save(folder / "photo.jpg")
    for name in ("read.txt", "written.txt"):
        (folder / name).write_text("secret words\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "secret words"}\n')
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,secret words\n")
    (folder / "metadata.json").write_text('{"a": {"caption": "secret words"}}')
    return folder


@LINKS
@pytest.mark.parametrize("name", ["a.txt", "a.jpg.txt", "a.caption", "metadata.jsonl", "metadata.csv", "metadata.json"])
@pytest.mark.parametrize("through", ["a file", "a folder"])
def test_no_text_behind_a_link_that_leads_out_is_read(tmp_path, outside, name, through):
    folder = tmp_path / "photos"
    save(folder / "a.jpg")
    target = outside / (name if name.startswith("metadata") else "read.txt")
    if through == "a folder":
        (tmp_path / "photos" / "inner").symlink_to(outside)
        target = Path("inner") / target.name
    (folder / name).symlink_to(target)
    assert "secret" not in str(read_folder(folder, 64)[0])
    assert "secret" not in str(folder_view.photo_list(folder, 64, "center", ENGLISH))
    assert "secret" not in str(read_captions(folder, ["a.jpg"]))
    assert f"Links that lead out of the folder were not read: {name}." in told(folder)


@LINKS
@pytest.mark.parametrize("target", ["../elsewhere/photo.jpg", "nowhere.jpg", "b.jpg"])
def test_a_photo_behind_a_link_that_leads_out_or_nowhere_is_named_and_not_shown(tmp_path, outside, target):
    folder = tmp_path / "photos"
    save(folder / "a.jpg")
    (folder / "b.jpg").symlink_to(target)
    with pytest.raises(UserError, match=r"b\.jpg \(a link that leads out of the folder, or nowhere"):
        read_folder(folder, 64)
    assert "b.jpg" not in folder_files(folder).photos  # which is what the routes show and write captions of
    assert "cannot be read: a link" in notes(folder)["b.jpg"][0]


@LINKS
@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl"])
def test_a_caption_behind_a_link_to_nowhere_is_told(tmp_path, name):
    save(tmp_path / "a.jpg")
    (tmp_path / name).symlink_to("nowhere")
    assert f"Links that lead out of the folder were not read: {name}." in told(tmp_path)


@LINKS
def test_links_within_the_folder_are_used(tmp_path):
    save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert [photo.caption for photo in read_folder(tmp_path, 64)[0].photos] == ["a dog", "a dog"]
    write_caption(tmp_path, "b.jpg", "a cat", was="a dog")
    assert (tmp_path / "a.txt").read_text() == "a dog"


@LINKS
@pytest.mark.parametrize("planted", ["b.txt", "b.txt.partial", "both"])
def test_a_caption_is_never_written_through_a_link(tmp_path, outside, planted):
    folder = tmp_path / "photos"
    save(folder / "b.jpg")
    for name in ("b.txt", "b.txt.partial"):
        if planted in (name, "both"):
            (folder / name).symlink_to(outside / "written.txt")
    write_caption(folder, "b.jpg", "a dog", was="")
    assert (outside / "written.txt").read_text() == "secret words\n"
    assert not (folder / "b.txt").is_symlink()
    assert (folder / "b.txt").read_text() == "a dog\n"
    assert {path.name for path in folder.iterdir()} == {"b.jpg", "b.txt"}


@LINKS
def test_no_file_of_a_run_is_written_through_a_planted_link(tmp_path, outside):
    (tmp_path / "run.json.partial").symlink_to(outside / "written.txt")
    (tmp_path / "run.json").symlink_to(outside / "read.txt")
    write_json(tmp_path / "run.json", {"a": 1})
    assert (outside / "written.txt").read_text() == (outside / "read.txt").read_text() == "secret words\n"
    assert not (tmp_path / "run.json").is_symlink()


NAMES = ["мій пес", "my-dog_1.2", "犬の写真", "หมาน้อย", "कुत्ता", "சிறு நாய்", "ခွေးလေး", "كلب", "כלב", "café", "강아지", "_x", "1"]
JOINED = ["می\u200cخواهم", "سگ\u200cها", "क्\u200dष", "र्\u200cड", "ශ්\u200dරී ලංකා", "അവന്\u200d", "അവന്\u200d പട്ടി", "ক্\u200cষ"]


@pytest.mark.parametrize("name", [*NAMES, *JOINED, *(unicodedata.normalize("NFD", name) for name in NAMES)], ids=ascii)
def test_run_names_of_any_script_are_file_names(name):
    checked = check_name(f" {name} ")
    assert checked == unicodedata.normalize("NFC", name)
    assert Path(checked).name == PureWindowsPath(checked).name == checked


@pytest.mark.parametrize(
    "name",
    [
        "\u0301a",
        "-a",
        ".a",
        "a/b",
        "a\\b",
        "a:b",
        "a\u200bb",
        "a\u200db",
        "犬\u200c犬",
        "سگ\u200c",
        "\u200cسگ",
        "سگ\u200c\u200cها",
        "سگ\u200b\u200cها",
        "കാ\u200d",
        "a\u202eb",
        "a\0",
        "a" * 65,
        "\U00020000" * 60,
        "a\ud83d",
        "nul.x",
    ],
)
def test_what_is_no_file_name_is_told(name):
    with pytest.raises(UserError, match=r"cannot be a file name: use letters, digits, blanks"):
        check_name(name)


def refuse(code: int):
    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EINVAL])
def test_a_drive_without_modes_and_syncs_holds_runs(tmp_path, monkeypatch, code):
    """exFAT, NTFS and some shares."""
    monkeypatch.setattr(Path, "chmod", refuse(code))
    if code != errno.EPERM:
        monkeypatch.setattr(os, "fsync", refuse(code))
    with partial_file(tmp_path / "a.bin") as partial:
        partial.write_bytes(b"whole")
        os.chmod(partial, 0o600)
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def test_a_disk_that_fails_to_sync_is_not_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), OSError(errno.ENOTSUP, "Not supported"), NotImplementedError()]
)
def test_a_share_without_locks_is_told_in_a_sentence(tmp_path, monkeypatch, error):
    def acquire(*_, **__):
        raise error

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    refusal = pytest.raises(UserError, match=r"lies where files cannot be locked \(.+\).*--output-directory")
    with refusal, locks.held(tmp_path / "lock", lambda: None, lambda: None):
        pass


def blank(kind: str) -> Image.Image:
    if kind == "transparent":
        return Image.fromarray(
            np.dstack([np.random.default_rng(0).integers(0, 256, (80, 96, 3)), np.zeros((80, 96))]).astype(np.uint8)
        )
    return Image.new({"grey": "L", "bits": "1", "palette": "P"}.get(kind, "RGB"), (96, 80), {"white": "white"}.get(kind, 1))


@pytest.mark.parametrize("kind", ["transparent", "white", "black", "grey", "bits", "palette"])
def test_a_photo_with_nothing_to_learn_from_is_told_in_the_node_and_in_the_panel(tmp_path, kind):
    save(tmp_path / "a.png")
    blank(kind).save(tmp_path / "b.png")
    assert "Photos of one colour, or all transparent, have nothing to learn from: b.png." in told(tmp_path)
    assert "of one colour, or all transparent" in notes(tmp_path)["b.png"]
    assert not [note for note in notes(tmp_path)["a.png"] if "colour" in note]


def test_a_jpeg_of_one_colour_is_told_and_a_dark_photo_is_not(tmp_path):
    Image.new("RGB", (96, 80), (201, 77, 33)).save(tmp_path / "a.jpg", quality=40)
    Image.linear_gradient("L").point(lambda value: value // 12).save(tmp_path / "b.jpg")
    assert "nothing to learn from: a.jpg." in told(tmp_path)


@pytest.mark.parametrize(("shape", "mode"), [((8, 6), "L"), ((8, 6, 1), "L"), ((8, 6, 3), "RGB"), ((8, 6, 4), "RGBA")])
def test_wired_pictures_are_written_as_what_they_show(tmp_path, shape, mode):
    values = np.random.default_rng(0).uniform(-0.2, 1.2, shape).astype(np.float32)
    image = as_image(wired_pixels(values, 1))
    assert (image.mode, image.size) == (mode, (6, 8))
    image.save(tmp_path / "a.png")
    shown = np.asarray(decode_photo((tmp_path / "a.png").read_bytes()), dtype=float)
    wanted = np.clip(np.atleast_3d(values), 0, 1) * 255
    if mode == "RGBA":  # as in a file: over white
        alpha = wanted[..., 3:] / 255
        wanted = wanted[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(shown - wanted).max() <= 1.5


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 3), (8, 4), (8, 6, 2), (8, 6, 5), (0, 6, 3), (1, 8, 6, 3)], ids=str)
def test_what_is_no_picture_is_refused_by_its_number(shape):
    """(8, 3) is a row of a picture that comes without a batch."""
    with pytest.raises(UserError, match="Picture 7 of those wired to images has the shape"):
        wired_pixels(np.zeros(shape, dtype=np.float32), 7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(value):
    picture = np.zeros((8, 6, 3), dtype=np.float32)
    picture[2, 3, 1] = value
    with pytest.raises(UserError, match=r"Picture 2 of those wired to images has pixels that are no numbers \(NaN\)"):
        wired_pixels(picture, 2)


def test_a_folder_that_may_not_be_read_does_not_cost_the_others(roots, monkeypatch):
    """As lost+found of a drive of its own."""
    scandir = os.scandir

    def refused(path):
        if "img" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert "plush" in chosen_folders(roots)
    assert "img/10_dog" not in chosen_folders(roots)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other rights there")
def test_a_folder_that_may_be_listed_alone_is_told_and_does_not_cost_the_others(roots, monkeypatch):
    """As a share may have it: asking for any of its files is refused."""
    closed, stat = str(roots[0][1] / "plush"), os.stat

    def refused(path, *args, **options):
        if str(path).startswith(closed + os.sep):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(UserError, match=r"The folder 'plush' cannot be read \(Permission denied\)"):
        read_folder(Path(closed), 64)
    assert "datasets/dog" in chosen_folders(roots)


def test_a_caption_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr(os, "open", refuse(errno.EACCES))
    with pytest.raises(UserError, match=r"a\.txt cannot be read: file system error: Permission denied"):
        read_captions(tmp_path, ["a.jpg"])


@LINKS
def test_a_link_within_the_folder_keeps_its_own_name(tmp_path):
    """Two of them to files of one name are two photos; a target that cannot be written down does not matter."""
    for number, name in enumerate(("one/0.png", "two/0.png", os.fsdecode(b"caf\xe9/0.png"))):
        Image.new("RGB", (96, 80 + number), (number, 30, 40)).save(save(tmp_path / name))
        (tmp_path / f"{number}.png").symlink_to(tmp_path / name)
    photos = read_folder(tmp_path, 64)[0].photos
    assert [Path(photo.path).name for photo in photos] == ["0.png", "1.png", "2.png"]
    assert [photo.height for photo in photos] == [80, 81, 82]
    write_json(tmp_path / "run.json", [photo.path for photo in photos])
    (tmp_path / "3.png").symlink_to(tmp_path / "one" / "0.png")
    assert "The same photo more than once: 0.png and 3.png." in told(tmp_path)


@pytest.mark.parametrize("name", ["IMG1", "IMG2.pn", "x-masklabel.png"])
def test_files_that_are_no_photos_are_named_where_there_are_no_others(tmp_path, name):
    save(tmp_path / "a.png").rename(tmp_path / name)
    with pytest.raises(UserError, match=f"has no photos: {name} are masks, or do not end like a photo's name"):
        read_folder(tmp_path, 64)


def test_a_file_that_is_larger_than_any_photo_is_named_unread(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(6_000_000_000)
    with pytest.raises(UserError, match=r"a\.jpg \(6\.0 GB, which no photo has\)"):
        read_folder(tmp_path, 64)
