// @ts-check
// What the values of a node's widgets mean for the page.

/**
 * @param {Comfy.Node} node
 * @param {string} name
 */
export const findWidget = (node, name) => node.widgets?.find((widget) => widget.name === name)

/**
 * Whether a combo box names something that exists: its placeholders are in parentheses.
 * @param {string | undefined} value
 */
export const isChosen = (value) => Boolean(value) && !`${value}`.startsWith("(")

/** What a node is switched to. */
const MUTED = 2
const BYPASSED = 4

/**
 * Whether a combo box offers what it has: a file may name what is not there.
 * @param {Comfy.Widget | undefined} widget
 */
export const isOffered = (widget) => Boolean(widget?.options?.values?.includes(widget.value))

/**
 * Whether what is queued for the node's input of this name comes through its link, as ComfyUI queues it: nothing comes from a
 * muted node, and from one that is bypassed what comes to the input that takes the place of the output.
 * @param {Comfy.Node} node
 * @param {string} name
 */
export const isFed = (node, name) => sourceOf(node, name, new Set()) !== undefined

/**
 * Whether what is queued for the node's input of this name comes, or may come, from a node of these types, through others by their
 * inputs of the same name.
 * @param {Comfy.Node} node
 * @param {string} name
 * @param {string[]} types
 */
export function comesFrom(node, name, types) {
  const passed = new Set()
  let from = sourceOf(node, name, passed)
  while (from && from !== OUTSIDE && !types.includes(`${from.type}`)) from = sourceOf(from, name, passed)
  return from !== undefined
}

/** What stands for a node outside of the subgraph. */
const OUTSIDE = "outside"

/**
 * @param {Comfy.Node} node
 * @param {string} name
 * @param {Set<number>} passed
 */
function sourceOf(node, name, passed) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1
  return source(node, slot, node.inputs?.[slot]?.type, passed)
}

/**
 * @param {Comfy.Node} node
 * @param {number} slot
 * @param {unknown} type What is asked for.
 * @param {Set<number>} passed The links that were followed: a circle feeds nothing.
 * @returns {Comfy.Node | typeof OUTSIDE | undefined}
 */
function source(node, slot, type, passed) {
  const id = node.inputs?.[slot]?.link
  if (id == null || passed.has(id)) return undefined
  passed.add(id)
  const link = node.graph?.getLink?.(id)
  const from = link && node.graph?.getNodeById(link.origin_id)
  if (!from) return OUTSIDE
  if (from.mode === MUTED) return undefined
  if (from.mode === BYPASSED) return source(from, insteadOf(from, link.origin_slot, type), type, passed)
  return from.type === "Reroute" ? source(from, 0, type, passed) : from
}

/**
 * The input of a bypassed node that takes the place of its output: the one beside it, or else the first of the type.
 * @param {Comfy.Node} node
 * @param {number} slot
 * @param {unknown} type
 */
function insteadOf(node, slot, type) {
  const takes = [type, "*"]
  const inputs = node.inputs ?? []
  return takes.includes(inputs[slot]?.type) ? slot : inputs.findIndex((input) => takes.includes(input.type))
}

/**
 * The values of the node's widgets that are saved, by name.
 * @param {Comfy.Node} node
 * @returns {Record<string, any>}
 */
export function valuesByName(node) {
  const saved = node.widgets?.filter((widget) => widget.serialize !== false) ?? []
  return Object.fromEntries(saved.map((widget) => [widget.name, widget.value]))
}

/**
 * What the widgets are to have when a file is opened: a widget that the file does not know has its default. Nothing for a file
 * without values by name.
 * @param {Record<string, any>} initial
 * @param {Record<string, any> | undefined} saved
 */
export const savedByName = (initial, saved) => (saved ? { ...initial, ...saved } : {})
