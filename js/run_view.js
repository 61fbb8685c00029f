// What a training node shows of its run, while it trains and afterwards, and what LoadFinetuned shows of the chosen one.
import { app } from "../../scripts/app.js"
import { after } from "./after.js"
import { Chart } from "./chart.js"
import { openLarge } from "./lightbox.js"
import { element, panel } from "./panel.js"
import { finishRun, liveRuns, onLive, runCard, sampleUrl } from "./server.js"
import { clearReport } from "./show_text.js"
import { t } from "./words.js"

const TRAINING = ["DreamBoothTrain", "TextualInversionTrain"]
const LOADING = "LoadFinetuned"
const PROPERTY = "subject_trainer_run" // which run a node showed last, so that it is there again after a reload
const REFRESH_MS = 2000
const views = new Set()

class RunView {
  constructor(root) {
    this.facts = element("dl", { className: "st-facts" })
    this.curves = element("div", { label: t("curves"), role: "img" })
    this.strip = element("div", { className: "st-strip", role: "group", label: t("samples") })
    this.state = element("span", { role: "status" })
    this.button = element("button", { type: "button", text: t("finish"), hidden: true, onclick: () => this.finish() })
    root.append(element("div", { className: "st-head" }, this.state, this.button), this.facts, this.curves, this.strip)
    root.setAttribute("role", "group")
    root.setAttribute("aria-label", t("run"))
    this.chart = new Chart(this.curves)
    this.width = new ResizeObserver(() => this.chart.fit())
    this.width.observe(this.curves)
    views.add(this)
  }

  remove() {
    views.delete(this)
    clearTimeout(this.waiting)
    this.width.disconnect()
    this.chart.clear()
  }

  // The run to show; what is drawn comes from the server, at most once in REFRESH_MS.
  show(run, { facts = false } = {}) {
    if (this.run !== run) {
      this.samples = undefined
      this.chart.clear()
      this.strip.replaceChildren()
      this.facts.replaceChildren()
      this.rest()
    }
    this.run = run
    this.withFacts = facts
    this.refresh()
  }

  refresh() {
    if (document.hidden || !this.run) return // it comes again when the page is seen
    if (this.waiting) {
      this.again = true
      return
    }
    const since = Date.now() - (this.drawn ?? 0)
    this.waiting = setTimeout(async () => {
      const run = this.run
      this.drawn = Date.now()
      this.again = false
      try {
        const card = await runCard(run)
        if (run === this.run) this.draw(card)
      } catch (error) {
        if (run === this.run) this.state.textContent = t("gone", { reason: error.message })
      } finally {
        this.waiting = undefined
        if (this.again || run !== this.run) this.refresh()
      }
    }, Math.max(0, REFRESH_MS - since))
  }

  draw(card) {
    if (card.loss.step.length) this.chart.show(card)
    this.drawSamples(card)
    if (card.live) this.follow(card.live)
    else this.rest()
    if (this.withFacts) this.drawFacts(card)
  }

  drawSamples({ run, samples, prompts, grid }) {
    const names = [...samples.map((sample) => sample.file), grid].join()
    if (names === this.samples) return
    this.samples = names
    const pictures = samples.map(({ step, prompt, file }) => {
      const name = t("sample", { step, prompt: prompts[prompt] ?? prompt })
      return { url: sampleUrl(run, file), name }
    })
    if (grid) pictures.push({ url: sampleUrl(run, grid), name: t("grid") })
    this.strip.replaceChildren(
      ...pictures.map((picture, index) => {
        const image = element("img", { src: picture.url, alt: picture.name, loading: "lazy" })
        const label = t("open", { name: picture.name })
        return element("button", { type: "button", label, title: picture.name, onclick: () => openLarge(pictures, index) }, image)
      })
    )
    this.strip.scrollLeft = this.strip.scrollWidth // the newest
  }

  drawFacts({ facts, steps }) {
    const shown = {
      trigger: facts.trigger,
      token: facts.token,
      class_word: facts.class,
      base: facts.base,
      steps: facts.exported_step ?? steps,
      photos: facts.photos,
      date: facts.date,
    }
    this.facts.replaceChildren(
      ...Object.entries(shown)
        .filter(([, value]) => value !== "")
        .flatMap(([key, value]) => [element("dt", { text: t(key) }), element("dd", { text: String(value) })])
    )
  }

  // News of the run while it trains.
  follow({ text, memory, can_finish: canFinish, ended }) {
    if (ended) return this.rest()
    const lines = [text, memory ? t("memory", { gb: (memory / 1e9).toFixed(1) }) : ""].filter(Boolean)
    this.state.textContent = lines.join(" · ")
    this.button.hidden = false
    this.button.disabled = !canFinish || this.asked === this.run
    this.button.textContent = this.asked === this.run ? t("finishing") : t("finish")
  }

  rest() {
    this.state.textContent = ""
    this.button.hidden = true
    this.asked = undefined
  }

  async finish() {
    this.asked = this.run
    this.button.disabled = true
    this.button.textContent = t("finishing")
    try {
      await finishRun(this.run)
    } catch (error) {
      this.asked = undefined
      this.state.textContent = error.message
    }
  }
}

const viewOf = (node) => panel(node, "run_view", TRAINING.includes(node.comfyClass) ? 330 : 420, (root) => new RunView(root))

const showRun = (node, run) => viewOf(node).show(run, { facts: node.comfyClass === LOADING })

// The training node of the open workflow that a message is about, also in a subgraph, where ids are "12:5".
function nodeOf({ node: path, workflow }) {
  let graph = app.graph
  if (workflow !== graph?.id) return undefined
  let node
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(Number(id))
    graph = node?.subgraph
  }
  return node && TRAINING.includes(node.comfyClass) ? node : undefined
}

function follow(live) {
  const node = nodeOf(live)
  if (!node) return
  const view = viewOf(node)
  if (view.run !== live.run) {
    showRun(node, live.run)
    clearReport(node)
  }
  view.follow(live)
  view.refresh()
}

function catchUp() {
  views.forEach((view) => view.refresh())
  liveRuns().then((runs) => runs.forEach(follow), () => {})
}

app.registerExtension({
  name: "subject_trainer.run_view",
  setup() {
    onLive(follow, catchUp)
    document.addEventListener("visibilitychange", () => document.hidden || catchUp())
  },
  afterConfigureGraph() {
    for (const node of app.graph.nodes) {
      const run = node.properties?.[PROPERTY]
      if (run && TRAINING.includes(node.comfyClass)) showRun(node, run)
    }
    catchUp()
  },
  nodeCreated(node) {
    if (node.comfyClass !== LOADING) return
    const chooser = node.widgets?.find((widget) => widget.name === "run")
    if (!chooser) return
    const show = () => chooser.value && !chooser.value.startsWith("(") && showRun(node, chooser.value)
    after(chooser, "callback", show)
    after(node, "onConfigure", show)
    requestAnimationFrame(show)
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!TRAINING.includes(nodeData.name)) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (!output?.run) return
      this.properties[PROPERTY] = output.run[0]
      showRun(this, output.run[0])
    })
  },
})
