// @ts-check
// A node shows the text that it reports in itself. ComfyUI sends the text again for a cached node, in all languages, so that
// it is also there after the page was reloaded.
import { app } from "../../../scripts/app.js"
import { element } from "../common/dom.js"
import { after } from "../common/hooks.js"
import { language, t } from "../common/i18n.js"
import { DATASET, TRAINING } from "../common/node_types.js"
import { panel, panelView } from "../common/panel.js"

const NODES = [DATASET, ...TRAINING]
const PANEL = "report"

/** @param {HTMLElement} root */
function createReport(root) {
  const report = element("div", { className: "st-report", role: "status", label: t("report") })
  root.append(report)
  return report
}

/**
 * Empty the report, because it says nothing about a run that begins now.
 * @param {Comfy.Node} node
 */
export function clearReport(node) {
  const report = panelView(node, PANEL)
  if (report) report.textContent = ""
}

app.registerExtension({
  name: "subject_trainer.show_text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!NODES.includes(nodeData.name)) return
    after(nodeType.prototype, "onExecuted", function (output) {
      if (output?.text) panel(this, PANEL, 70, createReport).textContent = output.told?.[0][language()] ?? output.text[0]
    })
  },
})
