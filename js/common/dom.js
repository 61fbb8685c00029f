// @ts-check

/**
 * A new element. `label` is its accessible name; options other than the first three are properties of the element.
 * Text always becomes a text node: captions and file names are never read as HTML.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {{ className?: string, text?: string, label?: string, [property: string]: unknown }} [options]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, { className = "", text, label, ...properties } = {}, ...children) {
  const created = document.createElement(tag)
  created.className = className
  if (text !== undefined) created.textContent = text
  if (label) created.setAttribute("aria-label", label)
  Object.assign(created, properties)
  created.append(...children)
  return created
}

/** @param {URL} url */
export function addStylesheet(url) {
  document.head.append(element("link", { rel: "stylesheet", href: url.href }))
}
