// @ts-check
// Widget values are saved by name too. ComfyUI's own list of them is by position, which changes when a node gets a new widget.
import { app } from "../../../scripts/app.js"
import { after } from "../common/hooks.js"
import { ALL } from "../common/node_types.js"
import { savedByName, valuesByName } from "../logic/widgets.js"

const PROPERTY = "subject_trainer_values"
/** What older versions saved with a node: its author's last run. */
const OLD = "subject_trainer_run"

/** What the widgets of a node are made with. @type {WeakMap<Comfy.Node, Record<string, any>>} */
const made = new WeakMap()

app.registerExtension({
  name: "subject_trainer.saved_values",
  nodeCreated(node) {
    if (ALL.includes(node.comfyClass)) made.set(node, valuesByName(node))
  },
  // At the prototype, so that the widgets have their values before any view of a node is called.
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!ALL.includes(nodeData.name)) return
    after(nodeType.prototype, "onSerialize", function (saved) {
      saved.properties[PROPERTY] = valuesByName(this)
    })
    after(nodeType.prototype, "onConfigure", function (saved) {
      const values = savedByName(made.get(this) ?? {}, saved.properties?.[PROPERTY])
      for (const widget of this.widgets ?? []) if (widget.name in values) widget.value = values[widget.name]
      delete this.properties[OLD]
      delete this.properties[PROPERTY] // It would only grow old: the widgets have the values.
    })
  },
})
