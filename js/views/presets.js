// @ts-check
// DreamBoothTrain's preset fills in the node's other widgets, where the user sees and can change what it chose.
import { app } from "../../../scripts/app.js"
import { after } from "../common/hooks.js"
import { DREAMBOOTH } from "../common/node_types.js"
import { applyPreset, findWidget } from "../logic/widgets.js"
import { fitAdvanced } from "./advanced.js"

/** @type {Record<string, Record<string, unknown>>} */
const presets = await (await fetch(new URL("../presets.json", import.meta.url))).json()

app.registerExtension({
  name: "subject_trainer.presets",
  nodeCreated(node) {
    const chooser = node.comfyClass === DREAMBOOTH && findWidget(node, "preset")
    if (!chooser) return
    after(chooser, "callback", (choice) => {
      applyPreset(node, presets[choice])
      fitAdvanced(node)
      node.setDirtyCanvas(true)
    })
  },
})
