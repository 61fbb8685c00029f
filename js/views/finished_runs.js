// @ts-check
// LoadFinetuned's choice of a run: each with its date and steps, and one that was finished just now among them.
import { app } from "../../../scripts/app.js"
import { t } from "../common/i18n.js"
import { onShown } from "../common/jobs.js"
import { LOADING, TRAINING } from "../common/node_types.js"
import { fetchFinishedRuns } from "../common/server.js"
import { allNodes } from "../logic/run.js"
import { findWidget } from "../logic/widgets.js"

/** @import { FinishedRuns } from "../common/server.js" */

/** @type {FinishedRuns} */
let known = {}

/** @param {string | null} run */
function labelOf(run) {
  const found = run === null ? undefined : known[run]
  return found ? t(found.step === null ? "run_label" : "run_label_steps", { run, ...found }) : String(run ?? "")
}

/** Offer the runs that are finished by now in every node that loads one. */
async function offerAgain() {
  const { options, runs } = await fetchFinishedRuns()
  known = runs
  for (const node of allNodes(app.graph)) {
    const widget = node.comfyClass === LOADING ? findWidget(node, "run") : undefined
    if (widget?.options) widget.options.values = options
  }
}

app.registerExtension({
  name: "subject_trainer.finished_runs",
  beforeRegisterNodeDef(_, nodeData) {
    if (nodeData.name === LOADING) known = nodeData.input?.required?.run?.[1]?.runs ?? {}
  },
  nodeCreated(node) {
    const options = node.comfyClass === LOADING && findWidget(node, "run")?.options
    if (!options) return
    options.getOptionLabel = labelOf
    if (Object.keys(known).length) options.values = Object.keys(known)
  },
})
onShown((node, { output }) => {
  if (TRAINING.includes(node.comfyClass) && output?.run?.some((run) => !(run in known))) offerAgain()
})
