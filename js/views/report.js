// @ts-check
// A node shows the text that it reports in itself, or why it failed. ComfyUI sends the text again for a cached node, in all
// languages, so that it is also there after the page was reloaded.
import { element } from "../common/dom.js"
import { language, t } from "../common/i18n.js"
import { onShown } from "../common/jobs.js"
import { ALL, DATASET, EVALUATING, TRAINING } from "../common/node_types.js"
import { fitContent, fitPanels, panel, panelView } from "../common/panel.js"

/** The nodes that tell something; the others only why they fail. */
const TELLING = [DATASET, ...TRAINING, EVALUATING]
const PANEL = "report"

/** @param {HTMLElement} root */
function createReport(root) {
  const report = element("div", { className: "st-report", role: "status", label: t("report") })
  root.append(report)
  return report
}

onShown((node, { output, error }) => {
  if (!ALL.includes(node.comfyClass)) return
  const told = TELLING.includes(node.comfyClass) ? output : undefined
  const text = error ?? told?.told?.[0][language()] ?? told?.text?.[0] ?? ""
  if (!text && !panelView(node, PANEL)) return
  const report = panel(node, PANEL, fitContent, createReport)
  report.textContent = text // None, while it would be of another job.
  report.classList.toggle("st-error", Boolean(error))
  fitPanels(node)
})
