// @ts-check
// On the canvas, an advanced widget is hidden while it has its default, until the user asks for all of them: what was changed
// is always visible. Where nodes are elements of the page, ComfyUI itself hides advanced widgets.
import { app } from "../../../scripts/app.js"
import { after } from "../common/hooks.js"
import { t } from "../common/i18n.js"
import { DATASET, TRAINING } from "../common/node_types.js"
import { isHidden } from "../logic/widgets.js"

const NODES = [DATASET, ...TRAINING]
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets"

/** @type {WeakMap<Comfy.Node, { button: Comfy.Widget, defaults: Map<Comfy.Widget, unknown> }>} */
const managed = new WeakMap()

/** @param {Comfy.Node} node */
function update(node) {
  const found = managed.get(node)
  if (!found) return
  const showAll = Boolean(node.showAdvanced || app.extensionManager?.setting?.get(ALWAYS))
  for (const [widget, initial] of found.defaults) {
    const linked = node.getSlotFromWidget(widget)?.link != null
    widget.hidden = isHidden({ value: widget.value, initial, linked, showAll })
  }
  const count = [...found.defaults.keys()].filter((widget) => widget.hidden).length
  found.button.label = node.showAdvanced ? t("fewer_settings") : t("more_settings", { count })
  node.setDirtyCanvas(true, true)
}

/**
 * Hide and show the node's advanced widgets by their values, and make the node as much taller or lower.
 * @param {Comfy.Node} node
 */
function fitAdvanced(node) {
  if (!managed.has(node)) return
  const before = node.computeSize()[1]
  update(node)
  node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before])
}

/** @param {Comfy.Node} node */
function toggle(node) {
  node.graph?.beforeChange()
  node.showAdvanced = !node.showAdvanced
  fitAdvanced(node)
  node.graph?.afterChange()
}

app.registerExtension({
  name: "subject_trainer.advanced",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass) || window.LiteGraph.vueNodesMode) return
    const advanced = node.widgets?.filter((widget) => widget.options?.advanced) ?? []
    const button = node.addWidget("button", "advanced", null, () => toggle(node), { serialize: false })
    button.serialize = false
    managed.set(node, { button, defaults: new Map(advanced.map((widget) => [widget, widget.value])) })
    fitAdvanced(node)
    // Loading a workflow calls both of these, after it gave the node the size that was saved: the size must stay.
    for (const method of ["onConfigure", "onConnectionsChange"]) after(node, method, () => update(node))
  },
})
