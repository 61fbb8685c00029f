// DatasetLoader shows its photos as training sees them, what is suspicious about each, and their captions to edit in place.
import { app } from "../../scripts/app.js"
import { element, panel } from "./panel.js"
import { photos, photoUrl, writeCaption } from "./server.js"
import { t } from "./words.js"

const NODE = "DatasetLoader"
const WATCHED = ["folder", "resolution", "crop"]

class PhotoView {
  constructor(root) {
    this.state = element("div", { className: "st-state", role: "status" })
    this.grid = element("div", { className: "st-photos", role: "group", label: t("photo_list") })
    root.append(this.state, this.grid)
  }

  async show(values) {
    const key = JSON.stringify(values)
    this.key = key
    let found
    try {
      found = await photos(values)
    } catch (error) {
      found = { total: 0, photos: [], error: error.message }
    }
    if (this.key !== key) return // another folder was chosen meanwhile
    const more = found.total - found.photos.length
    this.state.textContent = found.error ?? (more > 0 ? t("more", { count: more }) : "")
    this.grid.replaceChildren(...found.photos.map((photo) => this.photo(photo, values)))
  }

  photo({ name, caption, notes }, values) {
    const image = element("img", { src: photoUrl({ ...values, name }), alt: name, loading: "lazy" })
    const text = element("textarea", { value: caption, label: t("caption_of", { name }), spellcheck: true })
    const state = element("div", { className: "st-state", role: "status" })
    const marks = notes.map((note) => element("div", { className: "st-note", text: note }))
    let was = caption
    const write = async () => {
      if (text.value === was) return
      try {
        const given = text.value
        await writeCaption({ folder: values.folder, name, text: given, was })
        was = given
        state.textContent = t("saved")
      } catch (error) {
        if (error.status === 409) return conflict(error.answer.caption)
        state.textContent = t("not_saved", { reason: error.message })
      }
    }
    const conflict = (theirs) => {
      const settle = (mine) => {
        was = theirs
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
  if (!values.folder || values.folder.startsWith("(") || node.inputs?.some((input) => input.name === "folder" && input.link)) return
  panel(node, "photo_view", 260, (root) => new PhotoView(root)).show(values)
}

app.registerExtension({
  name: "subject_trainer.photo_view",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    for (const widget of node.widgets?.filter((w) => WATCHED.includes(w.name)) ?? []) {
      const callback = widget.callback
      widget.callback = function () {
        callback?.apply(this, arguments)
        show(node)
      }
    }
    const executed = node.onExecuted
    node.onExecuted = function () {
      executed?.apply(this, arguments)
      show(node)
    }
    const configured = node.onConfigure
    node.onConfigure = function () {
      configured?.apply(this, arguments)
      show(node)
    }
    requestAnimationFrame(() => show(node))
  },
})
