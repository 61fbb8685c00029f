"""Captions and masks from ComfyUI's own nodes: taken, refused where they cannot be each photo's, shown, edited and saved."""

import io
import urllib.error

import pytest
from PIL import Image

from tools.browser import queue, queued_prompt
from tools.server import Failed

from .pages import NEEDS_BROWSER, each, press, text_box, wait, words


@pytest.fixture(scope="module")
def pair(base_directory):
    """A folder of two photos without captions."""
    folder = base_directory / "input" / "pair-of-photos"
    folder.mkdir()
    for number, grey in enumerate((60, 160)):
        Image.new("RGB", (96, 96), (grey, 90, 40)).save(folder / f"{number}.png")
    return folder


def loaded(**inputs) -> dict:
    """A graph whose captions are shown by CaptionWithToken, node "captioned"."""
    given = {"folder": "pair-of-photos", "resolution": 64, "crop": "center"} | inputs
    words = {"dataset": ["photos", 0], "token": "mysks", "class_word": "toy", "template": "a photo of {token} {class}"}
    return {
        "lines": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a red toy\na green toy"}},
        "photos": {"class_type": "DatasetLoader", "inputs": given},
        "captioned": {"class_type": "CaptionWithToken", "inputs": words},
        "prompt": {"class_type": "PreviewAny", "inputs": {"source": ["captioned", 1]}},
    }


def captions(server, graph: dict) -> list[str]:
    return [caption["text"] for caption in server.run(graph).outputs["captioned"]["captions"][0]["captions"]]


def test_a_text_with_a_line_for_each_photo_captions_a_folder(server, pair):
    assert captions(server, loaded(captions=["lines", 0])) == ["a red mysks toy", "a green mysks toy"]


def test_pictures_and_texts_of_lists_go_together(server, pair, base_directory):
    """As ComfyUI's own loader of pictures with texts gives them, in an order of its own."""
    (base_directory / "input" / "texts-of-lists").mkdir()
    for number, photo in enumerate(sorted(pair.glob("*.png"))):
        photo.rename(base_directory / "input" / "texts-of-lists" / photo.name)
        (base_directory / "input" / "texts-of-lists" / f"{number}.txt").write_text(f"toy number {number}")
        Image.open(base_directory / "input" / "texts-of-lists" / photo.name).save(photo)
    graph = loaded(images=["texts", 0], captions=["texts", 1])
    graph["texts"] = {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": "texts-of-lists"}}
    assert sorted(captions(server, graph)) == ["mysks toy number 0", "mysks toy number 1"]
    folder = server.run(graph).outputs["photos"]["panel"][0]["folder"]

    # What is written about one of these pictures counts from then on, though nothing else has changed.
    shown = server.get(f"/subject_trainer/photos?folder={folder}")["photos"]
    assert [photo["caption"] for photo in shown] == ["", ""]
    caption = {"folder": folder, "name": shown[0]["name"], "text": "a toy of mine", "was": ""}
    server.post("/subject_trainer/caption", caption)
    assert captions(server, graph)[0] == "mysks toy of mine"


def test_another_number_of_captions_is_refused(server, pair):
    graph = loaded(captions=["lines", 0])
    graph["lines"]["inputs"]["value"] = "a red toy\na green toy\na blue toy"
    with pytest.raises(Failed, match="3 captions come through captions, and there are 2 photos"):
        server.run(graph)


def test_masks_are_taken_and_shown_over_the_photos(server, pair):
    graph = loaded(masks=["masks", 0], mask_weight=0.2)
    half = {"width": 48, "height": 96, "value": 1.0}
    graph["half"] = {"class_type": "SolidMask", "inputs": half}
    graph["none"] = {"class_type": "SolidMask", "inputs": {**half, "width": 96, "value": 0.0}}
    inputs = {"destination": ["none", 0], "source": ["half", 0], "x": 0, "y": 0, "operation": "add"}
    graph["left"] = {"class_type": "MaskComposite", "inputs": inputs}
    graph["images"] = {"class_type": "MaskToImage", "inputs": {"mask": ["left", 0]}}
    graph["both"] = {"class_type": "ImageBatch", "inputs": {"image1": ["images", 0], "image2": ["images", 0]}}
    graph["masks"] = {"class_type": "ImageToMask", "inputs": {"image": ["both", 0], "channel": "red"}}
    shown = server.run(graph).outputs["photos"]
    assert "2 of 2 photos have a mask; outside of it the loss counts 0.2 times." in shown["text"][0]
    query = f"/subject_trainer/photo?folder=pair-of-photos&name=1.png&resolution=64&masks={shown['panel'][0]['masks']}"
    thumbnail = Image.open(io.BytesIO(server.open(query)))
    left, right = (thumbnail.getpixel((x, 32))[0] for x in (10, 54))
    assert left > 140
    assert right < 60

    graph["photos"]["inputs"]["masks"] = ["left", 0]
    with pytest.raises(Failed, match="1 masks come through masks, and there are 2 photos"):
        server.run(graph)
    with pytest.raises(urllib.error.HTTPError):
        server.open("/subject_trainer/photo?folder=pair-of-photos&name=1.png&masks=../pictures")


class TestPage:
    """In the page."""

    pytestmark = NEEDS_BROWSER

    def test_captions_of_the_graph_are_shown_edited_and_saved(self, either, pair):
        for text in pair.glob("*.txt"):
            text.unlink()
        either.execute_script(
            """
            const { app, LiteGraph } = window
            app.graph.clear()
            const add = (type, x) => {
              const node = LiteGraph.createNode(type)
              node.pos = [x, 0]
              app.graph.add(node)
              return node
            }
            const lines = add("PrimitiveStringMultiline", 0), loader = add("DatasetLoader", 400)
            lines.widgets[0].value = "a red toy\\na green toy"
            for (const w of loader.widgets)
              if (w.name === "folder") w.value = "pair-of-photos"
              else if (w.name === "resolution") w.value = 64
            lines.connect(0, loader, "captions")
            loader.connect(1, add("PreviewImage", 900), 0)
            """
        )
        assert "captions" in next(n for n in queued_prompt(either).values() if n["class_type"] == "DatasetLoader")["inputs"]
        queue(either)
        wait(either, lambda: "from the graph" in words(either, "DatasetLoader", "photo_view"), 60)
        view = ("DatasetLoader", "photo_view")
        assert each(either, view, "textarea", "value") == ["a red toy", "a green toy"]
        either.execute_async_script("const [done] = arguments; window.app.queuePrompt(0, 1).then(() => done())")
        assert not list(pair.glob("*.txt"))
        edit = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        either.execute_script(edit, text_box(either, view), "")
        wait(either, lambda: (pair / "0.txt").is_file(), 60)  # to empty what the graph says is an edit, too
        assert (pair / "0.txt").read_text().strip() == ""
        either.execute_script(edit, text_box(either, view), "a toy of mine")
        wait(either, lambda: (pair / "0.txt").read_text() == "a toy of mine\n", 60)
        press(either, view, "button", "Save all captions")
        wait(either, lambda: (pair / "1.txt").is_file(), 60)
        assert [(pair / f"{number}.txt").read_text() for number in (0, 1)] == ["a toy of mine\n", "a green toy\n"]
