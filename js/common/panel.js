// @ts-check
// Panels: widgets of the pack's nodes that hold HTML, and are neither saved in the workflow nor queued.
import { findWidget } from "../logic/widgets.js"
import { addStylesheet, element, keepEvents } from "./dom.js"
import { after } from "./hooks.js"

addStylesheet(new URL("../panel.css", import.meta.url))

/** @type {WeakMap<Comfy.Widget, any>} */
const views = new WeakMap()

/**
 * What `build` returned for the node's panel of this name; undefined while the node has no such panel.
 * @param {Comfy.Node} node
 * @param {string} name
 */
export function panelView(node, name) {
  const widget = findWidget(node, name)
  return widget && views.get(widget)
}

const PADDING = 8 // of a panel, above and below
const MARGIN = 20 // that ComfyUI leaves around a panel on the canvas

/**
 * A height for a panel that is to be as high as what is in it.
 * @param {HTMLElement} root
 */
export function fitContent(root) {
  const content = root.firstElementChild
  if (!content?.textContent) return 0
  return content.scrollHeight + PADDING + (window.LiteGraph.vueNodesMode ? 0 : MARGIN)
}

/**
 * The same, but the panel is added when the node has none. The view's `remove`, if any, is called with the node's end.
 * @template {object} View
 * @param {Comfy.Node} node
 * @param {string} name
 * @param {number | ((root: HTMLElement) => number)} height In pixels, or what gives it.
 * @param {(root: HTMLElement) => View & { remove?: () => void }} build
 * @returns {View}
 */
export function panel(node, name, height, build) {
  const existing = panelView(node, name)
  if (existing) return existing
  const root = element("div", { className: "st-panel" })
  keepEvents(root, "pointerdown", "wheel")
  const fits = typeof height === "function"
  const heights = fits ? { getMinHeight: () => height(root), getMaxHeight: () => height(root) } : { getMinHeight: () => height }
  const widget = node.addDOMWidget(name, name, root, { serialize: false, hideOnZoom: false, ...heights })
  widget.serialize = false
  const view = build(root)
  views.set(widget, view)
  const resizing = new ResizeObserver(() => fitPanels(node))
  if (fits && root.firstElementChild) resizing.observe(root.firstElementChild) // Its lines break anew with the node's width.
  after(widget, "onRemove", () => {
    resizing.disconnect()
    view.remove?.()
  })
  // Drawn as an element of the page, a node grows with its content; on the canvas, a panel gets what height the node has left.
  if (window.LiteGraph.vueNodesMode && !fits) root.style.maxHeight = `${height}px`
  fitPanels(node)
  return view
}

/**
 * Make the node high enough for its panels. Where it is an element of the page, it is by itself.
 * @param {Comfy.Node} node
 */
export function fitPanels(node) {
  if (window.LiteGraph.vueNodesMode) return
  requestAnimationFrame(() => {
    node.setSize([Math.max(node.size[0], 340), Math.max(node.size[1], node.computeSize()[1])])
    node.setDirtyCanvas(true, true)
  })
}
