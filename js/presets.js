// DreamBoothTrain's preset widget fills in the other widgets, where the artist sees and can change what it chose.
import { app } from "../../scripts/app.js"
import { fitAdvanced } from "./advanced.js"
import { after } from "./after.js"

const presets = await (await fetch(new URL("./presets.json", import.meta.url))).json()

app.registerExtension({
  name: "subject_trainer.presets",
  nodeCreated(node) {
    if (node.comfyClass !== "DreamBoothTrain") return
    const chooser = node.widgets?.find((widget) => widget.name === "preset")
    if (!chooser) return
    after(chooser, "callback", (choice) => {
      for (const [name, value] of Object.entries(presets[choice] ?? {})) {
        const widget = node.widgets.find((w) => w.name === name)
        if (widget) widget.value = value
      }
      fitAdvanced(node)
      node.setDirtyCanvas(true)
    })
  },
})
