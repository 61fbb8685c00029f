"""The nodes' texts and help pages, in English and Ukrainian, against what the running server says of the nodes."""

import json
import re
import urllib.request

import pytest

from tools.server import HOST
from tools.settings_docs import NODES, widget_default
from tools.setup import ROOT
from tools.translations import ENGLISH, node_defs, pack_nodes
from trainer.run.settings import method_settings

LANGUAGES = ("en", "uk")
MESSAGE_SYNTAX = re.compile(r"[@{}|]")
"""The page compiles names and descriptions as vue-i18n messages, where these mean something else; tooltips stay as they are."""
LABELS = ("display_name", "description", "name")


@pytest.fixture(scope="module")
def nodes(server) -> dict[str, dict]:
    return pack_nodes(server)


@pytest.fixture(scope="module")
def texts(nodes) -> dict[str, str]:
    """What the schemas say, by path: "DreamBoothTrain/inputs/steps/tooltip"."""
    found = {}
    for node_id, node in nodes.items():
        found |= {f"{node_id}/{label}": node[label] for label in ("display_name", "description")}
        for kind in ("required", "optional"):
            for name, (_, options) in node["input"].get(kind, {}).items():
                found[f"{node_id}/inputs/{name}/name"] = options.get("display_name", name)
                found[f"{node_id}/inputs/{name}/tooltip"] = options["tooltip"]
        for number, name in enumerate(node["output_name"]):
            found[f"{node_id}/outputs/{number}/name"] = name
            found[f"{node_id}/outputs/{number}/tooltip"] = node["output_tooltips"][number]
    return found


def read(language: str, file: str = "nodeDefs.json") -> dict:
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def flat(tree: dict, path: str = "") -> dict[str, str]:
    leaves = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}{key}/") if isinstance(value, dict) else {path + key: value}
    return leaves


def page_name(node_id: str, language: str) -> str:
    """The page falls back to the file without a language, so that one is the English."""
    return f"docs/{node_id}.md" if language == "en" else f"docs/{node_id}/{language}.md"


def page(node_id: str, language: str) -> str:
    return (ROOT / "js" / page_name(node_id, language)).read_text(encoding="utf-8")


def test_english_is_what_the_nodes_say(nodes, texts):
    assert nodes
    assert flat(read("en")) == texts
    assert json.loads(ENGLISH.read_text(encoding="utf-8")) == node_defs(nodes)  # what the script would write


def test_ukrainian_has_a_text_for_each(texts):
    ukrainian = flat(read("uk"))
    assert not texts.keys() - ukrainian.keys(), "missing"
    assert not ukrainian.keys() - texts.keys(), "stale"
    for path, text in ukrainian.items():
        if not text.isupper():  # MODEL, CLIP: names
            assert re.search("[а-яґєії]", text), path
            assert not re.search("[ыэъё]", text, re.IGNORECASE), (path, "letters that Ukrainian has not")


def test_ukrainian_names_the_category(nodes):
    names = read("uk", "main.json")["nodeCategories"]
    assert names.keys() == {node["category"] for node in nodes.values()}
    assert all(re.search("[а-яґєії]", name) for name in names.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_have_nothing_that_the_page_would_interpret(language):
    for path, text in flat(read(language)).items():
        assert path.split("/")[-1] not in LABELS or not MESSAGE_SYNTAX.search(text), path


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_that_names_its_inputs(nodes, language):
    known = {name for node in nodes.values() for kind in ("required", "optional") for name in node["input"].get(kind, {})}
    known |= {name for node in nodes.values() for name in node["output_name"]}
    for node_id, node in nodes.items():
        text = page(node_id, language)
        for kind in ("required", "optional"):
            for name in node["input"].get(kind, {}):
                assert f"`{name}`" in text, (node_id, name)
        assert not set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) - known, (node_id, "names of no input or output")


def test_the_tables_of_settings_have_the_defaults_of_the_widgets(nodes):
    for node_id, method in NODES.items():
        inputs = nodes[node_id]["input"]["optional"]
        for name, field in method_settings(method).items():
            assert inputs[name][1]["default"] == widget_default(field), (node_id, name)


def test_the_server_gives_them_out(server, nodes):
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert {node_id: served[language]["nodeDefs"][node_id] for node_id in nodes} == read(language)
        for node_id in nodes:
            url = f"http://{HOST}:{server.port}/extensions/{ROOT.name}/{page_name(node_id, language)}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert answer.status == 200
                assert "html" not in answer.headers.get_content_type()  # the page takes that for a missing file
                assert answer.read().decode() == page(node_id, language)
    assert served["uk"]["nodeCategories"].keys() >= {node["category"] for node in nodes.values()}
