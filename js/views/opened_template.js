// @ts-check
// A template is shown from its beginning, and so large that it can be read: ComfyUI shows the whole of it, however small.
import { app } from "../../../scripts/app.js"
import { readableView } from "../logic/view.js"

/** The mark of a shipped workflow. It goes when one is opened, so that what the user saves of it opens as it was left. */
const MARK = "subject_trainer_template"

app.registerExtension({
  name: "subject_trainer.opened_template",
  afterConfigureGraph() {
    const { graph, canvas } = app
    if (!canvas || !graph?.extra?.[MARK]) return
    delete graph.extra[MARK]
    const bounds = canvas.canvas.getBoundingClientRect()
    // ComfyUI sets its own view behind this call, and where the page is new only when it is drawn first.
    const show = () => {
      Object.assign(canvas.ds, readableView(graph.nodes.map((node) => [...node.boundingRect]), bounds))
      canvas.setDirty(true, true)
    }
    requestAnimationFrame(() => requestAnimationFrame(show))
  },
})
