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

/**
 * Whether a combo box offers what it has: a file may name what is not there.
 * @param {Comfy.Widget | undefined} widget
 */
export const isOffered = (widget) => Boolean(widget?.options?.values?.includes(widget.value))

/**
 * Whether something is wired to the node's input of this name.
 * @param {Comfy.Node} node
 * @param {string} name
 */
export const isLinked = (node, name) => Boolean(node.inputs?.some((input) => input.name === name && input.link != null))

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
