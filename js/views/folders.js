// @ts-check
// DatasetLoader's choice of a folder: how many photos each has, one that was made just now, and none while pictures are wired.
import { app } from "../../../scripts/app.js"
import { t } from "../common/i18n.js"
import { DATASET } from "../common/node_types.js"
import { fetchFolders } from "../common/server.js"
import { findWidget } from "../logic/widgets.js"

/** How many photos each folder has, by its name. @type {Record<string, number>} */
let counts = {}

/**
 * Show the folders' counts of photos beside their names; a folder stays its plain name in the graph.
 * @param {Comfy.Node} node
 */
export function labelFolders(node) {
  const widget = findWidget(node, "folder")
  if (!widget?.options) return
  widget.options.getOptionLabel = (folder) =>
    folder && folder in counts ? t("folder_label", { folder, count: counts[folder] }) : String(folder ?? "")
}

/**
 * Choose a folder that the node may not offer yet.
 * @param {Comfy.Node} node
 * @param {string} folder
 */
export async function chooseFolder(node, folder) {
  const found = await fetchFolders()
  counts = found.counts
  const widget = findWidget(node, "folder")
  if (!widget) return
  if (widget.options) widget.options.values = found.options
  node.graph?.beforeChange()
  widget.value = folder
  widget.callback?.(folder)
  node.graph?.afterChange()
}

/**
 * Hide the choice of a folder, or show it again.
 * @param {Comfy.Node} node
 * @param {boolean} isHidden
 */
export function hideFolder(node, isHidden) {
  const widget = findWidget(node, "folder")
  if (!widget?.options) return
  widget.hidden = isHidden // on the canvas
  widget.options.hidden = isHidden // where nodes are elements of the page, which look at it when `disabled` changes
  widget.disabled = isHidden
  node.setDirtyCanvas(true, true)
}

app.registerExtension({
  name: "subject_trainer.folders",
  beforeRegisterNodeDef(_, nodeData) {
    if (nodeData.name === DATASET) counts = nodeData.input?.required?.folder?.[1]?.counts ?? {}
  },
})
