// @ts-check
// A node shows the text that it reports in itself. ComfyUI sends the text again for a cached node, in all languages, so that
// it is also there after the page was reloaded.
import { app } from "../../../scripts/app.js"
import { element } from "../common/dom.js"
import { after } from "../common/hooks.js"
import { language, t } from "../common/i18n.js"
import { DATASET, EVALUATING, TRAINING } from "../common/node_types.js"
import { fitContent, fitPanels, panel, panelView } from "../common/panel.js"

const NODES = [DATASET, ...TRAINING, EVALUATING]
const PANEL = "report"

/** @param {HTMLElement} root */
function createReport(root) {
  const report = element("div", { className: "st-report", role: "status", label: t("report") })
  root.append(report)
  return report
}

/**
 * Show a report as high as it is, or none, because it says nothing about a run that begins now.
 * @param {Comfy.Node} node
 * @param {string} text
 */
export function showReport(node, text) {
  if (!text && !panelView(node, PANEL)) return
  panel(node, PANEL, fitContent, createReport).textContent = text
  fitPanels(node)
}

app.registerExtension({
  name: "subject_trainer.show_text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (output?.text) showReport(this, output.told?.[0][language()] ?? output.text[0])
    })
  },
})
