"""Captions as people have them: read right, or told with the name of the file."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.pack import load
from trainer.dataset.caption_files import MAX_CAPTION, ConflictError, read_captions, write_caption
from trainer.dataset.folder import read_folder
from trainer.dataset.metadata_files import Caption, Entry, match
from trainer.dataset.photos import Dataset
from trainer.run.messages import ENGLISH, UserError

folder_view = load("nodes.page.folder_view")


@pytest.fixture
def folder(tmp_path):
    """A folder with the photos a.jpg and b.jpg."""
    path = tmp_path / "10_mysks dog"
    path.mkdir()
    for number, name in enumerate(("a.jpg", "b.jpg")):
        image = Image.new("RGB", (96, 80), (200, 30 * number, 40))
        image.paste((0, 90, 160), (0, 0, 48, 40))
        image.save(path / name)
    return path


def captions(folder) -> dict[str, tuple[str, ...]]:
    """All captions by photo, in the node; those that the panel shows and those that run.json holds must be the same."""
    dataset, _ = read_folder(folder, 64)
    listed = folder_view.photo_list(folder, 64, "center", ENGLISH)["photos"]
    names = [photo.path.rpartition("/")[2] for photo in dataset.photos]
    assert {photo["name"]: photo["caption"] for photo in listed} == {
        name: "\n".join(filter(None, photo.captions)) for name, photo in zip(names, dataset.photos, strict=True)
    }
    written = json.dumps(dataset.to_json(), ensure_ascii=False).encode()
    assert Dataset.from_json(json.loads(written)).photos == dataset.photos
    return {name: photo.captions for name, photo in zip(names, dataset.photos, strict=True)}


def told(folder) -> str:
    return "\n".join(map(str, read_folder(folder, 64)[0].warnings))


def write_lines(folder, *entries, name: str = "metadata.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries), encoding="utf-8", newline="\n")


SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_other_separators_of_lines_stand_in_a_caption(folder, separator):
    text = f'{{"file_name": "a.jpg", "text": "a dog{separator}on grass"}}\n{{"file_name": "b.jpg", "text": "in snow"}}\n'
    if separator >= " ":  # JSON has the others as escapes alone
        (folder / "metadata.jsonl").write_text(text, encoding="utf-8", newline="\n")
        assert captions(folder) == {"a.jpg": ("a dog on grass",), "b.jpg": ("in snow",)}
        (folder / "metadata.jsonl").unlink()
    write_lines(folder, {"file_name": "a.jpg", "text": f"a dog{separator}on grass"})
    (folder / "b.txt").write_bytes(f"in{separator}snow\n".encode())
    assert captions(folder) == {"a.jpg": ("a dog on grass",), "b.jpg": ("in snow",)}


@pytest.mark.parametrize("key", ["text", "caption", "prompt"])
@pytest.mark.parametrize("file_key", ["file_name", "image", "file", "path"])
@pytest.mark.parametrize(
    "name",
    ["a.jpg", "./a.jpg", ".\\a.jpg", "A.JPG", "10_mysks dog/a.jpg", "C:\\x\\10_Mysks Dog\\a.jpg", "/x/10_mysks dog/a.jpg", "a"],
)
def test_an_entry_finds_its_photo(folder, key, file_key, name):
    write_lines(folder, {file_key: name, key: "a dog on grass"}, {"file_name": "b.jpg", "text": "in snow"})
    assert captions(folder) == {"a.jpg": ("a dog on grass",), "b.jpg": ("in snow",)}
    assert "metadata" not in told(folder)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.json"])
@pytest.mark.parametrize("missing", ["c.jpg", "other/a.jpg", "", "caf\u00e9.png"])
def test_an_entry_without_a_photo_is_told_with_its_file_and_line(folder, name, missing):
    if name == "metadata.csv":
        (folder / name).write_text(f'file_name,text\na.jpg,"a dog, on grass"\n{missing},in snow\n', encoding="utf-8")
        if not missing:
            with pytest.raises(UserError, match=r"Line 3 of metadata\.csv has no file_name"):
                read_folder(folder, 64)
            return
    else:
        rows = [{"file_name": "a.jpg", "text": "a dog, on grass"}, {"file_name": missing, "text": "in snow"}]
        text = json.dumps(rows) if name.endswith("json") else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
    assert captions(folder) == {"a.jpg": ("a dog, on grass",), "b.jpg": ("",)}
    line = 3 if name.endswith("csv") else 2
    assert f"{name} names no photo of this folder with: {missing} ({line})." in told(folder)


@pytest.mark.parametrize("text", [True, False, 3, 0.5, {"a": "b"}, ["a", None], [["a"]]], ids=str)
def test_a_caption_that_is_no_text_is_refused_by_its_line(folder, text):
    write_lines(folder, {"file_name": "b.jpg", "text": "x"}, {"file_name": "a.jpg", "text": text})
    with pytest.raises(UserError, match=r"Line 2 of metadata\.jsonl"):
        read_folder(folder, 64)
    with pytest.raises(ValueError, match=r"Line 2 of metadata\.jsonl"):  # the pack's own class of errors
        folder_view.photo_list(folder, 64, "center", ENGLISH)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"text": None}, ("",)),
        ({"text": ""}, ("",)),
        ({"text": []}, ("",)),
        ({"text": None, "caption": "a dog"}, ("a dog",)),
        ({"text": ["a dog", "a pet", "a dog", " "]}, ("a dog", "a pet")),
        ({"text": "a dog \ud83d"}, ("a dog",)),
        ({"text": "a dog \ud83d\udc36"}, ("a dog \U0001f436",)),
        ({"text": "\udc36a\0 dog\x07"}, ("a dog",)),
        ({"text": "None"}, ("None",)),
        ({"text": "", "caption": "a dog"}, ("a dog",)),
        ({"text": " \t", "prompt": "a dog"}, ("a dog",)),
        ({"text": [""], "caption": ["a dog", ""]}, ("a dog",)),
        ({"text": "", "caption": None, "prompt": "a dog"}, ("a dog",)),
        ({"text": "", "caption": ""}, ("",)),
        ({"text": "a cat", "caption": "a dog"}, ("a cat",)),
    ],
)
def test_what_may_stand_for_a_caption(folder, entry, expected):
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", **entry}) + "\n")
    assert captions(folder)["a.jpg"] == expected


def test_a_spreadsheet_is_read(folder):
    for text in (
        'file_name,text,repeats\na.jpg,"a dog, on ""grass""",3\nb.jpg,in snow,\n',
        'file_name;caption;repeats\r\na.jpg;a dog, on "grass";3\r\nb.jpg;in snow;\r\n',
        'image\tprompt\trepeats\na.jpg\t"a dog, on ""grass"""\t3\nb.jpg\tin snow\t\n',
    ):
        (folder / "metadata.csv").write_text(text, encoding="utf-8-sig", newline="")
        assert captions(folder) == {"a.jpg": ('a dog, on "grass"',), "b.jpg": ("in snow",)}
        assert [photo.repeats for photo in read_folder(folder, 64)[0].photos] == [3, 10]


@pytest.mark.parametrize("above", ["", "\n", "\r\n \r\n", "sep={}\n", "SEP={}\r\n", "\nsep={}\n\n", "{}{}\n", "sep={}{}\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheet_may_begin_as_excel_has_it(folder, above, separator):
    rows = [["file_name", "text"], ["a.jpg", "a dog"], ["b.jpg", "in snow"], ["gone.jpg", "x"]]
    text = above.format(separator, separator) + "".join(separator.join(row) + "\n" for row in rows)
    (folder / "metadata.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert captions(folder) == {"a.jpg": ("a dog",), "b.jpg": ("in snow",)}
    line = text.replace("\r\n", "\n").replace("\r", "\n").split("\n").index(separator.join(rows[3])) + 1
    assert f"metadata.csv names no photo of this folder with: gone.jpg ({line})." in told(folder)


@pytest.mark.parametrize(
    "row", ["a.jpg,a dog, on grass", 'a.jpg,"a dog\nb.jpg,x', 'a.jpg,"a" dog', "a.jpg,x,many", "a.jpg,x,1.5", ",x"]
)
@pytest.mark.parametrize("end", ["", ",", ",,"])
def test_a_wrong_row_of_a_spreadsheet_is_refused_by_its_line(folder, row, end):
    columns = "file_name,text,repeats" if row.count(",") == 2 and "grass" not in row else "file_name,text"
    (folder / "metadata.csv").write_text(f"{columns}{end}\n{row}\n")
    with pytest.raises(UserError, match=r"Line [23] of metadata\.csv has no file_name, a text with a comma"):
        read_folder(folder, 64)


@pytest.mark.parametrize("columns", ["file_name,text", "file_name,text,", ",file_name,text", "file_name, text, ,"])
@pytest.mark.parametrize("text", ['"a dog, on grass"', ' "a dog, on grass"', '"a dog, on grass",', '"a dog, on grass",, '])
def test_empty_cells_and_blanks_of_a_spreadsheet_mean_nothing(folder, columns, text):
    index = "0," if columns.startswith(",") else ""
    (folder / "metadata.csv").write_text(f"{columns}\n{index}a.jpg,{text}\n")
    assert captions(folder)["a.jpg"] == ("a dog, on grass",)


@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl", "metadata.csv", "metadata.json"])
def test_files_that_were_joined_may_hold_several_marks_of_the_byte_order(folder, name):
    row = json.dumps({"file_name": "a.jpg", "text": "a dog"})
    text = {"a.txt": "a dog", "metadata.csv": "file_name,text\na.jpg,a dog\n", "metadata.json": f"[{row}]"}.get(
        name, '{"file_name": "b.jpg", "text": "x"}\n\ufeff' + row
    )
    (folder / name).write_bytes(b"\xef\xbb\xbf\xef\xbb\xbf" + text.encode())
    assert captions(folder)["a.jpg"] == ("a dog",)


@pytest.mark.parametrize(("repeats", "expected"), [("2", 2), ('"3"', 3), ("2.0", 2), ("null", 10), ("100", 100)])
def test_what_may_stand_for_repeats(folder, repeats, expected):
    """The folder is called 10_...: that counts where nothing else is said."""
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.jpg", "text": "x", "repeats": {repeats}}}\n')
    assert read_folder(folder, 64)[0].photos[0].repeats == expected


@pytest.mark.parametrize("repeats", ["1.5", "true", "NaN", "Infinity", "[2]", '""', "101", "0", "1e400", "9" * 400])
def test_repeats_that_are_no_whole_number_are_refused(folder, repeats):
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.jpg", "text": "x", "repeats": {repeats}}}\n')
    with pytest.raises(UserError, match=r"Line 1 of metadata\.jsonl"):
        read_folder(folder, 64)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(folder, end):
    rows = [json.dumps({"file_name": name, "text": f"of {name}"}) for name in ("a.jpg", "b.jpg")]
    (folder / "metadata.jsonl").write_text(end.join(rows) + end, newline="")
    assert captions(folder) == {"a.jpg": ("of a.jpg",), "b.jpg": ("of b.jpg",)}


@pytest.mark.parametrize(
    "raw", [b"\x1f\x8b\x08\0abcd\xff\0", b"PK\3\4\x14\0\0\0\x08\0", b"\0" * 9, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"], ids=ascii
)
def test_what_is_no_text_is_not_read_as_one(folder, raw):
    (folder / "a.txt").write_bytes(raw)
    with pytest.raises(UserError, match=r"The encoding of a\.txt cannot be told"):
        read_folder(folder, 64)


@pytest.mark.parametrize("zeros", [1, 2, 7, 500])
@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_zeros_at_the_end_of_a_file_are_left_out(folder, name, zeros, encoding):
    text = {
        "metadata.jsonl": '{"file_name": "a.jpg", "text": "a dog at the café"}\n',
        "metadata.csv": "file_name,text\na.jpg,a dog at the café\n",
    }.get(name, "a dog at the café")
    padding = bytes(2 * zeros if "16" in encoding else zeros)
    (folder / name).write_bytes(text.encode(encoding) + padding)
    assert captions(folder)["a.jpg"] == ("a dog at the café",)


@pytest.mark.parametrize("letters", ["a", "犬", "犬\n"])
def test_the_last_zero_of_a_letter_is_no_padding(folder, letters):
    (folder / "a.txt").write_bytes(letters.encode("utf-16"))
    assert captions(folder)["a.jpg"] == (letters.strip(),)


def test_accents_are_composed_as_the_tokenizer_has_them(folder):
    (folder / "a.txt").write_text("a dog at the cafe\u200b\u0301", encoding="utf-8")
    write_lines(folder, {"file_name": "b.jpg", "text": "\u1112\u1161\u11ab"})
    assert captions(folder) == {"a.jpg": ("a dog at the café",), "b.jpg": ("한",)}


def test_what_another_program_added_behind_the_mark_of_utf_8_is_read(folder):
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf" + "a dog at the café’s door".encode("cp1252"))
    assert captions(folder)["a.jpg"] == ("a dog at the café’s door",)
    assert "a.txt is not UTF-8, and was read as Windows-1252: 'a dog at the café’s door'." in told(folder)


def test_marks_that_cannot_be_seen_are_left_out_and_joiners_stay(folder):
    family = "\U0001f469\u200d\U0001f467"
    (folder / "a.txt").write_text(f"\ufeff\ufeffa\u200b \u202edog\u202c {family}", encoding="utf-8")
    assert captions(folder)["a.jpg"] == (f"a dog {family}",)


EXIFTOOL = "SourceFile,FileName,Directory,ImageDescription\n./a.jpg,a.jpg,.,a dog\n"


@pytest.mark.parametrize("text", ["a.jpg,a dog\n", "file_name,label\na.jpg,3\n", "", "\n\n", EXIFTOOL, "id,text\n1,x,y,z\n"])
def test_a_spreadsheet_without_our_columns_is_passed_over_with_a_word(folder, text):
    (folder / "metadata.csv").write_text(text)
    assert captions(folder) == {"a.jpg": ("",), "b.jpg": ("",)}
    note = "metadata.csv was passed over: its first line does not name the columns file_name and text."
    assert note in told(folder)


def test_a_line_without_a_text_is_a_photo_without_a_caption(folder):
    write_lines(
        folder, {"file_name": "a.jpg", "label": 3, "repeats": 4}, {"file_name": "b.jpg", "text": "a dog"}, {"file": "a.jpg"}
    )
    assert captions(folder) == {"a.jpg": ("",), "b.jpg": ("a dog",)}
    assert "Lines of metadata.jsonl without a text, caption or prompt: 1, 3." in told(folder)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.json", "metadata.csv"])
@pytest.mark.parametrize(("file_key", "key"), [("File_Name", "Text"), ("IMAGE", "CAPTION"), ("FileName", "Prompt ")])
def test_keys_are_known_in_any_case(folder, name, file_key, key):
    row = {file_key: "a.jpg", key: "a dog", "Repeats": 3}
    csv = ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
    (folder / name).write_text(csv if name.endswith("csv") else json.dumps([row] if name.endswith(".json") else row))
    assert captions(folder)["a.jpg"] == ("a dog",)
    assert read_folder(folder, 64)[0].photos[0].repeats == 3


def test_kohya_s_metadata_are_read(folder):
    data = {
        "/data/img/10_mysks dog/a.jpg": {"caption": "a dog", "tags": "grass, sun", "train_resolution": [512, 512]},
        "b": {"tags": "dog, snow"},
        "gone.png": {"caption": "x"},
    }
    (folder / "metadata.json").write_text(json.dumps(data))
    assert captions(folder) == {"a.jpg": ("a dog, grass, sun",), "b.jpg": ("dog, snow",)}
    assert "metadata.json names no photo of this folder with: gone.png" in told(folder)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"tags": ["dog", "snow "]}, ("dog, snow",)),
        ({"tags": "dog, snow", "caption": ["a dog", "a pet"]}, ("a dog, dog, snow", "a pet, dog, snow")),
        ({"tags": "snow", "text": "a dog"}, ("a dog, snow",)),
        ({"tags": "snow", "caption": ""}, ("snow",)),
        ({"tags": None, "caption": "a dog"}, ("a dog",)),
        ({"tags": [], "prompt": "a dog"}, ("a dog",)),
        ({"tags": ["", " "]}, ("",)),
    ],
)
def test_no_tag_and_no_caption_of_kohya_s_is_lost(folder, entry, expected):
    (folder / "metadata.json").write_text(json.dumps({"a": entry}))
    assert captions(folder)["a.jpg"] == expected


@pytest.mark.parametrize("tags", [3, {"dog": 0.9}, ["dog", 3], True], ids=str)
def test_tags_of_another_form_are_told(folder, tags):
    (folder / "metadata.json").write_text(json.dumps({"a": {"caption": "a dog", "tags": tags}}))
    assert captions(folder)["a.jpg"] == ("",)
    assert "metadata.json is not of a form that is read here" in told(folder)


def test_kohya_s_metadata_of_several_folders_give_each_its_own(folder):
    data = {f"/data/img/{name}/a.jpg": {"caption": name} for name in ("5_cat", folder.name, "7_fish")}
    (folder / "metadata.json").write_text(json.dumps(data))
    assert captions(folder)["a.jpg"] == (folder.name,)
    assert "names no photo of this folder with: /data/img/5_cat/a.jpg" in told(folder)


def test_many_photos_are_matched_in_no_time():
    names = [f"{number:05}.jpg" for number in range(20_000)]
    entries = [Entry("", name.removesuffix(".jpg"), Caption((name,))) for name in names]
    found, notes = match("metadata.json", entries, Path("folder"), names)
    assert {name: caption.texts for name, caption in found.items()} == {name: (name,) for name in names}
    assert notes == []


@pytest.mark.parametrize("text", ['{"id": 3}', "[1]", "{", "3", "{}", "null", '{"a.jpg": {"caption": 3}}', "[" * 5000])
def test_another_program_s_metadata_are_passed_over_with_a_word(folder, text):
    (folder / "metadata.json").write_text(text)
    assert "metadata.json is not of a form that is read here" in told(folder)


@pytest.mark.parametrize("name", ["metadata.json", "meta_cap.json"])
@pytest.mark.parametrize("size", [10, 50_000_001])
def test_a_file_of_another_program_does_not_cost_the_folder(folder, name, size):
    (folder / name).write_bytes(b"\x1f\x8b\x08\0abcd\xff\0")
    os.truncate(folder / name, size)
    (folder / "a.txt").write_text("a dog")
    assert captions(folder)["a.jpg"] == ("a dog",)
    reason = f"{name} is larger than 50 MB, too large for captions." if size > 10 else f"The encoding of {name} cannot be told"
    assert reason in told(folder)


@pytest.mark.parametrize(("name", "most"), [("a.txt", 1), ("a.caption", 1), ("metadata.jsonl", 50), ("metadata.csv", 50)])
def test_a_file_that_is_too_large_for_captions_is_named(folder, name, most):
    (folder / name).touch()
    os.truncate(folder / name, most * 1_000_000 + 1)
    with pytest.raises(UserError, match=f"{name} is larger than {most} MB, too large for captions"):
        read_folder(folder, 64)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.json"])
def test_a_file_for_ten_thousand_photos_is_read(folder, name):
    text = "a dog on grass, " * 40
    rows = [{"file_name": "a.jpg", "text": "a dog"}, *({"file_name": f"{n:05}.jpg", "text": text} for n in range(10_000))]
    lines = [json.dumps(row) for row in rows]
    whole = {"metadata.jsonl": "\n".join(lines), "metadata.json": f"[{','.join(lines)}]"}.get(
        name, "file_name,text\n" + "".join(f'{row["file_name"]},"{row["text"]}"\n' for row in rows)
    )
    (folder / name).write_text(whole)
    assert captions(folder)["a.jpg"] == ("a dog",)


def test_several_entries_of_one_photo_are_told(folder):
    write_lines(folder, {"file_name": "a.jpg", "text": "one"}, {"file_name": "A.jpg", "text": "two"})
    assert captions(folder)["a.jpg"] == ("two",)
    assert "metadata.jsonl has several entries for a.jpg. The last one counts." in told(folder)


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.jpg.txt", "a.TXT", "A.txt", "a.jpg.caption", "A.Caption"])
def test_a_file_beside_the_photo_is_its_caption(folder, name):
    (folder / name).write_text("a dog on grass\n")
    assert captions(folder) == {"a.jpg": ("a dog on grass",), "b.jpg": ("",)}
    assert "may hold captions" not in told(folder)


def test_a_caption_file_without_a_photo_is_told(folder):
    for name in ("c.txt", "a .txt", "b.caption", "b.txt"):
        (folder / name).write_text("x")
    assert "Files that may hold captions, but are no photo's: a .txt, b.caption, c.txt." in told(folder)


@pytest.mark.parametrize("photo", ["c.cr2", "c.psd", "C.JXL", "caf\udce9.jpg"])
def test_the_caption_of_a_picture_that_is_refused_is_not_called_nobody_s(folder, photo):
    with suppress(OSError, UnicodeError):  # a system whose names are all Unicode
        (folder / photo).write_bytes(b"x")
        (folder / f"{photo.rpartition('.')[0]}.txt").write_text("a dog")
    (folder / "d.txt").write_text("a dog")
    shown = folder_view.photo_list(folder, 64, "center", ENGLISH)
    assert shown["notes"][-1] == "Files that may hold captions, but are no photo's: d.txt."


OTHERS = ("a.yaml", "b.YML", "captions.xlsx", "captions.ods", "a.cap", "a.tags", "a.text", "a.rtf", "a.docx")


@pytest.mark.parametrize("name", ["captions.json", "a.json", "data.csv", "train.jsonl", "x.tsv", "0000.parquet", *OTHERS])
def test_a_file_that_may_hold_captions_is_told_where_it_is_not_read(folder, name):
    (folder / name).write_text('{"file_name": "a.jpg", "text": "x"}')
    assert f"Files that may hold captions, but are no photo's: {name}." in told(folder)


@pytest.mark.parametrize("name", ["Metadata.jsonl", "METADATA.JSONL"])
def test_a_metadata_file_is_read_in_any_case(folder, name):
    write_lines(folder, {"file_name": "a.jpg", "text": "a dog"}, name=name)
    assert captions(folder)["a.jpg"] == ("a dog",)
    assert "may hold captions" not in told(folder)


TEXTS = {
    "utf-8": "a dog — собака 犬 \U0001f436",
    "utf-8-sig": "a dog — собака 犬 \U0001f436",
    "utf-16": "a dog — собака 犬 \U0001f436",
    "utf-32": "a dog — собака 犬 \U0001f436",
    "utf-16-le": "a dog on grass",
    "utf-16-be": "a dog on grass",
    "cp1252": "a dog at the café’s door",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("name", ["a.txt", "a.caption", "metadata.jsonl", "metadata.csv"])
def test_every_encoding_that_can_be_told_is_read(folder, encoding, name):
    text = TEXTS[encoding]
    shown = {
        "metadata.jsonl": json.dumps({"file_name": "a.jpg", "text": text}, ensure_ascii=False) + "\r\n",
        "metadata.csv": f"file_name,text\r\na.jpg,{text}\r\n",
    }.get(name, text + "\r\n")
    (folder / name).write_bytes(shown.encode(encoding))
    assert captions(folder)["a.jpg"] == (text,)
    note = f"{name} is not UTF-8, and was read as Windows-1252"
    assert (note in told(folder)) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "собака на траві"),
        ("cp1251", "a photo of собака"),
        ("koi8-u", "собака на траві"),
        ("cp1253", "ένας σκύλος"),
        ("cp932", "a photo of 犬"),
        ("cp932", "草の上の犬"),
        ("gbk", "a photo of 狗"),
        ("big5", "草地上的狗"),
        ("euc-kr", "잔디 위의 개"),
        ("cp874", "หมาบนหญ้า"),
        ("cp1255", "כלב"),
        ("cp1256", "كلب على العشب"),
        ("utf-16-le", "草地上的狗"),
        ("utf-16-be", "собака"),
        ("utf-32-le", "a dog"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl"])
def test_an_encoding_that_cannot_be_told_is_named_with_its_file(folder, encoding, text, name):
    shown = text if name == "a.txt" else json.dumps({"file_name": "a.jpg", "text": text}, ensure_ascii=False)
    (folder / name).write_bytes(shown.encode(encoding))
    try:
        assert captions(folder)["a.jpg"] == (text,)  # some can be told by their zeros
    except UserError as error:
        assert f"The encoding of {name} cannot be told. Save it as UTF-8." in str(error)  # noqa: PT017


@pytest.mark.parametrize("raw", [b"\xff\xfea", b"\xff\xfea\0=\xd8", b"\xed\xa0\xbd", b"a\0\0b\0", b"\x80\x81"], ids=repr)
def test_half_letters_in_a_file_are_named(folder, raw):
    (folder / "a.txt").write_bytes(raw)
    with pytest.raises(UserError, match=r"The encoding of a\.txt cannot be told"):
        read_folder(folder, 64)


def test_several_lines_are_alternatives(folder):
    (folder / "a.txt").write_bytes(b"a dog on grass\r\na brown dog\n\n a  pet \ra dog on grass")
    assert captions(folder)["a.jpg"] == ("a dog on grass", "a brown dog", "a pet")
    dataset, _ = read_folder(folder, 64)
    assert dataset.photos[0].caption == "a dog on grass"
    assert dataset.deciding()["photos"][0][1:] == ("a dog on grass", "a brown dog", "a pet", 10)
    (shown, _) = folder_view.photo_list(folder, 64, "center", ENGLISH)["photos"]
    assert shown["caption"] == "a dog on grass\na brown dog\na pet"
    assert "3 captions, a line each: one is drawn each time" in shown["notes"]


def test_every_alternative_gets_the_token(folder):
    (folder / "a.txt").write_text("a dog on grass\na mysks dog\n")
    dataset, _ = read_folder(folder, 64)
    taught = dataset.with_captions([[f"mysks, {text}" for text in photo.captions] for photo in dataset.photos], token="mysks")
    assert taught.photos[0].captions == ("mysks, a dog on grass", "mysks, a mysks dog")
    assert taught.with_captions([["x", "x"], "y"]).photos[0].captions == ("x",)


def test_more_lines_than_captions_can_be_are_refused(folder):
    (folder / "a.txt").write_text("\n".join(map(str, range(101))))
    with pytest.raises(UserError, match=r"a\.txt has 101 lines; each is a caption"):
        read_folder(folder, 64)


def test_alternatives_are_saved_a_line_each(folder):
    (folder / "a.txt").write_text("one\ntwo\n")
    write_caption(folder, "a.jpg", "one\r\n three  dogs \n\n", was="one\ntwo")
    assert (folder / "a.txt").read_bytes() == b"one\nthree dogs\n"
    with pytest.raises(ConflictError) as error:
        write_caption(folder, "a.jpg", "x", was="one\ntwo")
    assert error.value.caption == "one\nthree dogs"
    write_caption(folder, "a.jpg", "", was="one\nthree dogs")
    assert captions(folder)["a.jpg"] == ("",)
    with pytest.raises(UserError, match=f"at most {MAX_CAPTION}"):
        write_caption(folder, "a.jpg", "x" * (MAX_CAPTION + 1), was="")


def test_a_caption_that_cannot_be_written_is_told_by_its_file_and_not_by_its_folder(folder, monkeypatch):
    stem = "x" * 251
    (folder / "a.jpg").rename(folder / f"{stem}.jpg")
    with pytest.raises(UserError, match=rf"cannot be written to {stem}\.txt \(File name too long\)\. .* a shorter name"):
        write_caption(folder, f"{stem}.jpg", "a dog", was="")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "b.txt.partial"))

    monkeypatch.setattr(Path, "touch", refuse)  # whoever runs the tests may be allowed everything
    with pytest.raises(UserError, match=r"cannot be written to b\.txt \(Permission denied\)") as error:
        write_caption(folder, "b.jpg", "a dog", was="")
    assert str(folder) not in str(error.value)


def test_two_photos_of_one_name_share_a_caption_with_a_word(folder):
    (folder / "a.jpg").rename(folder / "b.png")
    (folder / "b.txt").write_text("a dog\n")
    assert captions(folder) == {"b.jpg": ("a dog",), "b.png": ("a dog",)}
    assert "Photos of one name share a caption: b.jpg (b.txt), b.png (b.txt). Where they need" in told(folder)
    assert "call the files as in b.jpg.txt" in told(folder)
    notes = {photo["name"]: photo["notes"] for photo in folder_view.photo_list(folder, 64, "center", ENGLISH)["photos"]}
    assert all("shares b.txt with another photo" in notes[name] for name in ("b.jpg", "b.png"))
    write_caption(folder, "b.png", "a cat", was="a dog")
    assert captions(folder) == {"b.jpg": ("a dog",), "b.png": ("a cat",)}
    assert (folder / "b.txt").read_text() == "a dog\n"
    assert "share a caption" not in told(folder)
    write_caption(folder, "b.jpg", "an owl", was="a dog")
    assert captions(folder) == {"b.jpg": ("an owl",), "b.png": ("a cat",)}


@pytest.mark.parametrize(
    "there", [[], ["a.jpg.txt"], ["a.txt"], ["A.jpg.TXT"], ["a.jpg.caption"], ["a.jpg.png.txt", "a.jpg.txt"]]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.jpg.png", "a.png", "b.jpg"])
def test_saving_a_caption_changes_that_of_no_other_photo(folder, there, name):
    for other in ("a.png", "a.jpg.png"):
        Image.linear_gradient("L").save(folder / other)
    for number, file in enumerate(there):
        (folder / file).write_text(f"text {number}\n")
    before = captions(folder)
    write_caption(folder, name, "a new text", was="\n".join(filter(None, before[name])))
    assert captions(folder) == {**before, name: ("a new text",)}


def test_the_caption_of_another_photo_s_case_is_not_taken(tmp_path):
    """On Linux a.jpg and A.jpg are two photos."""
    for name in ("a.jpg", "A.jpg"):
        Image.linear_gradient("L").save(tmp_path / name)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system has one case")
    (tmp_path / "a.txt").write_text("a dog")
    found = read_captions(tmp_path, ["A.jpg", "a.jpg"]).captions
    assert [found[name].texts for name in ("A.jpg", "a.jpg")] == [(), ("a dog",)]
