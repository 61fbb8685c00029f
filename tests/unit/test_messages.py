"""The sentences that artists are shown, as they stand in the code, against their translations."""

import ast
import json
import re
import time
from pathlib import Path
from string import Formatter

import pytest

from trainer.messages import LONGEST, translated

ROOT = Path(__file__).parent.parent.parent
UKRAINIAN = json.loads((ROOT / "locales" / "uk" / "messages.json").read_text(encoding="utf-8"))
PROMPTS = ROOT / "trainer" / "templates.py"
SCHEMA = {"choice", "number", "strength", "switch"}
"""Helpers that make a node's inputs: locales/<language>/nodeDefs.json has their texts."""
NOT_SHOWN = {
    # prompts, seeds, keys, and what is drawn into pictures
    "a photo of {{token}} {{class}}",
    "{}, {}",
    "{} {}",
    "class image",
    "hold out",
    "{} {} {}\n",
    "DPM++ 2M, {} steps, guidance {}",
    "step {}",
    # values and settings by their names
    "(pictures wired to images)",
    "own settings",
    "optimizer adamw_8bit",
    "ema_decay 0",
    "{} ({}x{})",
    "%Y-%m-%d %H:%M",
    # captions and foreign errors, shown as they are
    "{}: {}",
    # what errors of libraries are known by
    "CUDA error",
    "\\(os error (28|112)\\)",
    "[Cc]an(no|')t allocate memory|os error 12\\)|not enough memory|can't start new thread",
    "\\w[\\w .-]{{0,63}}",
    # the worker's command line, and its log
    "Train one run directory.",
    "cpu (unless given), cuda:0, mps; cuda under a launcher",
    "stop when stdin has a line, or ends",
    "resuming after step {}",
    "{} is not the folder of a run: it has no run.json.",
    # names
    "Subject Trainer",
    "SD v1.5",
}


def template(node: ast.AST) -> str | None:
    """A string as it stands in the code, with {} for what varies and braces of its own doubled; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def is_left_out(node: ast.AST) -> bool:
    """Docstrings, what only the log is told, what the schemas say."""
    name = called(node)
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or name.startswith(("io.", "log.")) or name.endswith(".Input") or name in SCHEMA


def strings(node: ast.AST) -> list[str]:
    """All that the code below the node may say. A phase of the worker begins with a capital where it is shown."""
    if is_left_out(node):
        return []
    if called(node).endswith(".phase"):
        return [text[0].upper() + text[1:] for text in (template(node.args[0]),) if text]
    own = template(node)
    inner = ast.iter_child_nodes(node)
    if isinstance(node, ast.JoinedStr):  # its literal parts are told already
        inner = (part.value for part in node.values if isinstance(part, ast.FormattedValue))
    return [*([own] if own else []), *(text for child in inner for text in strings(child))]


def progress(tree: ast.AST) -> set[str]:
    """What stands below a node while it works."""
    calls = [node for node in ast.walk(tree) if called(node).endswith((".phase", ".text"))]
    return {text for call in calls for text in strings(call)[:1] if template(call.args[0])}


@pytest.fixture(scope="module")
def trees() -> list[ast.AST]:
    paths = [path for folder in ("nodes", "trainer") for path in (ROOT / folder).glob("*.py") if path != PROMPTS]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def test_ukrainian_has_every_sentence(trees):
    """A new text is either translated or named in NOT_SHOWN."""
    said = {text for tree in trees for text in strings(tree)}
    shown = {text for text in said if " " in text.strip()} | {text for tree in trees for text in progress(tree)}
    known = {english.replace("{:n}", "{}") for english in UKRAINIAN}
    assert shown - known - NOT_SHOWN == set(), "missing"
    assert known - said == set(), "stale"
    assert NOT_SHOWN - said == set(), "stale"


def fields(sentence: str) -> list[str]:
    """Its places for what varies: "" in order, or by number."""
    return [field for _, field, _, _ in Formatter().parse(sentence) if field is not None]


def test_a_translation_tells_all_that_the_sentence_does():
    for english, ukrainian in UKRAINIAN.items():
        retold = fields(ukrainian)
        assert retold == fields(english) or sorted(retold) == [str(number) for number in range(len(fields(english)))], english
        assert not re.search("[ыэъё]", ukrainian, re.IGNORECASE), (english, "letters that Ukrainian has not")


def test_what_varies_is_translated_where_it_is_known():
    text = (
        "2 of 15 images cannot be read: a.heic (unsupported format), training.png (empty file) and 3 more. "
        "Convert them to jpg or png, or remove them."
    )
    assert translated(text, "uk") == (
        "Не вдається прочитати зображень: 2 з 15: a.heic (непідтримуваний формат), training.png (порожній файл) і ще 3. "
        "Перетворіть їх на jpg чи png або приберіть."
    )
    assert translated(text, "en") == text
    text = "Training: step 120 of 800, loss 0.1234 · 3 min left"
    assert translated(text, "uk") == "Навчання: крок 120 з 800, втрати 0.1234 · залишилося 3 хв"
    assert translated("Finished\nsomething else", "uk") == "Завершено\nsomething else"


@pytest.mark.parametrize(("pages", "quotes"), [("*.md", '"([^"]+)"'), ("*/uk.md", "«([^»]+)»")], ids=["en", "uk"])
def test_help_pages_quote_what_is_said(pages, quotes):
    """Word for word, in the bold beginnings of their lists of troubles; what varies is left out or an example there."""
    sentences = list(UKRAINIAN) if pages == "*.md" else list(UKRAINIAN.values())
    found = 0
    for path in (ROOT / "js" / "docs").glob(pages):
        for bold in re.findall(r"\*\*(.+?)\*\*", path.read_text(encoding="utf-8"), re.DOTALL):
            for quote in re.findall(quotes, bold):
                words = [word for word in re.findall(r"[^\W\d_]{4,}", quote) if not word.isupper()]
                assert any(all(word in sentence for word in words) for sentence in sentences), (path.name, quote)
                found += 1
    assert found > 20


def test_lists_and_numbers_are_told_apart():
    assert translated("Buckets: 3 of 512x512, 2 of 448x576", "uk") == "Розміри bucket: 3 по 512x512, 2 по 448x576"
    foreign = "RuntimeError: The size of tensor a (2) must match the size of tensor b (3)"
    assert translated(foreign, "uk") == foreign
    assert translated("cannot be read: damaged: out of memory", "uk") == "не вдається прочитати: пошкоджений: out of memory"
    assert translated("4 photos, 1 caption, ready", "uk") == "Фото: 4, підписів: 1, готово"


def test_what_somebody_has_written_stays_as_it_is():
    told = translated("The caption 'a dog, blurry, a toy model, outdoors' does not contain the token 'weights'.", "uk")
    assert told == "Підпис 'a dog, blurry, a toy model, outdoors' не містить токена 'weights'."
    assert translated("There is no run '{0}{x}'.", "uk") == "Запуску '{0}{x}' немає."
    long = "1 of 2 images cannot be read: " + "x" * LONGEST
    assert translated(long, "uk") == long


@pytest.mark.parametrize(
    "hostile",
    [
        "There is no run x, " + "a (" * 40 + ")" * 40 + ".",
        "damaged: " * 100,
        " and 3 more" * 80,
        "x is y; it must be between " * 30,
        " is not complete: of its  tensors are missing, for example " * 15,
        "a (b), " * 140,
    ],
    ids=range(6),
)
def test_hostile_text_takes_no_time(hostile):
    """Of the processor, not of the clock: a machine that is busy elsewhere must not fail this."""
    began = time.process_time()
    translated(hostile, "uk")
    assert time.process_time() - began < 3
