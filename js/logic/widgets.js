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
export const isChosen = (value) => Boolean(value) && !value?.startsWith("(")

/**
 * Whether something is wired to the node's input of this name.
 * @param {Comfy.Node} node
 * @param {string} name
 */
export const isLinked = (node, name) => Boolean(node.inputs?.some((input) => input.name === name && input.link != null))

/**
 * Whether an advanced widget stays hidden. One whose value was changed or comes through a link is always visible.
 * @param {{ value: unknown, initial: unknown, linked: boolean, showAll: boolean }} widget
 */
export const isHidden = ({ value, initial, linked, showAll }) => value === initial && !linked && !showAll
