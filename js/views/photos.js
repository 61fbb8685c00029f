// @ts-check
// DatasetLoader shows its photos as training sees them, what is suspicious about each, and their captions to edit in place.
// Photos can be dropped on it.
import { app } from "../../../scripts/app.js"
import { element } from "../common/dom.js"
import { after } from "../common/hooks.js"
import { t } from "../common/i18n.js"
import { beforeQueueing, forget, onChanged, onShown } from "../common/jobs.js"
import { DATASET } from "../common/node_types.js"
import { panel } from "../common/panel.js"
import { fetchPhotos, photoUrl, RequestError, saveCaption } from "../common/server.js"
import { findWidget, isChosen, isFed, isOffered } from "../logic/widgets.js"
import { chooseFolder, hideFolder, labelFolders } from "./folders.js"
import { hasFiles, UploadBar } from "./upload.js"

/** @import { Photo, PhotoSettings } from "../common/server.js" */

const PANEL = "photo_view"
const WATCHED = ["folder", "resolution", "crop"]
const DELAY_MS = 300

/** @type {Set<PhotoView>} */
const views = new Set()

/**
 * Ctrl+Enter queues the graph from ComfyUI's own boxes; other keys are the box's alone.
 * @param {KeyboardEvent} event
 */
const isQueueing = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey)

/** The caption of one photo: a box to edit it, and below it what became of the edit. */
class CaptionEditor {
  /**
   * @param {string} folder
   * @param {{ name: string, caption: string, settled: boolean }} photo
   * @param {string} [wired] What the graph calls a photo that has no caption of its own.
   */
  constructor(folder, { name, caption, settled }, wired = "") {
    this.folder = folder
    this.name = name
    this.saved = caption // What the file holds, as far as the page knows.
    this.wired = caption || settled ? "" : wired
    this.box = element("textarea", { value: caption || this.wired, label: t("caption_of", { name }), spellcheck: true })
    this.status = element("div", { className: "st-state", role: "status" })
    if (this.wired) {
      const save = element("button", { type: "button", text: t("save"), onclick: () => this.save() })
      this.status.append(t("from_graph"), save)
    }
    this.box.addEventListener("change", () => this.save())
    this.box.addEventListener("keydown", (event) => isQueueing(event) || event.stopPropagation())
    /** What is written, an edit after the other. */
    this.written = Promise.resolve()
  }

  isEdited() {
    return this.box.value !== (this.wired || this.saved)
  }

  isInUse() {
    return this.box === document.activeElement || this.isEdited()
  }

  /** Write the caption as it is then, once earlier edits are written: each names the text that it replaces. */
  save() {
    this.written = this.written.then(() => this.write())
    return this.written
  }

  async write() {
    const text = this.box.value
    if (text === this.saved && !this.wired) return // To empty what the graph says is an edit, too.
    try {
      await saveCaption({ folder: this.folder, name: this.name, text, was: this.saved })
      this.saved = text
      this.wired = ""
      this.status.textContent = t("saved")
    } catch (error) {
      if (error instanceof RequestError && error.status === 409) this.offerChoice(error.answer.caption ?? "")
      else this.status.textContent = t("not_saved", { reason: error.message })
    }
  }

  /**
   * The file was changed elsewhere: ask which of the two captions to keep.
   * @param {string} theirs
   */
  offerChoice(theirs) {
    /** @param {string} text */
    const settle = (text) => {
      this.saved = theirs
      this.wired = ""
      this.box.value = text
      this.status.textContent = ""
      this.save()
    }
    this.status.replaceChildren(
      t("conflict", { caption: theirs }),
      element("button", { type: "button", text: t("keep_mine"), onclick: () => settle(this.box.value) }),
      element("button", { type: "button", text: t("take_theirs"), onclick: () => settle(theirs) })
    )
  }
}

/**
 * What the node has read: the folder, also of pictures that are wired, and the captions if they come from the graph.
 * @typedef {{ folder: string, captions: Record<string, string>, masks: string }} Executed
 */

/** @type {Executed} */
const NOTHING = { folder: "", captions: {}, masks: "" }

class PhotoView {
  /** What the grid shows, and the settings that it was asked for with. @type {{ settings?: string, answer?: string }} */
  current = {}
  /** @type {CaptionEditor[]} */
  editors = []
  /** @type {Executed} */
  executed = NOTHING
  /** The input that photos come through, if they are wired. @type {string | undefined} */
  fed
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer

  /**
   * @param {HTMLElement} root
   * @param {Comfy.Node} node
   */
  constructor(root, node) {
    this.node = node
    this.uploads = new UploadBar((folder) => chooseFolder(node, folder), () => fedBy(node))
    this.status = element("div", { className: "st-state", role: "status" })
    this.grid = element("div", { className: "st-photos", role: "group", label: t("photo_list") })
    root.append(this.uploads.root, this.status, this.grid)
    root.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault())
    root.addEventListener("drop", (event) => {
      if (!this.uploads.drop(event)) return
      event.preventDefault() // ComfyUI would open the picture as a workflow.
      event.stopPropagation()
    })
    views.add(this)
  }

  remove() {
    views.delete(this)
    clearTimeout(this.timer)
  }

  /**
   * Load the photos soon. While a number is dragged this is called often, and only the last call counts.
   * @param {PhotoSettings} settings
   */
  show(settings) {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.load(settings), DELAY_MS)
  }

  /**
   * Show no photos, but why there are none.
   * @param {string} reason
   */
  clear(reason) {
    clearTimeout(this.timer)
    this.current = {}
    this.status.textContent = reason
    this.grid.replaceChildren()
    this.editors = []
  }

  /** @param {PhotoSettings} settings */
  async load(settings) {
    const { captions, masks } = this.executed.folder === settings.folder ? this.executed : NOTHING
    const asked = JSON.stringify([settings, captions, masks])
    const sameSettings = this.current.settings === asked
    this.current.settings = asked
    /** @type {{ total: number, notes: string[], photos: Photo[] }} */
    const found = await fetchPhotos(settings).catch((error) => ({ total: 0, notes: [error.message], photos: [] }))
    const answer = JSON.stringify(found)
    if (this.current.settings !== asked || (sameSettings && this.current.answer === answer)) return
    const kept = this.editors.filter((editor) => editor.folder === settings.folder && editor.isInUse())
    if (kept.length && (sameSettings || !found.photos.length)) return // An edit must not be lost.
    this.current.answer = answer
    const more = found.total - found.photos.length
    const lines = [...found.notes, ...(more > 0 ? [t("more", { count: more })] : [])]
    this.status.replaceChildren(...lines.map((text) => element("div", { text })))
    this.editors = found.photos.flatMap(({ name, caption, settled }) => {
      if (caption === null) return []
      const known = kept.find((editor) => editor.name === name)
      return known ?? new CaptionEditor(settings.folder, { name, caption, settled }, captions[name])
    })
    if (this.editors.some((editor) => editor.wired)) this.status.append(this.saveAllButton())
    const focused = kept.find(({ box }) => box === document.activeElement)
    this.grid.replaceChildren(...found.photos.map((photo) => photoCard(photo, { ...settings, masks }, this.editors)))
    focused?.box.focus()
  }

  saveAllButton() {
    const save = () => this.editors.filter((editor) => editor.wired).forEach((editor) => editor.save())
    return element("button", { type: "button", text: t("save_all"), title: t("save_all_hint"), onclick: save })
  }
}

/**
 * @param {Photo} photo
 * @param {PhotoSettings & { masks: string }} settings
 * @param {CaptionEditor[]} editors
 */
function photoCard({ name, caption, notes }, settings, editors) {
  const title = element("div", { className: "st-name", text: name })
  const marks = notes.map((note) => element("div", { className: "st-note", text: note }))
  const editor = editors.find((one) => caption !== null && one.name === name)
  if (!editor) return element("div", { className: "st-photo" }, title, ...marks)
  const image = element("img", { src: photoUrl({ ...settings, name }), alt: name, loading: "lazy" })
  return element("div", { className: "st-photo" }, image, title, ...marks, editor.box, editor.status)
}

/** @param {Comfy.Node} node */
const photoView = (node) => panel(node, PANEL, 260, (root) => new PhotoView(root, node))

/**
 * The input that brings the node pictures, or its folder: then what is uploaded would be of no use.
 * @param {Comfy.Node} node
 */
const fedBy = (node) => ["images", "folder"].find((name) => isFed(node, name))

/** @param {Comfy.Node} node */
function showPhotos(node) {
  const [folder, resolution, crop] = WATCHED.map((name) => findWidget(node, name)?.value)
  const view = photoView(node)
  const fed = fedBy(node)
  const isWired = fed === "images"
  const isShown = isChosen(folder) && !fed
  if (view.fed !== fed) view.uploads.clear()
  view.fed = fed
  hideFolder(node, isWired)
  view.uploads.buttons.hidden = Boolean(fed)
  view.uploads.offer(isShown && isOffered(findWidget(node, "folder")) ? folder : undefined)
  const shown = isShown ? folder : isWired && view.executed.folder
  if (shown) view.show({ folder: shown, resolution, crop })
  else view.clear(t(isWired ? "wired" : "drop_hint"))
}

// What is trained is what the boxes say, also where one still has the keyboard's focus; where that cannot be, nothing is.
beforeQueueing(async () => {
  const edited = [...views].flatMap((view) => view.editors).filter((editor) => editor.isEdited())
  await Promise.all(edited.map((editor) => editor.save()))
  const left = edited.filter((editor) => editor.isEdited())
  left.forEach((editor) => editor.status.append(element("div", { text: t("not_queued") })))
  if (left.length) throw new Error(t("captions_not_saved", { names: left.map(({ name }) => name).join(", ") }))
})

onShown((node, { output }) => {
  if (node.comfyClass !== DATASET) return
  photoView(node).executed = output?.panel?.[0] ?? NOTHING
  showPhotos(node)
})

onChanged(() => views.forEach((view) => view.fed !== fedBy(view.node) && showPhotos(view.node)))

app.registerExtension({
  name: "subject_trainer.photo_view",
  nodeCreated(node) {
    if (node.comfyClass !== DATASET) return
    const refresh = () => showPhotos(node)
    for (const name of WATCHED) {
      const widget = findWidget(node, name)
      if (!widget) continue
      after(widget, "callback", () => {
        forget(node) // Its report is of what was chosen before.
        refresh()
      })
    }
    after(node, "onConfigure", refresh)
    after(node, "onConnectionsChange", refresh)
    labelFolders(node)
    node.onDragOver = hasFiles
    node.onDragDrop = (event) => photoView(node).uploads.drop(event)
    requestAnimationFrame(refresh)
  },
})
