// @ts-check
// Panels: widgets of the pack's nodes that hold HTML, and are neither saved in the workflow nor queued.
import { app } from "../../../scripts/app.js"
import { findWidget } from "../logic/widgets.js"
import { addStylesheet, element } from "./dom.js"
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

const MIDDLE = 1 // the button, and below it the same while it is held
const MIDDLE_HELD = 4
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
 * Whether something between an element and the panel, that included, can be scrolled upright.
 * @param {EventTarget | null} target
 * @param {HTMLElement} root
 */
function scrolls(target, root) {
  for (let at = /** @type {HTMLElement | null} */ (target); at && root.contains(at); at = at.parentElement) {
    if (at.scrollHeight > at.clientHeight && ["auto", "scroll"].includes(getComputedStyle(at).overflowY)) return true
  }
  return false
}

/**
 * Let the wheel scroll what is longer than the panel, and the pointer do what it does in it; everything else moves and zooms the
 * canvas, as it does over ComfyUI's own boxes.
 * @param {HTMLElement} root
 */
function shareEvents(root) {
  root.dataset.captureWheel = "true" // Where nodes are elements of the page: the wheel is the panel's once it has the focus.
  root.addEventListener("wheel", (event) => {
    if (window.LiteGraph.vueNodesMode) return
    event.stopPropagation()
    if (!event.ctrlKey && !event.metaKey && scrolls(event.target, root)) return
    event.preventDefault()
    app.canvas?.processMouseWheel(event)
  })
  root.addEventListener("pointerdown", (event) => {
    if (event.button === MIDDLE) app.canvas?.processMouseDown(event)
    event.stopPropagation()
  })
  root.addEventListener("pointermove", (event) => event.buttons & MIDDLE_HELD && app.canvas?.processMouseMove(event))
  root.addEventListener("pointerup", (event) => event.button === MIDDLE && app.canvas?.processMouseUp(event))
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
  shareEvents(root)
  const fits = typeof height === "function"
  const heights = fits ? { getMinHeight: () => height(root), getMaxHeight: () => height(root) } : { getMinHeight: () => height }
  const widget = node.addDOMWidget(name, name, root, { serialize: false, hideOnZoom: false, hideInPanel: true, ...heights })
  widget.serialize = false
  const view = build(root)
  views.set(widget, view)
  const resizing = new ResizeObserver(() => fitPanels(node))
  if (fits && root.firstElementChild) resizing.observe(root.firstElementChild) // Its lines break anew with the node's width.
  after(widget, "onRemove", () => {
    resizing.disconnect()
    view.remove?.()
  })
  // A panel gets what height the node has left. Where nodes are elements of the page, they would grow with all that is in it.
  if (!fits) Object.assign(root.style, { contain: "size", minHeight: `${height}px` })
  if (!fits) root.tabIndex = 0 // It scrolls, by keys too.
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
