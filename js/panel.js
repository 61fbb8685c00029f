// A part of a node that is ours: made once, never saved in the workflow nor queued.
import { after } from "./after.js"

const style = document.createElement("link")
style.rel = "stylesheet"
style.href = new URL("./panel.css", import.meta.url)
document.head.append(style)

export function element(tag, { className = "", text, label, ...more } = {}, ...children) {
  const made = document.createElement(tag)
  made.className = className
  if (text !== undefined) made.textContent = text
  if (label) made.setAttribute("aria-label", label)
  Object.assign(made, more)
  made.append(...children)
  return made
}

// The node's panel of this name, made by `build(root)` when it is first asked for; what `build` returned.
export function panel(node, name, height, build) {
  const known = node.widgets?.find((widget) => widget.name === name)
  if (known) return known.ours
  const root = element("div", { className: "st-panel" })
  for (const kind of ["pointerdown", "wheel"]) root.addEventListener(kind, (event) => event.stopPropagation())
  const widget = node.addDOMWidget(name, name, root, { serialize: false, hideOnZoom: true, getMinHeight: () => height })
  widget.serialize = false
  widget.ours = build(root)
  after(widget, "onRemove", () => widget.ours.remove?.())
  // The new renderer lets a node grow with its content; the classic one gives the panel what the node has left.
  if (window.LiteGraph.vueNodesMode) root.style.maxHeight = `${height}px`
  else requestAnimationFrame(() => node.setSize([Math.max(node.size[0], 340), Math.max(node.size[1], node.computeSize()[1])]))
  return widget.ours
}
