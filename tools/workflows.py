"""Write the shipped workflows anew: what to do when a node's widgets have changed.

    python -m tools.workflows

Each workflows/*.json is opened in ComfyUI's own page and saved again with the widgets that the nodes have now, the training
nodes as high as these need, and so is its API-format twin in workflows/api/. Needs Chromium and chromedriver.
"""

import json
import tempfile
from pathlib import Path

from .browser import open_browser, open_workflow, queued_prompt
from .server import Server, free_port
from .setup import ROOT

WORKFLOWS = ROOT / "workflows"
FIT = """
for (const node of window.app.graph.nodes.filter((n) => ["DreamBoothTrain", "TextualInversionTrain"].includes(n.type)))
  node.setSize([node.size[0], node.computeSize()[1]])
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(Path(base), port=free_port(), cpu=True) as server:
        browser = open_browser()
        try:
            for path in sorted(WORKFLOWS.glob("*.json")):
                open_workflow(browser, server.port, json.loads(path.read_text(encoding="utf-8")))
                browser.execute_script(FIT)
                graph, twin = browser.execute_script("return window.app.graph.serialize()"), queued_prompt(browser)
                del graph["id"]  # the page gives each copy that is opened one of its own
                graph["extra"]["subject_trainer_template"] = True  # which it forgets: js/views/opened_template.js
                path.write_text(json.dumps(graph, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                (WORKFLOWS / "api" / path.name).write_text(json.dumps(twin, indent=2) + "\n", encoding="utf-8")
                print(path.relative_to(ROOT))
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
