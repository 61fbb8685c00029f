"""Write locales/en/nodeDefs.json anew: what to do when a node, an input, an output or one of their texts has changed.

    python -m tools.translations

The English texts are those of the nodes themselves, as the server gives them out in /object_info. ComfyUI's page looks them up
under these keys in the user's language, so every other language has the same keys. Bring locales/uk/nodeDefs.json and the
pages in js/docs/ up to date by hand: tests/host/test_translations.py names what is missing there or no longer needed. The tables
of settings in these pages are written by `python -m tools.settings_docs`.
"""

import json
import tempfile
from pathlib import Path

from .server import Server, free_port
from .setup import ROOT

ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def pack_nodes(server: Server) -> dict[str, dict]:
    """What /object_info says of this pack's nodes, by their ids."""
    nodes = server.get("/object_info")
    return {name: node for name, node in nodes.items() if node["python_module"] == f"custom_nodes.{ROOT.name}"}


def node_defs(nodes: dict[str, dict]) -> dict[str, dict]:
    """The same as nodeDefs.json has it: inputs by name, outputs by number."""
    defs = {}
    for node_id, node in nodes.items():
        specs = {name: spec for kind in ("required", "optional") for name, spec in node["input"].get(kind, {}).items()}
        outputs = enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
        defs[node_id] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                name: {"name": options.get("display_name", name), "tooltip": options["tooltip"]}
                for name, (_, options) in specs.items()
            },
            "outputs": {str(number): {"name": name, "tooltip": tooltip} for number, (name, tooltip) in outputs},
        }
    return defs


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(Path(base), port=free_port(), cpu=True) as server:
        defs = node_defs(pack_nodes(server))
    ENGLISH.parent.mkdir(parents=True, exist_ok=True)
    ENGLISH.write_text(json.dumps(defs, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(ENGLISH.relative_to(ROOT))


if __name__ == "__main__":
    main()
