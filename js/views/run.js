// @ts-check
// A training node shows its run, while it trains and afterwards; LoadFinetuned shows the run that was chosen.
import { app } from "../../../scripts/app.js"
import { Chart } from "../common/chart.js"
import { element } from "../common/dom.js"
import { after } from "../common/hooks.js"
import { t } from "../common/i18n.js"
import { nodeThatTrains, onOpened, onShown, ownJobs } from "../common/jobs.js"
import { openLightbox } from "../common/lightbox.js"
import { LOADING, TRAINING } from "../common/node_types.js"
import { panel } from "../common/panel.js"
import { askRun, fetchLiveRuns, fetchRunCard, onProgress, sampleUrl } from "../common/server.js"
import { describeCurves } from "../logic/curves.js"
import { announced, progressLine, runButtons, runFacts, samplePictures } from "../logic/run.js"
import { findWidget, isChosen } from "../logic/widgets.js"

/** @import { Progress, RunCard } from "../common/server.js" */
/** @import { RunButton } from "../logic/run.js" */

const REFRESH_MS = 2000
/** The text of each button, and what it says of itself. */
const BUTTONS = {
  sample: ["draw_now", "draw_now_hint"],
  finish: ["finish", "finish_hint"],
  undo: ["undo", "undo_hint"],
  reopen: ["reopen", "reopen_hint"],
}

/** @type {Set<RunView>} */
const views = new Set()

class RunView {
  /** @type {string | undefined} */
  run
  /** Why something that the user asked for cannot be. */
  refusal = ""
  /** The files of the pictures that the strip shows. @type {string | undefined} */
  files
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer
  /** The buttons that are shown. @type {string | undefined} */
  offered
  loadedAt = 0
  isOutdated = false

  /**
   * @param {HTMLElement} root
   * @param {boolean} withFacts
   */
  constructor(root, withFacts) {
    this.withFacts = withFacts
    this.facts = element("dl", { className: "st-facts" })
    this.curves = element("div", { label: t("curves"), role: "img" })
    this.strip = element("div", { className: "st-strip", role: "group", label: t("samples") })
    this.status = element("div", { className: "st-progress" })
    this.said = element("div", { className: "st-said", role: "status" })
    this.buttons = element("div", { className: "st-buttons" })
    root.append(this.status, this.said, this.buttons, this.facts, this.strip, this.curves)
    root.setAttribute("role", "group")
    root.setAttribute("aria-label", t("run"))
    this.chart = new Chart(this.curves)
    this.resizing = new ResizeObserver(() => this.chart.fit())
    this.resizing.observe(this.curves)
    views.add(this)
  }

  remove() {
    views.delete(this)
    clearTimeout(this.timer)
    this.resizing.disconnect()
    this.chart.clear()
  }

  /** @param {string} run */
  show(run) {
    if (this.run !== run) {
      this.files = undefined
      this.chart.clear()
      this.strip.replaceChildren()
      this.facts.replaceChildren()
      this.showIdle()
    }
    this.run = run
    this.refresh()
  }

  /** Load the run from the server, at most once in REFRESH_MS. A hidden page loads nothing: it refreshes when it is visible. */
  refresh() {
    if (document.hidden || !this.run) return
    if (this.timer) {
      this.isOutdated = true
      return
    }
    const age = Date.now() - this.loadedAt
    this.timer = setTimeout(() => this.load(), Math.max(0, REFRESH_MS - age))
  }

  async load() {
    const run = this.run ?? ""
    this.loadedAt = Date.now()
    this.isOutdated = false
    try {
      const card = await fetchRunCard(run, ownJobs())
      if (run === this.run) this.draw(card)
      if (card.live) this.isOutdated = true // News come to the page that queued it alone, and only while it is connected.
    } catch (error) {
      if (run === this.run) this.status.textContent = t("gone", { reason: error.message })
    } finally {
      this.timer = undefined
      if (this.isOutdated || run !== this.run) this.refresh()
    }
  }

  /** @param {RunCard} card */
  draw(card) {
    if (card.loss.step.length) {
      this.chart.show(card)
      this.curves.setAttribute("aria-label", describeCurves(card, t))
    }
    this.drawSamples(card)
    if (card.live) this.showProgress(card.live)
    else this.showIdle(card.can_go_on, card.stopped)
    if (this.withFacts) this.drawFacts(card)
  }

  /** @param {RunCard} card */
  drawSamples(card) {
    const pictures = samplePictures(card, t).map(({ file, title }) => ({ file, title, url: sampleUrl(card.run, file) }))
    const files = pictures.map(({ file }) => file).join()
    if (files === this.files) return
    this.files = files
    this.strip.replaceChildren(
      ...pictures.map(({ url, title }, index) => {
        const image = element("img", { src: url, alt: title, loading: "lazy" })
        const label = t("open", { name: title })
        return element("button", { type: "button", label, title, onclick: () => openLightbox(pictures, index) }, image)
      })
    )
    this.strip.scrollLeft = this.strip.scrollWidth // The newest picture is the last.
  }

  /** @param {RunCard} card */
  drawFacts(card) {
    const pairs = runFacts(card).map(([key, value]) => [element("dt", { text: t(key) }), element("dd", { text: String(value) })])
    this.facts.replaceChildren(...pairs.flat())
  }

  /** @param {Progress} progress */
  showProgress(progress) {
    if (progress.ended) return this.showIdle()
    const stopping = progress.finishing ? t(progress.can_finish ? "stopping" : "stopped") : ""
    this.say(progressLine(progress, t), stopping, progress.notes, this.refusal)
    this.offer(runButtons(progress))
  }

  showIdle(canGoOn = false, stopped = "") {
    this.refusal = ""
    this.say(stopped)
    this.offer(canGoOn && !this.withFacts ? ["reopen"] : [])
  }

  /** @param {...string} lines */
  say(...lines) {
    const text = lines.filter(Boolean).join("\n")
    this.status.textContent = text
    this.said.textContent = announced(text, this.said.textContent ?? "")
  }

  /**
   * Show these buttons and no others. One that stays is the same element: it keeps the keyboard's focus.
   * @param {RunButton[]} requests
   */
  offer(requests) {
    if (this.offered === requests.join()) return
    this.offered = requests.join()
    const shown = requests.map((request) => {
      const [text, hint] = BUTTONS[request]
      const title = t(hint, { run: this.run })
      return element("button", { type: "button", text: t(text), title, onclick: () => this.ask(request) })
    })
    this.buttons.replaceChildren(...shown)
  }

  /** @param {RunButton} request */
  async ask(request) {
    try {
      this.refusal = ""
      await askRun(this.run ?? "", request, ownJobs())
      if (request === "reopen") app.queuePrompt(0, 1)
    } catch (error) {
      this.refusal = error.message
      this.say(this.refusal)
    }
  }
}

/** @param {Comfy.Node} node */
function viewOf(node) {
  const isTraining = TRAINING.includes(node.comfyClass)
  return panel(node, "run_view", isTraining ? 330 : 420, (root) => new RunView(root, !isTraining))
}

/**
 * Pass progress on to the node that trains, if it is in the workflow that is open.
 * @param {Progress} progress
 */
async function follow(progress) {
  const node = await nodeThatTrains(progress)
  if (!node || !TRAINING.includes(node.comfyClass)) return
  const view = viewOf(node)
  view.showProgress(progress)
  view.refresh()
}

/**
 * The panel has the samples and the curves: ComfyUI's own previews of them, which are for its queue and other clients, would show
 * them once more and make the node larger.
 * @param {Comfy.Node} node
 */
function hideOutputImages(node) {
  node.hideOutputImages = true // where nodes are elements of the page
  node.onDrawBackground = () => {} // on the canvas: here ComfyUI adds them
}

/** Make up for progress that was missed. */
function catchUp() {
  views.forEach((view) => view.refresh())
  const jobs = ownJobs()
  if (jobs.length) fetchLiveRuns(jobs).then((runs) => runs.forEach(follow), () => {}) // Without the server there is nothing to catch up with.
}

app.registerExtension({
  name: "subject_trainer.run_view",
  setup() {
    onProgress(follow, catchUp)
    document.addEventListener("visibilitychange", () => document.hidden || catchUp())
  },
  nodeCreated(node) {
    if (TRAINING.includes(node.comfyClass)) hideOutputImages(node)
    const chooser = node.comfyClass === LOADING && findWidget(node, "run")
    if (!chooser) return
    const show = () => isChosen(chooser.value) && viewOf(node).show(chooser.value)
    after(chooser, "callback", show)
    after(node, "onConfigure", show)
    requestAnimationFrame(show)
  },
})
onOpened(catchUp)
onShown((node, { run }) => {
  if (run && TRAINING.includes(node.comfyClass)) viewOf(node).show(run)
})
