// On the canvas, advanced widgets that have their default are hidden until asked for: what was changed is always seen.
// The renderer of elements hides advanced widgets itself.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"
import { t } from "./words.js"

const NODES = ["DatasetLoader", "DreamBoothTrain", "TextualInversionTrain"]
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets"
const known = new WeakMap() // of a node: its button, and the defaults of its advanced widgets

function hideUnused(node) {
  const { button, defaults } = known.get(node)
  for (const [widget, value] of defaults) {
    const used = widget.value !== value || node.getSlotFromWidget(widget)?.link != null
    widget.hidden = !(used || node.showAdvanced || app.extensionManager?.setting?.get(ALWAYS))
  }
  const count = [...defaults.keys()].filter((widget) => widget.hidden).length
  button.label = node.showAdvanced ? t("fewer_settings") : t("more_settings", { count })
  node.setDirtyCanvas(true, true)
}

// The same, and the node becomes as much taller or lower.
export function fitAdvanced(node) {
  if (!known.has(node)) return
  const before = node.computeSize()[1]
  hideUnused(node)
  node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before])
}

app.registerExtension({
  name: "subject_trainer.advanced",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass) || window.LiteGraph.vueNodesMode) return
    const defaults = new Map(node.widgets.filter((w) => w.options?.advanced).map((w) => [w, w.value]))
    const toggle = () => {
      node.graph.beforeChange()
      node.showAdvanced = !node.showAdvanced
      fitAdvanced(node)
      node.graph.afterChange()
    }
    const button = node.addWidget("button", "advanced", null, toggle, { serialize: false })
    button.serialize = false
    known.set(node, { button, defaults })
    fitAdvanced(node)
    // Loading a workflow calls both: there the size was saved with the rest.
    for (const method of ["onConfigure", "onConnectionsChange"]) after(node, method, () => hideUnused(node))
  },
})
