// @ts-check
// A node shows at most ten widgets until the user asks for more: those that were changed are always among them, those that mean
// nothing never. A training node says what was set beside its preset, and "own settings" is filled in.
import { app } from "../../../scripts/app.js"
import { element } from "../common/dom.js"
import { after } from "../common/hooks.js"
import { onLanguage, t } from "../common/i18n.js"
import { onChanged, shownRun } from "../common/jobs.js"
import { CAPTION, DATASET, LOADING, TRAINING } from "../common/node_types.js"
import { fitContent, panel } from "../common/panel.js"
import { fetchRunCard } from "../common/server.js"
import { allNodes } from "../logic/run.js"
import { filledIn, refilled, saidBefore } from "../logic/own_settings.js"
import { besidePreset, OWN, sight } from "../logic/settings.js"
import { comesFrom, findWidget, isFed } from "../logic/widgets.js"

/** @import { Filling } from "../logic/own_settings.js" */
/** @import { Presets, State } from "../logic/settings.js" */

const NODES = [DATASET, CAPTION, ...TRAINING]
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets"

/** What the server says of the presets of a node. @type {Map<string, Presets>} */
const presets = new Map()
/**
 * `isConfigured`: it is given what a file says of it just now, its size among it.
 * @typedef {{
 *   button: Comfy.Widget, widgets: Comfy.Widget[], advanced: Set<string>, initial: Record<string, unknown>,
 *   isConfigured?: boolean
 * }} Managed
 */
/** @type {WeakMap<Comfy.Node, Managed>} */
const managed = new WeakMap()

/** What a node's file says of what "own settings" was filled in with. */
const FILLED = "subject_trainer_filled"
/** @type {WeakMap<Comfy.Node, Filling>} */
const fillings = new WeakMap()

/** @param {Comfy.Node} node @param {Managed} of @returns {State} */
function stateOf(node, { widgets, initial }) {
  const wired = new Set(node.inputs?.map((input) => input.name).filter((name) => isFed(node, name)))
  const values = Object.fromEntries(widgets.map((widget) => [widget.name, widget.value]))
  return { values, initial, wired, presets: presets.get(node.comfyClass), clipHasToken: comesFrom(node, "clip", [...TRAINING, LOADING]) }
}

/**
 * Show and hide the node's widgets by their values, and say what is set beside the preset.
 * @param {Comfy.Node} node
 */
function update(node) {
  const of = managed.get(node)
  if (!of) return
  const state = stateOf(node, of)
  const showAll = Boolean(node.showAdvanced || app.extensionManager?.setting?.get(ALWAYS))
  let waits = 0
  let isOther = false
  for (const widget of of.widgets) {
    const { meaningless, waiting } = sight(state, { name: widget.name, advanced: of.advanced.has(widget.name) })
    if (waiting && !meaningless) waits += 1
    widget.hidden = meaningless || (waiting && !showAll) // on the canvas
    const options = (widget.options ??= {}) // where nodes are elements of the page
    if (options.hidden !== meaningless || options.advanced !== waiting) isOther = true
    Object.assign(options, { hidden: meaningless, advanced: waiting })
  }
  of.button.hidden = !waits
  of.button.label = node.showAdvanced ? t("fewer_settings") : t("more_settings", { count: waits })
  if (state.presets) describe(node, state)
  // There, ComfyUI looks at the options of widgets anew when there is another list of them.
  if (isOther && window.LiteGraph.vueNodesMode) node.widgets = [...(node.widgets ?? [])]
  node.setDirtyCanvas(true, true)
}

/** @param {Comfy.Node} node @param {State} state */
function describe(node, state) {
  const view = panel(node, "preset_view", fitContent, (root) => {
    const line = element("div", { className: "st-preset", role: "status" })
    root.append(line)
    return { line }
  })
  const own = besidePreset(state).map((name) => {
    const label = findWidget(node, name)?.label ?? name
    return state.wired.has(name) ? label : `${label} ${state.values[name]}`
  })
  const preset = state.wired.has("preset") ? t("wired_preset") : state.values.preset
  view.line.textContent = own.length ? t("beside_preset", { preset, own: own.join(", ") }) : ""
}

/**
 * The same, and make the node as much taller or lower.
 * @param {Comfy.Node} node
 */
function fit(node) {
  if (managed.get(node)?.isConfigured) return // Boxes with text call back then, too; all is shown and hidden at its end.
  if (window.LiteGraph.vueNodesMode) return update(node) // There, a node grows with its content.
  const before = node.computeSize()[1]
  update(node)
  node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before])
}

/**
 * Note while a node is given what a file says of it.
 * @param {Comfy.Node} node
 * @param {Managed} of
 */
function markConfiguring(node, of) {
  const { configure } = node
  node.configure = (...given) => {
    of.isConfigured = true
    try {
      configure.apply(node, given)
    } finally {
      of.isConfigured = false
    }
  }
}

/** @param {Comfy.Node} node */
function toggle(node) {
  node.graph?.beforeChange()
  node.showAdvanced = !node.showAdvanced
  fit(node)
  node.graph?.afterChange()
}

/**
 * Give the widgets that the user has not touched what is filled in now; without it, leave them to the preset again.
 * @param {Comfy.Node} node
 * @param {Filling} before
 * @param {Filling} [now]
 */
function put(node, before, now) {
  const of = managed.get(node)
  if (!of) return
  const state = stateOf(node, of)
  const other = Object.entries(refilled(state, before, now)).filter(([name, value]) => state.values[name] !== value)
  if (now) fillings.set(node, now)
  else fillings.delete(node)
  if (!other.length) return
  node.graph?.beforeChange()
  for (const [name, value] of other) {
    const widget = findWidget(node, name)
    if (widget) widget.value = value
  }
  fit(node)
  node.graph?.afterChange()
}

/** @param {Comfy.Node} node @param {Filling} [filling] What was filled in so far. */
function refill(node, filling = fillings.get(node)) {
  const of = managed.get(node)
  if (of && filling && findWidget(node, "preset")?.value === OWN) put(node, filling, filledIn(stateOf(node, of), filling))
}

/**
 * Fill in "own settings", which was chosen.
 * @param {Comfy.Node} node
 * @param {string} before The preset before it.
 */
async function fillIn(node, before) {
  const of = managed.get(node)
  if (!of) return
  const run = shownRun(node)
  const card = run ? await fetchRunCard(run, []).catch(() => undefined) : undefined // It may be gone: then the defaults are left.
  refill(node, { said: saidBefore(stateOf(node, of), before, card?.decided), put: {} }) // Not if the user went on meanwhile.
}

/** @param {Comfy.Node} node */
function followPreset(node) {
  const widget = findWidget(node, "preset")
  if (!widget) return
  const now = () => findWidget(node, "preset")?.value
  let last = now()
  after(node, "onConfigure", () => (last = now()))
  after(widget, "callback", () => {
    const was = last
    last = now()
    const filling = fillings.get(node)
    if (was === last) return
    if (last === OWN) fillIn(node, was)
    else if (filling) put(node, filling)
  })
  const others = node.widgets?.filter((other) => other !== widget) ?? []
  for (const other of others) after(other, "callback", () => refill(node))
}

/** @param {Comfy.Node} node */
function keepFilling(node) {
  after(node, "onSerialize", (saved) => {
    const filling = fillings.get(node)
    if (filling) saved.properties[FILLED] = filling
  })
  after(node, "onConfigure", (saved) => {
    const filling = saved.properties?.[FILLED]
    delete node.properties[FILLED] // It would only grow old.
    if (filling?.said && filling.put) fillings.set(node, filling)
    else fillings.delete(node)
  })
}

onLanguage(() => allNodes(app.graph).forEach(update)) // A button is drawn with the text that it was given.
onChanged(() => allNodes(app.graph).forEach(update)) // A node that is wired may have been switched off.

app.registerExtension({
  name: "subject_trainer.settings",
  beforeRegisterNodeDef(_, nodeData) {
    const said = nodeData.input?.required?.preset?.[1]?.presets
    if (TRAINING.includes(nodeData.name) && said) presets.set(nodeData.name, said)
  },
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return
    const isTraining = TRAINING.includes(node.comfyClass)
    const widgets = node.widgets?.filter((widget) => isTraining || widget.options?.advanced) ?? []
    const advanced = new Set(widgets.filter((widget) => widget.options?.advanced).map((widget) => widget.name))
    const initial = Object.fromEntries(widgets.map((widget) => [widget.name, widget.value]))
    // Where nodes are elements of the page, ComfyUI has a button of its own.
    const options = { serialize: false, canvasOnly: true }
    const button = node.addWidget("button", "advanced", null, () => toggle(node), options)
    button.serialize = false
    const of = { button, widgets, advanced, initial }
    managed.set(node, of)
    fit(node)
    markConfiguring(node, of)
    followPreset(node)
    keepFilling(node)
    for (const widget of widgets) after(widget, "callback", () => fit(node))
    // Loading a workflow calls both of these, after it gave the node the size that was saved: the size must stay.
    for (const method of ["onConfigure", "onConnectionsChange"]) after(node, method, () => update(node))
  },
})
