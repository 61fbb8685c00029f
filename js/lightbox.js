// Pictures in large, over the page: arrow keys go on, Escape closes.
import { element } from "./panel.js"
import { t } from "./words.js"

export function openLarge(pictures, index) {
  const image = element("img")
  const name = element("p")
  const close = element("button", { type: "button", text: t("close"), onclick: () => dialog.close() })
  const dialog = element("dialog", { className: "st-light" }, image, name, close)
  const show = (next) => {
    index = (next + pictures.length) % pictures.length
    image.src = pictures[index].url
    image.alt = name.textContent = pictures[index].name
  }
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation() // keys of the graph editor
    if (event.key === "ArrowRight") show(index + 1)
    if (event.key === "ArrowLeft") show(index - 1)
  })
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close())
  dialog.addEventListener("close", () => dialog.remove())
  show(index)
  document.body.append(dialog)
  dialog.showModal()
}
