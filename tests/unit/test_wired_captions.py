"""Captions that come from the graph beside a folder or beside wired pictures."""

import re

import pytest
from PIL import Image

from tests.pack import load
from trainer.dataset.caption_files import write_caption
from trainer.dataset.folder import read_folder
from trainer.dataset.wired import Wired, check_one_for_each
from trainer.run.messages import UserError


@pytest.fixture
def folder(tmp_path):
    """Three photos; b.png has a caption of its own, and the repeats of c.png are written down."""
    for name, grey in (("b", 90), ("a", 40), ("c", 140)):
        Image.new("RGB", (64, 64), (grey, 20, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.txt").write_text("settled on")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "c.png", "repeats": 3, "text": ""}\n')
    return tmp_path


def captions(folder, *texts: str) -> list[str]:
    return [photo.caption for photo in read_folder(folder, 64, wired=Wired(texts))[0].photos]


def test_photos_without_a_caption_get_theirs_by_the_order_of_the_names(folder):
    assert captions(folder, "one", "two", "three") == ["one", "settled on", "three"]
    assert [photo.repeats for photo in read_folder(folder, 64, wired=Wired(["one", "two", "three"]))[0].photos] == [1, 1, 3]


def test_a_caption_that_the_user_empties_stays_empty(folder):
    write_caption(folder, "a.png", "", "")
    write_caption(folder, "b.png", "", "settled on")
    assert captions(folder, "one", "two", "three") == ["", "", "three"]


def test_one_text_may_have_a_line_for_each(folder):
    assert captions(folder, "one\ntwo\r\nthree\n") == ["one", "settled on", "three"]


@pytest.mark.parametrize("text", ["one\n\ntwo\n \n\nthree", "\none\rtwo\r\n\r\nthree\n\n", "one\ntwo\nthree\n\u200b\n"])
def test_blank_lines_are_left_out_where_there_are_too_many(folder, text):
    assert captions(folder, text) == ["one", "settled on", "three"]


def test_a_blank_line_in_its_place_is_no_caption(folder):
    assert captions(folder, "one\ntwo\n\n") == captions(folder, "one\n\n ") == ["one", "settled on", ""]


def test_only_ends_of_lines_part_a_text(folder):
    assert captions(folder, "one\u2028more\ntwo\vmore\x85\nthree") == ["one more", "settled on", "three"]


def test_a_wired_caption_is_one_line_without_what_cannot_be_seen(folder):
    assert captions(folder, " a dog,\n\n barking\u200b ", "", "") == ["a dog, barking", "settled on", ""]


def test_a_list_within_the_list_is_what_is_in_it():
    """As Florence-2 gives it for a batch."""
    unnested = load("nodes.inputs").unnested
    assert unnested([["one", "two"], "three", ("four",), []]) == ["one", "two", "three", "four", []]


def test_none_wired_is_none_given(folder):
    assert [photo.caption for photo in read_folder(folder, 64)[0].photos] == ["", "settled on", ""]


def test_of_more_photos_than_image_has_the_difference_is_explained(tmp_path):
    for number in range(101):
        Image.new("RGB", (64, 64), (number, 20, 30)).save(tmp_path / f"{number:03}.png")
    said = (
        "100 captions come through captions, and there are 101 photos: IMAGE of Load Photos of a Subject has the first 100 alone."
    )
    with pytest.raises(UserError, match=said):
        captions(tmp_path, *map(str, range(100)))
    with pytest.raises(UserError, match=r"99 captions come through captions, and there are 101 photos\. Wire one for each"):
        captions(tmp_path, *map(str, range(99)))
    with pytest.raises(UserError, match="100 masks come through masks, and there are 101 photos: IMAGE of Load Photos"):
        check_one_for_each("masks", 100, 101)


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"], ["1", "2", "3", "4"], ["1\n2"]], ids=str)
def test_too_many_or_too_few_are_told_before_a_photo_is_read(folder, texts):
    (folder / "a.png").write_bytes(b"no picture")
    count = len(texts) if len(texts) != 1 else len(texts[0].splitlines())
    with pytest.raises(UserError, match=re.escape(f"{count} captions come through captions, and there are 3 photos.")):
        read_folder(folder, 64, wired=Wired(texts))
