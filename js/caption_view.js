// CaptionWithToken shows every caption with the token and the class marked, and how CLIP cuts it into pieces.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"
import { element, panel } from "./panel.js"
import { language, t } from "./words.js"

const NODE = "CaptionWithToken"
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

// The text with what means the token and the class in marks. Text nodes all: a caption is never read as HTML.
function marked(text, token, classWord) {
  const words = [token, classWord].filter(Boolean).map(escaped)
  const parts = text.split(new RegExp(`(?<![\\p{L}\\p{N}_])(${words.join("|")})(?![\\p{L}\\p{N}_])`, "giu"))
  return parts.map((part, index) => {
    if (index % 2 === 0) return part
    return element("mark", { className: part.toLowerCase() === token.toLowerCase() ? "" : "st-class", text: part })
  })
}

class CaptionView {
  constructor(root) {
    this.notes = element("div", { className: "st-state", role: "status" })
    this.list = element("ul", { className: "st-captions", label: t("captions") })
    root.append(this.notes, this.list)
  }

  show({ notes, captions, total, token, class_word: classWord }) {
    const more = total - captions.length
    this.notes.replaceChildren(...(notes[language()] ?? notes.en).split("\n").map((note) => element("div", { text: note })))
    this.list.replaceChildren(
      ...captions.map(({ name, text, pieces }) => {
        const title = t("pieces", { count: pieces.length, pieces: pieces.join(" | ") })
        const item = element("li", { title }, element("span", { className: "st-name", text: `${name} ` }))
        item.append(...marked(text, token, classWord))
        return item
      }),
      ...(more > 0 ? [element("li", { text: t("more", { count: more }) })] : [])
    )
  }
}

app.registerExtension({
  name: "subject_trainer.caption_view",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (output?.captions) panel(this, "caption_view", 160, (root) => new CaptionView(root)).show(output.captions[0])
    })
  },
})
