// @ts-check
// A node shows the text that it reports in itself, or why it failed. ComfyUI sends the text again for a cached node, in all
// languages, so that it is also there after the page was reloaded.
import { app } from "../../../scripts/app.js"
import { element } from "../common/dom.js"
import { language, t } from "../common/i18n.js"
import { after } from "../common/hooks.js"
import { onChanged, onShown } from "../common/jobs.js"
import { ALL, DATASET, EVALUATING, TRAINING } from "../common/node_types.js"
import { fitContent, fitPanels, panel, panelView } from "../common/panel.js"
import { allNodes } from "../logic/run.js"
import { isEdited } from "../logic/shown.js"
import { valuesByName } from "../logic/widgets.js"

/** @import { Values } from "../logic/shown.js" */

/** The nodes that tell something; the others only why they fail. */
const TELLING = [DATASET, ...TRAINING, EVALUATING]
const PANEL = "report"

/** What each training node reports, and the values that it was queued with. @type {WeakMap<Comfy.Node, { text: string, queued: Values }>} */
const reports = new WeakMap()

/** @param {HTMLElement} root */
function createReport(root) {
  const report = element("div", { className: "st-report", role: "status", label: t("report") })
  root.append(report)
  return report
}

/**
 * After an edit, say that the report is of the last run: what the widgets say now may be something else.
 * @param {Comfy.Node} node
 */
function markOld(node) {
  const report = panelView(node, PANEL)
  const told = reports.get(node)
  if (!report || !told) return
  const isOld = isEdited(valuesByName(node), told.queued)
  if (report.classList.toggle("st-old", isOld) === report.textContent?.startsWith(t("last_run"))) return
  report.textContent = isOld ? `${t("last_run")}\n${told.text}` : told.text
  fitPanels(node)
}

onShown((node, { output, error }, queued = valuesByName(node)) => {
  if (!ALL.includes(node.comfyClass)) return
  const told = TELLING.includes(node.comfyClass) ? output : undefined
  const text = error ?? told?.told?.[0][language()] ?? told?.text?.[0] ?? ""
  if (!text && !panelView(node, PANEL)) return
  const report = panel(node, PANEL, fitContent, createReport)
  report.textContent = text // None, while it would be of another job.
  report.classList.toggle("st-error", Boolean(error))
  report.classList.remove("st-old")
  if (text && !error && TRAINING.includes(node.comfyClass)) reports.set(node, { text, queued })
  else reports.delete(node)
  fitPanels(node)
  markOld(node)
})

onChanged(() => allNodes(app.graph).forEach(markOld)) // What was filled in, or taken back, called no widget.

app.registerExtension({
  name: "subject_trainer.report",
  nodeCreated(node) {
    if (!TRAINING.includes(node.comfyClass)) return
    for (const widget of node.widgets ?? []) after(widget, "callback", () => markOld(node))
  },
})
