"""What users read: every sentence is a template with its values, every template has a translation, and both can be filled in."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest

from trainer.dataset.folder import read_folder
from trainer.dataset.named import listed
from trainer.run.messages import Message, MessageError, UserError, message

ROOT = Path(__file__).parent.parent.parent
UKRAINIAN = json.loads((ROOT / "locales" / "uk" / "messages.json").read_text(encoding="utf-8"))
PROMPTS = ROOT / "trainer" / "dataset" / "prompt_templates.py"
WORDINGS = ROOT / "trainer" / "run" / "memory_errors.py"
"""How libraries word that memory ran out; no sentence of ours is in it."""
SCHEMA = {"jitter_input", "preset_input", "setting"}
"""Helpers that make a node's inputs: locales/<language>/nodeDefs.json has their texts."""
LOGGERS = {"log", "logger", "logging"}
PROGRAMMER_ERRORS = {
    "There are no settings {}.",
    # why something is not what this version has written: at most a part of a sentence
    "This is not a message, or its parts lie too deep in each other.",
    "A message has a template and values.",
    "The template of the message has fields that cannot be filled in.",
    "A value of the message does not suit its field: {}",
    "A value of a message is text, a number, a message or a list of these.",
    "The message is too long.",
    "sample_prompts is not a list of texts",
    "a name or path is not text",
}
"""What is raised as a finished English sentence, with {} for what varies, because no user is meant to read it by itself."""
NOT_SHOWN = {
    # prompts, seeds, keys, and what is drawn into pictures
    "a photo of {{token}} {{class}}",
    "{}, {}",
    "{} {}",
    "{} {} {}",
    "class image",
    "hold out",
    "{} {} {}\n",
    "DPM++ 2M, {} steps, guidance {}, fp32 latents",
    "step {}",
    # values and settings by their names
    "(pictures wired to images)",
    "(no folder with photos yet)",
    "textual inversion",
    "0123456789-_ ()",
    "own settings",
    "study, 24 GB",
    "paper, 24 GB",
    "12 GB card",
    "8 GB card (LoRA)",
    "%Y-%m-%d %H:%M",
    # for the log alone
    "The run in {} is passed over: {}",
    # captions and foreign errors, shown as they are
    "{}: {}",
    "{} ({}/{})",
    # what the user types
    "pip install --force-reinstall bitsandbytes",
    '"{}" -m pip install -r "{}"',
    '"{}" -m pip install {}{}',
    "--force-reinstall --no-deps ",
    "import sys; sys.path.insert(0, sys.argv[1]); from trainer.run.eight_bit import main; main(sys.argv[2])",
    # what errors of libraries are known by
    "CUDA error",
    "\\(os error (28|112)\\)",
    # the worker's command line, and its log
    "Train one run directory.",
    "cpu (unless given), cuda:0, xpu:0, mps; cuda under a launcher",
    "begin when stdin says so, stop when it ends",
    "resuming after step {}",
    "[rank {}] ",
    "{} is not the folder of a run: it has no run.json.",
    # lines that host and worker exchange
    "go on",
    # names
    "Subject Trainer",
    "JPEG XL",
    "JPEG 2000",
}
"""Strings with a blank that are no messages: not said to users, or the same in every language."""


@dataclass(frozen=True)
class Said:
    """A call that makes a message: message(...), an error with a message, or a reporter's warning."""

    where: str
    """File and line."""
    template: str | None
    """None when it is not a constant."""
    names: frozenset[str]
    """The values that the call gives."""
    complete: bool
    """Whether `names` are all: no ** passes further ones."""


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def called(node: ast.AST) -> str:
    """The callee as it stands in the code; empty for what is no call."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def error_classes(trees: dict[str, ast.Module]) -> tuple[set[str], set[str]]:
    """Names of all subclasses of MessageError, and of those of them that write their template themselves."""
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known, own = {"MessageError"}, set()
    while True:
        more = {c.name for c in classes if known & {ast.unparse(base).rpartition(".")[2] for base in c.bases}} - known
        if not more:
            break
        known |= more
    for node in classes:
        if node.name in known - {"MessageError"} and any(getattr(part, "name", "") == "__init__" for part in node.body):
            own.add(node.name)
    return known, own


def message_makers(trees: dict[str, ast.Module]) -> set[str]:
    """Names of what is called with a template."""
    errors, own = error_classes(trees)
    return {"message", "Message", *(errors - own)}


def makes_message(call: ast.Call, makers: set[str]) -> bool:
    callee = ast.unparse(call.func)
    receiver, _, name = callee.rpartition(".")
    if name == "warning":
        return receiver not in LOGGERS
    return callee in makers or name in makers


def constant(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def message_calls(trees: dict[str, ast.Module]) -> list[Said]:
    """Every call that makes a message, apart from those that hand on the `template` or the whole message that they were given."""
    own = error_classes(trees)[1]
    makers = message_makers(trees)
    calls: list[Said] = []

    def visit(node: ast.AST, path: str, in_own: bool, hands_on: bool) -> None:
        if isinstance(node, ast.ClassDef):
            in_own = node.name in own
        if isinstance(node, ast.FunctionDef):
            hands_on = "template" in {argument.arg for argument in (*node.args.posonlyargs, *node.args.args)}
        if isinstance(node, ast.Call) and makes_message(node, makers | ({"super().__init__"} if in_own else set())):
            first = node.args[0] if node.args else None
            if not (hands_on and isinstance(first, ast.Name) and first.id == "template") and not raises_whole(node):
                calls.append(said(node, first, path))
        for child in ast.iter_child_nodes(node):
            visit(child, path, in_own, hands_on)

    for path, tree in trees.items():
        visit(tree, path, False, False)
    return calls


def raises_whole(call: ast.Call) -> bool:
    """Whether an error is made of a whole message that came from elsewhere: Error(x.template, **x.values)."""
    values = [keyword.value for keyword in call.keywords if keyword.arg is None]
    whole = [ast.unparse(node) for node in (*call.args, *values)]
    return len(whole) == 2 and whole == [f"{whole[0].rpartition('.')[0]}.{part}" for part in ("template", "values")]


def said(call: ast.Call, first: ast.AST | None, path: str) -> Said:
    names = {keyword.arg for keyword in call.keywords}
    complete = None not in names and len(call.args) == 1
    if len(call.args) == 2 and isinstance(call.args[1], ast.Dict):  # Message(template, {...})
        keys = {constant(key) for key in call.args[1].keys}
        names, complete = names | keys, None not in keys
    return Said(f"{path}:{call.lineno}", constant(first), frozenset(name for name in names if name), complete)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    paths = [path for folder in ("nodes", "trainer") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@pytest.fixture(scope="module")
def calls(trees) -> list[Said]:
    return message_calls(trees)


SAMPLE = """
class UserError(MessageError, ValueError): "A docstring with blanks"
class Refused(errors.UserError): pass
class Conflict(MessageError):
    def __init__(self, caption: "a type"):
        super().__init__("changed to {caption}", caption=caption)
raise Refused("one {a} " "two", a=1)
raise Conflict("their words")
reporter.warning("slow: {reason}", **values)
log.warning("for the log")
found = message(f"not {constant}"), message(words)
Message("{a}", {"a": message("within"), "b": "plain words"})
def warn(template, /, **values): return Message(template, values)
raise Refused(reason.template, **reason.values)
raise Refused(reason.template, **other.values)
raise ValueError(f"no {thing} here")
raise OSError(2, "nowhere" + name)
"""


def test_the_walk_finds_what_is_said():
    sample = {"sample.py": ast.parse(SAMPLE)}
    assert [(call.template, sorted(call.names), call.complete) for call in message_calls(sample)] == [
        ("changed to {caption}", ["caption"], True),
        ("one {a} two", ["a"], True),
        ("slow: {reason}", [], False),
        (None, [], True),
        (None, [], True),
        ("{a}", ["a", "b"], True),
        ("within", [], True),
        (None, [], False),
    ]
    assert raised(sample) == {"no {} here", "nowhere"}
    makers = {*message_makers(sample), "super().__init__"}
    assert [text for text in strings(sample["sample.py"], makers) if " " in text] == [
        "their words",
        "plain words",
        "no {} here",
    ]


def fields(template: str) -> set[tuple[str, str, str | None]]:
    """Name, format and conversion of what varies in a template."""
    return {(name, spec or "", conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None}


def names(template: str) -> set[str]:
    return {name for name, _, _ in fields(template)}


def test_templates_are_constants(calls):
    """An f-string would be looked up with its values filled in, and so never be found."""
    assert [call.where for call in calls if call.template is None] == []
    assert len(calls) > 100


def test_ukrainian_has_every_template_and_no_other(calls):
    templates = {call.template for call in calls}
    assert templates - set(UKRAINIAN) == set(), "missing"
    assert set(UKRAINIAN) - templates == set(), "stale"


def test_every_call_gives_the_values_that_its_template_names(calls):
    for call in calls:
        if call.template is None:
            continue
        wanted = names(call.template)
        assert all(name.isidentifier() for name in wanted), (call.where, call.template)
        assert call.names == wanted if call.complete else call.names <= wanted, (call.where, call.template)


def test_a_translation_has_the_same_fields_in_the_same_formats():
    for english, ukrainian in UKRAINIAN.items():
        assert fields(ukrainian) == fields(english), english
        assert not re.search("[ыэъё]", ukrainian, re.IGNORECASE), (english, "letters that Ukrainian has not")


def text_of(node: ast.AST) -> str | None:
    """A string as it stands in the code, with {} for what varies and braces of its own doubled; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def is_left_out(node: ast.AST) -> bool:
    """Docstrings, what only the log is told, what the schemas say."""
    name = called(node)
    return is_docstring(node) or name.startswith(("io.", "log.")) or name.endswith(".Input") or name in SCHEMA


def strings(node: ast.AST, makers: set[str]) -> list[str]:
    """All strings below the node that are neither the template of a message nor a type."""
    if is_left_out(node):
        return []
    inner = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Call) and makes_message(node, makers):
        inner = [*node.args[1:], *node.keywords]
    if isinstance(node, ast.JoinedStr):  # its literal parts are in its own text
        inner = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
    types = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    text = text_of(node)
    return [*([text] if text else []), *(found for child in inner if child not in types for found in strings(child, makers))]


@pytest.fixture(scope="module")
def sentences(trees) -> set[str]:
    """All strings with a blank that are no message."""
    makers = {*message_makers(trees), "super().__init__"}
    shown = [tree for path, tree in trees.items() if ROOT / path not in (PROMPTS, WORDINGS)]
    return {text for tree in shown for text in strings(tree, makers) if " " in text.strip()}


def raised(trees: dict[str, ast.Module]) -> set[str]:
    """The finished sentences, or words, of all errors that are raised without a message."""
    errors, _ = error_classes(trees)
    exceptions = [node.exc for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    plain = [call for call in exceptions if isinstance(call, ast.Call) and called(call).rpartition(".")[2] not in errors]
    given = [argument for call in plain for argument in (*call.args, *(keyword.value for keyword in call.keywords))]
    makers = message_makers(trees)
    texts = {text for argument in given for text in strings(argument, makers)}
    return {text for text in texts if re.search(r"[^\W\d_]{2}", text)}


def test_errors_that_users_can_cause_have_a_message(trees):
    without_message = raised(trees)
    assert without_message - PROGRAMMER_ERRORS == set(), "raise a UserError, or name it in PROGRAMMER_ERRORS"
    assert PROGRAMMER_ERRORS - without_message == set(), "stale"


def test_nothing_is_said_past_the_messages(sentences):
    """A string with a blank is the template of a message, or named in NOT_SHOWN."""
    assert sentences - NOT_SHOWN - PROGRAMMER_ERRORS == set(), "make a message of it, or name it in NOT_SHOWN"
    assert NOT_SHOWN - sentences == set(), "stale"


def test_what_stands_below_a_node_while_it_works_is_a_message(trees):
    """Single words too."""
    makers = message_makers(trees)
    calls = [node for tree in trees.values() for node in ast.walk(tree) if called(node).endswith((".text", ".show"))]
    texts = {text for call in calls for argument in call.args for text in strings(argument, makers)}
    assert texts - NOT_SHOWN == set()
    assert len(calls) > 5


@pytest.mark.parametrize(("pages", "quotes"), [("*.md", '"([^"]+)"'), ("*/uk.md", "«([^»]+)»")], ids=["en", "uk"])
def test_help_pages_quote_what_is_said(pages, quotes):
    """Word for word, in the bold beginnings of their lists of troubles; what varies is left out or an example there."""
    templates = UKRAINIAN if pages == "*.md" else UKRAINIAN.values()
    sentences = [" ".join(text for text, *_ in Formatter().parse(template)) for template in templates]
    found = 0
    for path in (ROOT / "js" / "docs").glob(pages):
        for bold in re.findall(r"\*\*(.+?)\*\*", path.read_text(encoding="utf-8"), re.DOTALL):
            for quote in re.findall(quotes, bold):
                words = [word for word in re.findall(r"[^\W\d_]{4,}", quote) if not word.isupper()]
                assert any(all(word in sentence for word in words) for sentence in sentences), (path.name, quote)
                found += 1
    assert found > 20


def test_a_refusal_is_said_in_either_language_to_its_innermost_part(tmp_path):
    (tmp_path / "a.jxl").write_bytes(b"whatever")
    (tmp_path / "training.png").touch()
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, 64)
    assert str(error.value) == (
        "2 of 2 images cannot be read: a.jxl (unsupported format), training.png (empty file). "
        "Where nothing else is said, convert them to jpg or png, or remove them."
    )
    assert error.value.message.text(UKRAINIAN) == (
        "Не вдається прочитати зображень: 2 з 2: a.jxl (непідтримуваний формат), training.png (порожній файл). "
        "Де не сказано іншого, перетворіть їх на jpg чи png або приберіть."
    )


def test_lists_and_the_rest_of_them_are_said_in_the_language():
    many = listed([message("{name} ({width}x{height})", name=f"{n}.png", width=n, height=8) for n in range(1, 24)])
    note = message(
        "{small} of {total} photos are smaller than {resolution} pixels and will be enlarged: {photos}.",
        small=23,
        total=30,
        resolution=64,
        photos=many,
    )
    assert str(note).startswith("23 of 30 photos are smaller than 64 pixels and will be enlarged: 1.png (1x8), 2.png (2x8), ")
    assert str(note).endswith("20.png (20x8) and 3 more.")
    assert note.text(UKRAINIAN).startswith("Фото, менших за 64 пікселів: 23 з 30; їх буде збільшено: 1.png (1x8), 2.png (2x8), ")
    assert note.text(UKRAINIAN).endswith("20.png (20x8) і ще 3.")
    sizes = [message("{count} of {width}x{height}", count=c, width=w, height=h) for c, w, h in ((3, 512, 512), (2, 448, 576))]
    assert str(message("Buckets: {sizes}", sizes=sizes)) == "Buckets: 3 of 512x512, 2 of 448x576"
    assert message("Buckets: {sizes}", sizes=sizes).text(UKRAINIAN) == "Розміри bucket: 3 по 512x512, 2 по 448x576"


def test_messages_lie_in_messages():
    nested = message("cannot be read: {reason}", reason=message("damaged: {reason}", reason="out of memory"))
    assert str(nested) == "cannot be read: damaged: out of memory"
    assert nested.text(UKRAINIAN) == "не вдається прочитати: пошкоджений: out of memory"


def test_what_the_catalog_lacks_stays_english():
    partly = message("damaged: {reason}", reason=message("no such sentence of {number:.1f}", number=2))
    assert partly.text(UKRAINIAN) == "пошкоджений: no such sentence of 2.0"
    assert partly.text({}) == str(partly) == "damaged: no such sentence of 2.0"


def test_what_somebody_has_written_stays_as_it_is():
    """Also where it reads like a sentence of ours, or like a template."""
    for name in ("blurry", "{0}{x}", "{run!r}", "{", "}}", "a dog, blurry, a toy model, outdoors", "it's \\ \n"):
        assert message("There is no run {run!r}.", run=name).text(UKRAINIAN) == f"Запуску {name!r} немає."
        assert message("the same photo as {name}", name=name).text(UKRAINIAN) == f"те саме фото, що й {name}"
        assert str(message("the same photo as {name}", name=name)) == f"the same photo as {name}"


def test_an_error_carries_its_message_and_is_english_by_itself():
    error = UserError("There is no run {run!r}.", run="x")
    assert str(error) == "There is no run 'x'."
    assert error.message == message("There is no run {run!r}.", run="x")
    assert isinstance(error, ValueError)
    assert isinstance(error, MessageError)


@pytest.mark.parametrize(
    "written",
    [
        message("no caption"),
        message("small: {width}x{height}", width=3, height=4),
        message("{a:.1f} {b:g} {c!r} {d}", a=1.25, b=1e-6, c="it's", d=True),
        message("{list}", list=["a", 2, message("damaged: {reason}", reason=message("empty file"))]),
        message("{items} and {more} more", items=("a", "b"), more=3),
        message("{{token}} in {template!r}", template="{class}"),
    ],
    ids=str,
)
def test_a_message_survives_json(written):
    read = Message.from_json(json.loads(json.dumps(written.to_json())))
    assert str(read) == str(written)
    assert read.text(UKRAINIAN) == written.text(UKRAINIAN)


def nested(depth: int) -> dict:
    inner: dict = {"template": "x", "values": {}}
    for _ in range(depth):
        inner = {"template": "{a}", "values": {"a": inner}}
    return inner


def nested_list(depth: int) -> dict:
    inner: object = "x"
    for _ in range(depth):
        inner = [inner]
    return {"template": "{a}", "values": {"a": inner}}


def multiplied(depth: int) -> dict:
    """Ten copies of itself in each layer: 10^depth at the bottom."""
    inner: dict = {"template": "ha", "values": {}}
    for _ in range(depth):
        inner = {"template": "{a}" * 10, "values": {"a": inner}}
    return inner


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        "a sentence",
        3,
        [],
        {},
        {"template": "x"},
        {"template": None, "values": {}},
        {"template": ["x"], "values": {}},
        {"template": "x", "values": []},
        {"template": "{a}", "values": {}},
        {"template": "{a}", "values": {"a": None}},
        {"template": "{a}", "values": {"a": {}}},
        {"template": "{a}", "values": {"a": {"template": "{b}", "values": {"a": 1}}}},
        {"template": "{a}", "values": {"a": [{"template": "{b}", "values": {}}]}},
        {"template": "{a", "values": {"a": 1}},
        {"template": "a}", "values": {"a": 1}},
        {"template": "{}", "values": {"": 1}},
        {"template": "{0}", "values": {"0": 1}},
        {"template": "{a.b}", "values": {"a.b": 1}},
        {"template": "{a.__class__}", "values": {"a": "x", "a.__class__": 1}},
        {"template": "{a[0]}", "values": {"a": "x", "a[0]": 1}},
        {"template": "{a!s:>9}", "values": {"a": "x"}},
        {"template": "{a!a}", "values": {"a": "x"}},
        {"template": "{a:{b}}", "values": {"a": 1, "b": "9"}},
        {"template": "{a:999999999}", "values": {"a": 1}},
        {"template": "{a:.999999999f}", "values": {"a": 1.0}},
        {"template": "{a:.1f}", "values": {"a": "x"}},
        {"template": "{a:d}", "values": {"a": 0.5}},
        {"template": "{a:d}", "values": {"a": float("inf")}},
        {"template": "{a:.1f}", "values": {"a": 10**400}},
        {"template": "{a}", "values": {"a": 10**5000}},
        {"template": "{a:.1f}", "values": {"a": [1.0]}},
        nested(9),
        nested(600),
        nested_list(9),
        nested_list(600),
        multiplied(7),
    ],
    ids=range(37),
)
def test_a_hostile_message_is_refused(hostile):
    """It may come from somebody else's run directory."""
    with pytest.raises(ValueError, match=r".") as error:
        Message.from_json(hostile)
    assert len(str(error.value)) < 1000


def test_a_message_is_as_deep_as_ours_are():
    assert str(Message.from_json(nested(6))) == "x"
    assert str(Message.from_json(nested_list(6))) == "x"


def test_one_is_singular_in_english_and_names_are_left_alone():
    text = message("{name}: {steps} steps for {photos} photos", name="1 photos", steps=1, photos=2)
    assert str(text) == "1 photos: 1 step for 2 photos"
    assert str(message("{count} class images", count=1)) == "1 class image"
    assert str(message("{a} of {b} photos are small", a=1, b=1)) == "1 of 1 photos are small"
    assert message("{count} photos", count=1).text(UKRAINIAN) == "Фото: 1"
