"""Files that are dropped on the loader: which are taken, where they go, and that nobody's photos are touched."""

import threading

import pytest

from trainer.dataset.upload import choose_files, make_folder
from trainer.run.messages import UserError


@pytest.mark.parametrize(
    ("paths", "places", "wish", "photos_in"),
    [
        (["IMG_2041.jpg", "IMG_2042.JPG"], {"IMG_2041.jpg": "", "IMG_2042.JPG": ""}, "IMG", ""),
        (["toy (3).png", "toy (3).txt"], {"toy (3).png": "", "toy (3).txt": ""}, "toy", ""),
        (["20240101_120000.heic"], {"20240101_120000.heic": ""}, "", ""),
        (["dog/b.webp", "dog/metadata.jsonl"], {"dog/b.webp": "", "dog/metadata.jsonl": ""}, "dog", ""),
        (["10_mysks dog/a.jpg"], {"10_mysks dog/a.jpg": ""}, "10_mysks dog", ""),
        (["img/3_ball/c.jpg", "img/10_dog/a.jpg"], {"img/10_dog/a.jpg": "10_dog", "img/3_ball/c.jpg": "3_ball"}, "img", "10_dog"),
        (["a/1.jpg", "b/1.jpg"], {"a/1.jpg": "a", "b/1.jpg": "b"}, "", "a"),
        (["dog/a.jpg", "c.jpg"], {"c.jpg": "", "dog/a.jpg": "dog"}, "c", ""),
    ],
)
def test_what_was_dropped_keeps_its_folders_and_gives_the_new_one_its_name(paths, places, wish, photos_in):
    upload = choose_files(paths)
    assert (upload.places, upload.wish, upload.photos_in, upload.notes) == (places, wish, photos_in, ())


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
