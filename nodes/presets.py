"""The presets of DreamBoothTrain: values of its widgets, which the page fills in."""

import json
from pathlib import Path

from comfy_api.latest import io

PRESETS: dict[str, dict] = json.loads((Path(__file__).parent.parent / "js" / "presets.json").read_text(encoding="utf-8"))
OWN = "own settings"


def preset_input() -> io.Input:
    """Return the widget that chooses a preset."""
    return io.Combo.Input(
        "preset",
        optional=True,
        options=[OWN, *PRESETS],
        default=OWN,
        tooltip="Fills in the widgets of this node: the study's run, the paper's, or what fits a 12 GB or an 8 GB card. It sets "
        "nothing that you cannot see and change.",
    )
