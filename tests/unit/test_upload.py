"""Files that are dropped on the loader: which are taken, where they go, and that nobody's photos are touched."""

import threading

import pytest

from trainer.dataset.upload import choose_files, make_folder
from trainer.run.messages import UserError


@pytest.mark.parametrize(
    ("paths", "places", "wish", "photos_in"),
    [
        (["IMG_2041.jpg", "IMG_2042.JPG"], ["IMG_2041.jpg", "IMG_2042.JPG"], "IMG", ""),
        (["toy (3).png", "toy (3).txt"], ["toy (3).png", "toy (3).txt"], "toy", ""),
        (["20240101_120000.heic"], ["20240101_120000.heic"], "", ""),
        (["dog/b.webp", "dog/metadata.jsonl"], ["b.webp", "metadata.jsonl"], "dog", ""),
        (["10_mysks dog/a.jpg"], ["a.jpg"], "10_mysks dog", ""),
        (["img/10_dog/a.jpg", "img/3_ball/c.jpg"], ["10_dog/a.jpg", "3_ball/c.jpg"], "img", "10_dog"),
        (["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "b/1.jpg"], "", "a"),
        (["c.jpg", "dog/a.jpg"], ["c.jpg", "dog/a.jpg"], "c", ""),
        (["x/a/0.jpg", "x/b/1.jpg", "x/b/2.jpg", "x/b/3.txt"], ["a/0.jpg", "b/1.jpg", "b/2.jpg", "b/3.txt"], "x", "b"),
        (["x/a/b/1.jpg", "x/c/1.jpg"], ["a/b/1.jpg", "c/1.jpg"], "x", "c"),
        (["x/1.jpg", "x/a/1.jpg", "x/a/2.jpg"], ["1.jpg", "a/1.jpg", "a/2.jpg"], "x", "a"),
        (["x/1.jpg", "x/2.jpg", "x/A/1.jpg", "x/A/2.jpg"], ["1.jpg", "2.jpg", "A/1.jpg", "A/2.jpg"], "x", ""),
    ],
)
def test_what_was_dropped_keeps_its_folders_and_gives_the_new_one_its_name(paths, places, wish, photos_in):
    upload = choose_files(paths)
    places = dict(zip(paths, places, strict=True))
    assert (upload.places, upload.wish, upload.photos_in, upload.notes) == (places, wish, photos_in, ())


HIDDEN = [".DS_Store", "dog/._a.jpg", "__MACOSX/dog/a.jpg", "dog/@eaDir/a.jpg", "dog/.thumbs/a.jpg", "../a.jpg", "..\\x\\a.jpg"]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_a_system_has_put_among_the_photos_is_left_out(hidden):
    upload = choose_files(["dog/b.jpg", hidden])
    assert (upload.places, upload.wish, upload.notes) == ({"dog/b.jpg": "b.jpg"}, "dog", ())


THERE = {
    "a photo": ("a.jpg", ["a.jpg", "a.txt"], ["a-2.jpg", "a-2.txt"]),
    "in other case": ("A.JPG", ["a.jpg", "a.caption"], ["a-2.jpg", "a-2.caption"]),
    "of another format": ("a.png", ["a.jpg"], ["a-2.jpg"]),
    "a caption": ("a.txt", ["a.jpg"], ["a-2.jpg"]),
    "a caption with the suffix": ("a.jpg.txt", ["a.jpg", "a.jpg.txt"], ["a-2.jpg", "a-2.jpg.txt"]),
    "numbers that are taken": ("a.jpg a-2.txt", ["a-3.png", "a.jpg", "a.txt"], ["a-3.png", "a-4.jpg", "a-4.txt"]),
    "two of one stem": ("a.jpg", ["a.jpg", "a.png", "a.jpg.txt"], ["a-2.jpg", "a-2.png", "a-2.jpg.txt"]),
    "others": ("b.jpg", ["a.jpg", "a.txt"], ["a.jpg", "a.txt"]),
    "captions alone": ("a.jpg b.jpg", ["a.txt", "b.jpg.txt"], ["a.txt", "b.jpg.txt"]),
    "captions where there are some": ("a.jpg a.txt b.jpg", ["a.txt", "b.txt"], [None, "b.txt"]),
    "masks": (
        "a.jpg",
        ["a-masklabel.png", "a.jpg", "a.jpg_pose.png", "mask_a.png"],
        ["a-2-masklabel.png", "a-2.jpg", "a-2.jpg_pose.png", "mask_a-2.png"],
    ),
    "masks in other letters": ("straße.jpg", ["straße.jpg", "Straße_Mask.png"], ["straße-2.jpg", "Straße-2_Mask.png"]),
    "a mask as macOS names it": (
        "café.jpg",
        ["cafe\u0301-masklabel.png", "cafe\u0301.jpg"],
        ["café-2-masklabel.png", "cafe\u0301-2.jpg"],
    ),
    "the mask of a photo that is gone": ("a-masklabel.png", ["a.jpg"], ["a-2.jpg"]),
    "masks alone": ("a.jpg b.jpg b-masklabel.png", ["a-masklabel.png", "b-masklabel.png"], ["a-masklabel.png", None]),
    "a name as masks have it, of no mask": ("b.jpg yoga_pose.jpg", ["yoga_pose.jpg"], ["yoga_pose-2.jpg"]),
    "a table": ("a.jpg", ["metadata.jsonl"], ["metadata.jsonl"]),
    "a table where there is one": ("metadata.csv", ["metadata.csv", "b.jpg"], [None, "b.jpg"]),
    "a table of renamed photos": ("a.jpg", ["a.jpg", "metadata.csv"], ["a-2.jpg", None]),
}


@pytest.mark.parametrize("case", THERE)
def test_new_photos_and_captions_leave_those_of_the_folder_alone(tmp_path, case):
    there, paths, names = THERE[case]
    for name in there.split():
        (tmp_path / name).write_text("x")
    upload = choose_files(paths, tmp_path)
    assert upload.places == {path: name for path, name in zip(paths, names, strict=True) if name}
    left = ", ".join(path for path, name in zip(paths, names, strict=True) if not name)
    assert [str(note) for note in upload.notes] == ([LEFT.format(left)] if left else [])


LEFT = "Left out, because the folder has captions or masks of that name, or other photos that they would be taken for: {}."


def test_a_subfolder_has_names_of_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("x")
    upload = choose_files(["a.jpg", "in/a.jpg", "in/a.txt"], tmp_path)
    assert upload.places == {"a.jpg": "a.jpg", "in/a.jpg": "in/a-2.jpg", "in/a.txt": "in/a-2.txt"}


def test_what_is_no_photo_is_named_and_left_out():
    upload = choose_files(["a.jpg", "a.pdf", "raw.cr2", ".DS_Store", "dog/.hidden.jpg"])
    assert list(upload.places) == ["a.jpg"]
    assert [str(note) for note in upload.notes] == ["Left out, because they are no photos that can be read: a.pdf, raw.cr2."]


@pytest.mark.parametrize("paths", [["a.pdf"], ["a.txt"], ["dog/a.pdf"]])
def test_without_a_photo_nothing_is_taken(paths):
    name = paths[0].split("/")[-1]
    with pytest.raises(UserError, match=rf"None of these files is a photo that can be read: {name}\. Drop jpg"):
        choose_files(paths)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("dog", "dog"),
        ("10_mysks dog", "10_mysks dog"),
        ("фото кота", "фото кота"),
        ("../../etc", "etc"),
        ("a/b\\c:d", "a-b-c-d"),
        ("con", "photos"),
        ("", "photos"),
        ("...", "photos"),
        ("<img>", "img"),
        ("x" * 500, "x" * 48),
    ],
)
def test_a_wish_becomes_a_name_that_every_system_takes(tmp_path, wish, name):
    assert make_folder(tmp_path / "input", wish) == name
    assert [path.name for path in (tmp_path / "input").iterdir()] == [name]


def test_a_folder_that_is_there_is_never_used(tmp_path):
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog-2").write_text("a file")
    assert make_folder(tmp_path, "dog") == "dog-3"


def test_two_users_who_drop_the_same_at_once_get_a_folder_each(tmp_path):
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(make_folder(tmp_path, "dog"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(["dog", *(f"dog-{number}" for number in range(2, 9))])
