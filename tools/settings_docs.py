"""Write the tables of settings in docs/settings.md and in the help pages anew: what to do when a setting has changed.

    python -m tools.settings_docs

Each setting is said once, in trainer/run/setting_groups.py; its label and tooltip in another language are in that language's
locales/<language>/nodeDefs.json. On a page, the table of a node stands between <!-- settings: its id --> and
<!-- /settings -->; the rest of the page is written by hand.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any

from trainer.run.names import DREAMBOOTH, TEXTUAL_INVERSION
from trainer.run.setting import Setting
from trainer.run.setting_groups import MAX_SAMPLE_PROMPTS
from trainer.run.settings import method_settings, widget_default, widget_options

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = "en"
NODES = {"DreamBoothTrain": DREAMBOOTH, "TextualInversionTrain": TEXTUAL_INVERSION}
"""The method of each training node."""
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Words:
    """What a table says beside the tooltips, in one language."""

    columns: tuple[str, str, str, str]
    advanced: str
    """Heading of the settings that the node hides at first."""
    on: str
    off: str
    bounds: str
    text: str
    empty: str
    lines: str


WORDS = {
    "en": Words(
        columns=("setting", "default", "values", "what it does"),
        advanced="Advanced settings",
        on="on",
        off="off",
        bounds="{low} to {high}",
        text="text",
        empty="empty",
        lines="up to {most} lines",
    ),
    "uk": Words(
        columns=("налаштування", "типово", "значення", "що воно робить"),
        advanced="Розширені налаштування",
        on="увімкнено",
        off="вимкнено",
        bounds="від {low} до {high}",
        text="текст",
        empty="порожньо",
        lines="до {most} рядків",
    ),
}
"""By language: all languages that have help pages."""


def pages() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield each page that has tables, its language, and the ids of the nodes whose tables it has."""
    yield ROOT / "docs" / "settings.md", ENGLISH, list(NODES)
    for node_id in NODES:
        yield ROOT / "js" / "docs" / f"{node_id}.md", ENGLISH, [node_id]
        for path in sorted((ROOT / "js" / "docs" / node_id).glob("*.md")):
            yield path, path.stem, [node_id]


def page_with_tables(text: str, language: str, node_ids: list[str]) -> str:
    """Return the text of a page with the tables as they should be. Raises ValueError when the page has no place for one."""
    for node_id in node_ids:
        begin, end = f"<!-- settings: {node_id} -->", "<!-- /settings -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"The page has no {begin} ... {end}.")
        text = f"{before}{begin}\n\n{tables(node_id, language)}\n\n{end}{after}"
    return text


def tables(node_id: str, language: str) -> str:
    """Return the settings of a node in Markdown: a table of those that are always shown, then one of the advanced ones."""
    method, words = NODES[node_id], WORDS[language]
    labels, tooltips = _texts(node_id, language)
    head = [_row(words.columns), _row(["---"] * len(words.columns))]
    shown, advanced = list(head), list(head)
    for name, field in method_settings(method).items():
        setting: Setting = field.metadata["setting"]
        cells = (labels[name], _shown(widget_default(field), words), _values(field, words), tooltips[name])
        (advanced if setting.advanced else shown).append(_row(cells))
    return "\n".join([*shown, "", f"### {words.advanced}", "", *advanced])


def _texts(node_id: str, language: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return how a language's pages name the settings of a node, and their tooltips, both by the settings' own names."""
    settings = method_settings(NODES[node_id])
    if language == ENGLISH:
        return {name: f"`{name}`" for name in settings}, {name: f.metadata["setting"].tooltip for name, f in settings.items()}
    inputs = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[node_id]["inputs"]
    labels = {name: f"{inputs[name]['name']} (`{name}`)" for name in settings}
    return labels, {name: inputs[name]["tooltip"] for name in settings}


def _values(field: Field, words: Words) -> str:
    """Return which values a setting may have."""
    setting: Setting = field.metadata["setting"]
    if options := widget_options(field):
        return ", ".join(options)
    if field.type is bool:
        return f"{words.on}, {words.off}"
    if setting.multiline:
        return words.lines.format(most=MAX_SAMPLE_PROMPTS)
    if setting.widget_low is None or setting.high is None:
        return words.text
    return words.bounds.format(low=_shown(setting.widget_low, words), high=_shown(setting.high, words))


def _shown(value: Any, words: Words) -> str:
    """Return a value as a reader writes it: on, 800, 2e-6, 0.01."""
    if isinstance(value, bool):
        return words.on if value else words.off
    if isinstance(value, float):
        return re.sub("e-0*", "e-", f"{value:g}")
    return "2^64 - 1" if value == MAX_SEED else str(value) or words.empty


def _row(cells: Sequence[str]) -> str:
    """Return a row of a table; "<run>" and "|" in the cells stay what they are."""
    escaped = (re.sub(r"[<|]", r"\\\g<0>", cell) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def main() -> None:
    """Write the pages that are not as they should be, and name them."""
    for path, language, node_ids in pages():
        text = path.read_text(encoding="utf-8")
        expected = page_with_tables(text, language, node_ids)
        if expected != text:
            path.write_text(expected, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
