// @ts-check
import { element } from "./dom.js"
import { t } from "./i18n.js"

/**
 * Show one of the pictures large, over the page. The arrow keys go on to the others; Escape or a click beside it closes it.
 * @param {{ url: string, title: string }[]} pictures
 * @param {number} index
 */
export function openLightbox(pictures, index) {
  const image = element("img")
  const title = element("p")
  const close = element("button", { type: "button", text: t("close"), onclick: () => dialog.close() })
  const dialog = element("dialog", { className: "st-light" }, image, title, close)
  /** @param {number} next */
  const show = (next) => {
    index = (next + pictures.length) % pictures.length
    image.src = pictures[index].url
    image.alt = title.textContent = pictures[index].title
  }
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation() // The graph editor acts on the same keys.
    if (event.key === "ArrowRight") show(index + 1)
    if (event.key === "ArrowLeft") show(index - 1)
  })
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close())
  dialog.addEventListener("close", () => dialog.remove())
  show(index)
  document.body.append(dialog)
  dialog.showModal()
}
