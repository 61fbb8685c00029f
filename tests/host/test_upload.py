"""Photos that are dropped on the loader become a dataset: through ComfyUI's own route, in the page and without it."""

import io
import json
import urllib.error
import urllib.request
import uuid

import pytest
from PIL import Image

from tools.browser import choose, open_workflow, queued_prompt, set_setting
from tools.server import HOST, Refused

from .pages import NEEDS_BROWSER, each, read, wait, words

PHOTOS = ("DatasetLoader", "photo_view")
DROP = """
const [target, names, done] = arguments
const node = window.app.graph.nodes.find((n) => n.type === "DatasetLoader")
const canvas = document.createElement("canvas")
canvas.width = canvas.height = 96
const context = canvas.getContext("2d")
const transfer = new DataTransfer()
const add = async () => {
  for (const [index, name] of names.entries()) {
    context.fillStyle = `rgb(${60 * index}, 80, 90)`
    context.fillRect(0, 0, 96, 96)
    const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"))
    const isPhoto = name.endsWith(".png")
    transfer.items.add(new File([isPhoto ? picture : `text of ${name}`], name, { type: isPhoto ? "image/png" : "text/plain" }))
  }
}
const send = (element, type, place) =>
  element.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true, ...place }))
add().then(() => {
  let element = document.querySelector(`[data-node-id="${node.id}"]`) ?? window.app.canvas.canvas
  if (target === "panel") element = node.widgets.find((w) => w.name === "photo_view").element
  const { ds } = window.app.canvas
  const [x, y] = [(node.pos[0] + 40 + ds.offset[0]) * ds.scale, (node.pos[1] - 10 + ds.offset[1]) * ds.scale]
  const box = window.app.canvas.canvas.getBoundingClientRect()
  const place = { clientX: x + box.left, clientY: y + box.top }
  send(element, "dragover", place)
  send(element, "drop", place)
  done()
})
"""


def drop(page, target: str, *names: str) -> None:
    """Drop files on the loader: on its "panel", or on its "title"."""
    page.execute_async_script(DROP, target, list(names))


def post_file(server, subfolder: str, name: str, content: bytes) -> dict:
    """Send a file to ComfyUI's own route, as any client does."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n{subfolder}\r\n--{boundary}\r\n'
    head += f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"http://{HOST}:{server.port}/upload/image", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (96, 96), colour).save(stream, "PNG")
    return stream.getvalue()


def test_photos_are_uploaded_over_http_and_read_as_a_dataset(server, base_directory):
    files = ["10_dog/b.png", "10_dog/a.png", "10_dog/a.txt", "10_dog/notes.pdf"]
    plan = server.post("/subject_trainer/upload", {"files": files})
    assert plan == {
        "places": {path: path for path in ("10_dog/a.png", "10_dog/a.txt", "10_dog/b.png")},
        "folder": "10_dog",
        "notes": ["Left out, because they are no photos that can be read: notes.pdf."],
    }
    contents = {"10_dog/a.png": png("teal"), "10_dog/b.png": png("red"), "10_dog/a.txt": b"a teal dog"}
    for path, place in plan["places"].items():
        post_file(server, *place.rsplit("/", 1), contents[path])
    assert server.options("DatasetLoader", "folder")[0] == "10_dog"
    graph = {"1": {"class_type": "DatasetLoader", "inputs": {"folder": "10_dog", "resolution": 64, "crop": "center"}}}
    graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}}
    assert server.run(graph).outputs["1"]["text"][0].startswith("2 photos, 1 caption, ready")

    again = server.post("/subject_trainer/upload", {"files": ["10_dog/a.png"]})
    assert again["folder"] == "10_dog-2"  # the photos of the first are nobody else's
    more = server.post("/subject_trainer/upload", {"files": ["a.png", "a.txt", "c.png"], "into": "10_dog"})
    assert more["folder"] == "10_dog"
    assert more["places"] == {"a.png": "10_dog/a-2.png", "a.txt": "10_dog/a-2.txt", "c.png": "10_dog/c.png"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"files": ["a.pdf"]}, "None of these files is a photo that can be read: a.pdf. Drop jpg, png, webp or tiff files."),
        (
            {"files": ["a.png"], "into": "../models"},
            "The folder '../models' is outside ComfyUI's input and datasets folders.",
        ),
        ({"files": ["a.png"], "into": "gone"}, "The folder 'gone' does not exist."),
        ({"files": 3}, "The request is wrong: "),
        ({}, "The request is wrong: "),
        ([], "The request is wrong: "),
    ],
)
def test_an_upload_that_cannot_be_is_refused_with_a_reason(server, body, reason):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.post("/subject_trainer/upload", body)
    assert error.value.code == 400
    assert json.loads(error.value.read())["error"].startswith(reason)


def test_photos_cannot_be_added_where_comfyui_takes_no_uploads(server, base_directory):
    folder = base_directory / "datasets" / "elsewhere"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png("red"))
    with pytest.raises(urllib.error.HTTPError) as error:
        server.post("/subject_trainer/upload", {"files": ["b.png"], "into": "datasets/elsewhere"})
    assert "is not below ComfyUI's input" in json.loads(error.value.read())["error"]


def test_the_default_folder_has_photos_and_is_not_comfyui_s_3d(server, base_directory):
    (base_directory / "input" / "3d").mkdir(exist_ok=True)
    options = server.get("/object_info/DatasetLoader")["DatasetLoader"]["input"]["required"]["folder"][1]
    assert options["counts"]["3d"] == 0
    assert options["counts"]["plush"] == 4
    assert options["counts"][options["options"][0]] > 0


@pytest.mark.parametrize("folder", ["plush", "(pictures wired to images)", "(no folder with photos yet)", "gone"])
def test_wired_pictures_win_over_any_folder(server, folder):
    picture = {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 96, "batch_size": 2, "color": 200}}
    loader = {"folder": folder, "resolution": 64, "crop": "center", "images": ["picture", 0]}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["loader", 1]}}
    graph = {"picture": picture, "loader": {"class_type": "DatasetLoader", "inputs": loader}, "shown": shown}
    assert server.run(graph).outputs["loader"]["text"][0].startswith("2 photos, 0 captions, ready")
    del loader["images"]
    if folder == "plush":
        assert server.run(graph).outputs["loader"]["text"][0] == "4 photos, 4 captions, ready"
    else:
        with pytest.raises(Refused, match="does not exist" if folder == "gone" else "No folder is chosen, and nothing is wired"):
            server.run(graph)


class TestPage:
    """In the page."""

    pytestmark = NEEDS_BROWSER

    @pytest.mark.parametrize("target", ["panel", "title"])
    def test_three_dropped_photos_become_a_dataset(self, either, base_directory, target):
        drop(either, target, "toy-1.png", "toy-2.png", "toy-3.png", "toy-2.txt", "notes.pdf")
        said = wait(either, lambda: "Uploaded to toy" in words(either, "DatasetLoader", "photo_view") and words_of(either), 60)
        assert "Left out, because they are no photos that can be read: notes.pdf." in said
        folder = chosen(either)
        assert folder.startswith("toy")
        assert sorted(p.name for p in (base_directory / "input" / folder).iterdir()) == [
            "toy-1.png", "toy-2.png", "toy-2.txt", "toy-3.png",
        ]  # fmt: skip
        wait(either, lambda: len(each(either, PHOTOS, ".st-photo img")) == 3)
        assert each(either, PHOTOS, "textarea", "value") == ["", "text of toy-2.txt", ""]
        label = either.execute_script(LOADER + "return folder.options.getOptionLabel(folder.value)")
        assert label == f"{folder} (3 photos)"
        assert [n["inputs"]["folder"] for n in queued_prompt(either).values() if n["class_type"] == "DatasetLoader"] == [folder]

    def test_nothing_is_added_to_a_folder_that_is_not_there(self, either):
        def offered() -> list[str]:
            return each(either, PHOTOS, "button:not([hidden])")

        wait(either, offered, 60)
        assert chosen(either) == "my-photos"  # as the template has it
        assert offered() == ["Add photos …"]
        choose(either, "DatasetLoader", "folder", "plush")
        wait(either, lambda: "Add to this folder …" in offered(), 20)

    def test_what_cannot_be_uploaded_is_told_in_the_language_of_the_page(self, either, server):
        before = chosen(either)
        drop(either, "panel", "notes.pdf")
        wait(either, lambda: "None of these files is a photo that can be read: notes.pdf." in words_of(either), 60)
        set_setting(either, "SubjectTrainer.Language", "uk")
        try:
            open_workflow(either, server.port, read("Train a subject (DreamBooth or LoRA)"))
            wait(either, lambda: "Додати фото" in words_of(either), 60)
            either.execute_script(
                """
                const { api } = window.comfyAPI.api, send = api.fetchApi.bind(api)
                api.fetchApi = (route, options) =>
                  route === "/upload/image" ? Promise.resolve(new Response("", { status: 413 })) : send(route, options)
                """
            )
            drop(either, "panel", "big.png")
            wait(either, lambda: "big.png не завантажено: файл більший, ніж приймає цей ComfyUI" in words_of(either), 60)
            assert chosen(either) == before
        finally:
            set_setting(either, "SubjectTrainer.Language", "page")

    def test_a_drop_that_is_not_taken_is_told(self, page, base_directory):
        """During another upload, of an empty folder, and where photos come through a link."""
        hold = """
        const { api } = window.comfyAPI.api, send = api.fetchApi.bind(api)
        window.letGo = () => (api.fetchApi = send)
        api.fetchApi = (route, options) => {
          if (route !== "/upload/image") return send(route, options)
          return new Promise((resolve) => (window.letGo = () => ((api.fetchApi = send), resolve(send(route, options)))))
        }
        """
        page.execute_script(hold)
        drop(page, "panel", "held-1.png")
        wait(page, lambda: "Uploading 1 of 1" in words_of(page), 60)
        drop(page, "title", "lost-1.png")
        meanwhile = "What was dropped during the upload was not taken"
        wait(page, lambda: meanwhile in words_of(page), 20)
        page.execute_script("window.letGo()")
        wait(page, lambda: "Uploaded to held" in words_of(page), 60)
        assert meanwhile in words_of(page)  # until something else is to be said
        empty = "({ isDirectory: true, name: 'empty', createReader: () => ({ readEntries: (done) => done([]) }) })"
        page.execute_script(f"window.DataTransferItem.prototype.webkitGetAsEntry = () => {empty}")
        drop(page, "title", "empty")
        wait(page, lambda: "The folder that was dropped is empty" in words_of(page), 20)
        before, folders = chosen(page), sorted((base_directory / "input").iterdir())
        for source, name in (("EmptyImage", "images"), ("PrimitiveNode", "folder")):
            wire = (
                LOADER + "const source = window.LiteGraph.createNode(arguments[0]); source.pos = [-900, 600]\n"
                "window.app.graph.add(source); source.connect(0, node, arguments[1])"
            )
            page.execute_script(wire, source, name)
            for target in ("title", "panel"):
                drop(page, target, "lost-2.png")
                wait(page, lambda name=name: f"the photos come through {name}." in words_of(page), 20)
            page.execute_script(LOADER + "node.disconnectInput(node.findInputSlot(arguments[0]))", name)
            wait(page, lambda: "the photos come through" not in words_of(page), 20)
        assert (chosen(page), sorted((base_directory / "input").iterdir())) == (before, folders)

    def test_wired_pictures_put_the_folder_out_of_the_way(self, either):
        choose(either, "DatasetLoader", "folder", "plush")
        wait(either, lambda: "plush-1.jpg" in words_of(either), 60)
        assert shows_folder(either)
        either.execute_script(
            LOADER + 'const source = window.LiteGraph.createNode("EmptyImage"); source.pos = [-900, 600];'
            'window.app.graph.add(source); source.connect(0, node, "images")'
        )
        wait(either, lambda: "The pictures that are wired to images are used, not a folder." in words_of(either), 60)
        wait(either, lambda: not shows_folder(either), 60)
        either.execute_script(LOADER + 'node.disconnectInput(node.findInputSlot("images"))')
        wait(either, lambda: "plush-1.jpg" in words_of(either), 60)
        wait(either, lambda: shows_folder(either), 60)


LOADER = """
const node = window.app.graph.nodes.find((n) => n.type === "DatasetLoader")
const folder = node.widgets.find((w) => w.name === "folder");
"""


def words_of(page) -> str:
    return words(page, "DatasetLoader", "photo_view")


def chosen(page) -> str:
    return page.execute_script(LOADER + "return folder.value")


def shows_folder(page) -> bool:
    """Whether the user sees the choice of a folder."""
    script = """
    const element = document.querySelector(`[data-node-id="${node.id}"]`)
    return element ? element.innerText.includes("folder\\n") : node.isWidgetVisible(folder)
    """
    return page.execute_script(LOADER + script)
