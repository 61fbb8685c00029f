// @ts-check
// CaptionWithToken shows every caption with the token and the class marked, and how CLIP cuts it into pieces.
import { element } from "../common/dom.js"
import { language, t } from "../common/i18n.js"
import { onShown } from "../common/jobs.js"
import { CAPTION } from "../common/node_types.js"
import { panel } from "../common/panel.js"
import { splitCaption } from "../logic/text.js"

/** @typedef {{ name: string, text: string, pieces: string[] }} Caption */
/**
 * What the node sends when it was executed: the first captions of `total`, and notes in every language, a line each.
 * @typedef {{
 *   notes: { en: string, uk?: string }, captions: Caption[], total: number, token: string, class_word: string
 * }} Captions
 */

class CaptionView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.notes = element("div", { className: "st-state", role: "status" })
    this.list = element("ul", { className: "st-captions", label: t("captions") })
    root.append(this.notes, this.list)
  }

  /** @param {Captions} output */
  show({ notes, captions, total, token, class_word: classWord }) {
    const lines = (notes[language()] ?? notes.en).split("\n")
    this.notes.replaceChildren(...lines.map((line) => element("div", { text: line })))
    this.list.replaceChildren(...captions.map((caption) => captionItem(caption, token, classWord)))
    const more = total - captions.length
    if (more > 0) this.list.append(element("li", { text: t("more", { count: more }) }))
  }
}

/**
 * @param {Caption} caption
 * @param {string} token
 * @param {string} classWord
 */
function captionItem({ name, text, pieces }, token, classWord) {
  const title = t("pieces", { count: pieces.length, pieces: pieces.join(" | ") })
  const parts = splitCaption(text, token, classWord).map((part) => {
    if (part.kind === "plain") return part.text
    return element("mark", { className: part.kind === "class" ? "st-class" : "", text: part.text })
  })
  return element("li", { title }, element("span", { className: "st-name", text: `${name} ` }), ...parts)
}

onShown((node, { output }) => {
  if (node.comfyClass !== CAPTION || !output?.captions) return
  panel(node, "caption_view", 160, (root) => new CaptionView(root)).show(output.captions[0])
})
