// @ts-check
// A number widget holds what was typed into it. By itself, ComfyUI's page keeps as many decimals as the step of its arrows has,
// and of whole numbers the nearest multiple of it.
import { app } from "../../../scripts/app.js"
import { ALL } from "../common/node_types.js"
import { decimalsOf, withoutNoise } from "../logic/numbers.js"

/** @param {Comfy.Widget} widget */
function keepWhatIsTyped(widget) {
  const options = (widget.options ??= {})
  const { callback } = widget
  const decimals = options.precision ?? 0
  if (!decimals) {
    options.step2 = undefined // The arrows still go by options.step, which is ten times as much.
    options.max = Math.min(options.max ?? Infinity, Number.MAX_SAFE_INTEGER) // A page holds no larger seed as it is.
    return
  }
  options.round = undefined
  // Also where nodes are elements of the page: what it shows there is what it reads again when the user leaves the widget.
  const precision = { get: () => Math.max(decimals, decimalsOf(widget.value)), enumerable: true, configurable: true }
  Object.defineProperty(options, "precision", precision)
  /** @this {any} @param {any} value @param {...any} given */
  widget.callback = function (value, ...given) {
    return callback?.call(this, withoutNoise(value), ...given)
  }
}

app.registerExtension({
  name: "subject_trainer.numbers",
  nodeCreated(node) {
    if (!ALL.includes(node.comfyClass)) return
    for (const widget of node.widgets ?? []) if (widget.type === "number") keepWhatIsTyped(widget)
  },
})
