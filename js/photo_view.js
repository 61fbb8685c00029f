// DatasetLoader shows its photos as training sees them, what is suspicious about each, and their captions to edit in place.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"
import { element, panel } from "./panel.js"
import { photos, photoUrl, writeCaption } from "./server.js"
import { t } from "./words.js"

const NODE = "DatasetLoader"
const WATCHED = ["folder", "resolution", "crop"]
const WAIT_MS = 300

class PhotoView {
  constructor(root) {
    this.state = element("div", { className: "st-state", role: "status" })
    this.grid = element("div", { className: "st-photos", role: "group", label: t("photo_list") })
    root.append(this.state, this.grid)
  }

  // Asked for often, while a number is dragged for example: the last one counts.
  show(values) {
    clearTimeout(this.waiting)
    this.waiting = setTimeout(() => this.load(values), WAIT_MS)
  }

  clear() {
    clearTimeout(this.waiting)
    this.key = this.shown = undefined
    this.state.textContent = ""
    this.grid.replaceChildren()
  }

  async load(values) {
    const key = JSON.stringify(values)
    const other = this.key !== key
    this.key = key
    let found
    try {
      found = await photos(values)
    } catch (error) {
      found = { total: 0, photos: [], error: error.message }
    }
    const answer = JSON.stringify(found)
    if (this.key !== key || (!other && this.shown === answer)) return
    if (!other && this.isEdited()) return // never take away what is being written
    this.shown = answer
    const more = found.total - found.photos.length
    this.state.textContent = found.error ?? (more > 0 ? t("more", { count: more }) : "")
    this.grid.replaceChildren(...found.photos.map((photo) => this.photo(photo, values)))
  }

  isEdited() {
    const boxes = [...this.grid.querySelectorAll("textarea")]
    return boxes.some((box) => box === document.activeElement || box.value !== box.was)
  }

  photo({ name, caption, notes }, values) {
    const image = element("img", { src: photoUrl({ ...values, name }), alt: name, loading: "lazy" })
    const text = element("textarea", { value: caption, label: t("caption_of", { name }), spellcheck: true })
    const state = element("div", { className: "st-state", role: "status" })
    const marks = notes.map((note) => element("div", { className: "st-note", text: note }))
    text.was = caption // as far as the page knows, in the file
    const write = async () => {
      if (text.value === text.was) return
      try {
        const given = text.value
        await writeCaption({ folder: values.folder, name, text: given, was: text.was })
        text.was = given
        state.textContent = t("saved")
      } catch (error) {
        if (error.status === 409) return conflict(error.answer.caption)
        state.textContent = t("not_saved", { reason: error.message })
      }
    }
    const conflict = (theirs) => {
      const settle = (mine) => {
        text.was = theirs
        if (!mine) text.value = theirs
        state.textContent = ""
        write()
      }
      state.replaceChildren(
        t("conflict", { caption: theirs }),
        element("button", { type: "button", text: t("keep_mine"), onclick: () => settle(true) }),
        element("button", { type: "button", text: t("take_theirs"), onclick: () => settle(false) })
      )
    }
    text.addEventListener("change", write)
    text.addEventListener("keydown", (event) => event.stopPropagation())
    return element("div", { className: "st-photo" }, image, element("div", { className: "st-name", text: name }), ...marks, text, state)
  }
}

function show(node) {
  const values = Object.fromEntries(WATCHED.map((name) => [name, node.widgets.find((w) => w.name === name)?.value]))
  const linked = node.inputs?.some((input) => input.name === "folder" && input.link)
  if (!values.folder || values.folder.startsWith("(") || linked) {
    node.widgets.find((w) => w.name === "photo_view")?.ours.clear()
    return
  }
  panel(node, "photo_view", 260, (root) => new PhotoView(root)).show(values)
}

app.registerExtension({
  name: "subject_trainer.photo_view",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const refresh = () => show(node)
    const watched = node.widgets?.filter((widget) => WATCHED.includes(widget.name)) ?? []
    watched.forEach((widget) => after(widget, "callback", refresh))
    after(node, "onExecuted", refresh)
    after(node, "onConfigure", refresh)
    requestAnimationFrame(refresh)
  },
})
