// @ts-check
// Photos that are dropped on DatasetLoader, or chosen with its button, go into a folder of ComfyUI's input.
import { element } from "../common/dom.js"
import { t } from "../common/i18n.js"
import { planUpload, RequestError, uploadFile } from "../common/server.js"
import { droppedFiles, plainFiles } from "../logic/dropped.js"

/** @import { Dropped } from "../logic/dropped.js" */

const TOO_LARGE = 413

/** The buttons that upload photos, and how the upload goes. */
export class UploadBar {
  isBusy = false
  /** The folder that photos can be added to. @type {string | undefined} */
  into
  /** What is said now. @type {string[]} */
  said = []
  /** What became of drops that came while another was uploaded. @type {string[]} */
  meanwhile = []

  /**
   * @param {(folder: string) => Promise<void>} choose Called with the folder that holds the photos.
   * @param {() => string | undefined} fed The input that photos come through, in whose presence none are taken.
   */
  constructor(choose, fed) {
    this.choose = choose
    this.fed = fed
    this.add = element("button", { type: "button", text: t("add_photos"), title: t("add_photos_hint"), onclick: () => this.pick() })
    this.more = element("button", { type: "button", text: t("add_more"), hidden: true, onclick: () => this.pick(this.into) })
    this.status = element("div", { className: "st-state st-upload", role: "status" })
    this.buttons = element("div", { className: "st-buttons" }, this.add, this.more)
    this.root = element("div", {}, this.buttons, this.status)
  }

  /**
   * Offer to add photos to a folder.
   * @param {string | undefined} folder
   */
  offer(folder) {
    if (folder !== this.into) this.clear() // What was said is about another folder.
    this.into = folder
    this.more.hidden = !folder
    this.more.title = t("add_more_hint", { folder })
  }

  /** @param {string} [into] */
  pick(into) {
    const input = element("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.txt,.caption,.json,.jsonl,.csv" })
    input.addEventListener("change", () => this.upload(plainFiles(input.files ?? []), into))
    input.click()
  }

  /**
   * Whether a drop has files; they are uploaded to a new folder then, or it is said why not.
   * @param {DragEvent} event
   */
  drop(event) {
    if (!hasFiles(event) || !event.dataTransfer) return false
    const input = this.fed()
    if (input) {
      this.say([t("not_taken", { input })])
      return true
    }
    droppedFiles(event.dataTransfer).then(
      (files) => this.upload(files),
      (error) => this.say([t("not_read", { reason: error.message })])
    )
    return true
  }

  /**
   * @param {Dropped[]} dropped
   * @param {string} [into] The folder that they are added to. Without it, they get one of their own.
   */
  async upload(dropped, into) {
    if (this.isBusy) this.meanwhile = [t("not_meanwhile")]
    if (this.isBusy) return this.say(this.said)
    if (!dropped.length) return this.say([t("nothing_dropped")])
    this.meanwhile = []
    this.setBusy(true)
    try {
      const { places, folder, notes } = await planUpload({ files: dropped.map(({ path }) => path), into })
      const taken = dropped.filter(({ path }) => path in places)
      const failures = await this.send(taken, places)
      this.say([...(failures.length < taken.length ? [t("uploaded", { folder })] : []), ...notes, ...failures])
      if (failures.length < taken.length) await this.choose(folder)
    } catch (error) {
      this.say([error.message])
    } finally {
      this.setBusy(false)
    }
  }

  /**
   * Send the files, one after the other, and return what became of those that the server did not take.
   * @param {Dropped[]} files
   * @param {Record<string, string>} places
   */
  async send(files, places) {
    const failures = []
    for (const [index, { file, path }] of files.entries()) {
      this.say([t("uploading", { number: index + 1, count: files.length, name: file.name })])
      try {
        await uploadFile(file, places[path])
      } catch (error) {
        const isTooLarge = error instanceof RequestError && error.status === TOO_LARGE
        failures.push(t(isTooLarge ? "too_large" : "not_uploaded", { name: file.name, reason: error.message }))
      }
    }
    return failures
  }

  /** Say nothing any more, unless of an upload that goes on. */
  clear() {
    if (this.isBusy) return
    this.meanwhile = []
    this.say([])
  }

  /** @param {string[]} lines */
  say(lines) {
    this.said = lines
    this.status.replaceChildren(...[...lines, ...this.meanwhile].map((text) => element("div", { text })))
  }

  /** @param {boolean} isBusy */
  setBusy(isBusy) {
    this.isBusy = this.add.disabled = this.more.disabled = isBusy
  }
}

/** @param {DragEvent} event */
export const hasFiles = (event) => Boolean(event.dataTransfer?.types?.includes("Files"))
