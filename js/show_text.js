// Shows, in the node itself, the text that a node of this pack reports: verdicts, results.
// ComfyUI sends it again for cached nodes, so that it is also there after the page was reloaded: in all languages.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"
import { element, panel } from "./panel.js"
import { language, t } from "./words.js"

const NODES = ["DatasetLoader", "DreamBoothTrain", "TextualInversionTrain"]

function report(root) {
  const text = element("div", { className: "st-report", role: "status", label: t("report") })
  root.append(text)
  return text
}

// The report of another run says nothing of the one that begins.
export function clearReport(node) {
  const known = node.widgets.find((widget) => widget.name === "report")
  if (known) known.ours.textContent = ""
}

app.registerExtension({
  name: "subject_trainer.show_text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (output?.text) panel(this, "report", 70, report).textContent = output.told?.[0][language()] ?? output.text[0]
    })
  },
})
