// Shows, in the node itself, the text that a node of this pack reports: verdicts, results.
// ComfyUI sends it again for cached nodes, so that it is also there after the page was reloaded.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"

const NODES = ["DatasetLoader", "DreamBoothTrain", "TextualInversionTrain"]
const WIDGET = "report"

function addReport(node) {
  const element = document.createElement("textarea")
  element.readOnly = true
  element.className = "comfy-multiline-input"
  element.ariaLabel = `What ${node.title} reports`
  const widget = node.addDOMWidget(WIDGET, "text", element, {
    serialize: false,
    getMinHeight: () => 60,
  })
  widget.serialize = false // neither in the workflow file nor in the queued prompt
  return widget
}

app.registerExtension({
  name: "subject_trainer.show_text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (!output?.text) return
      const widget = this.widgets?.find((w) => w.name === WIDGET) ?? addReport(this)
      widget.element.value = output.text.join("\n")
      this.setDirtyCanvas(true)
    })
  },
})
