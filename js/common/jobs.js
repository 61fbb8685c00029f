// @ts-check
// Which node shows what of which job. ComfyUI gives what a node shows to the node with its number in whatever workflow is open
// when it comes; here it goes to the workflow that the job was queued from, and is there again when that is opened again. The
// workflow's file has nothing of this.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { findNode } from "../logic/run.js"
import { valuesByName } from "../logic/widgets.js"
import { askedJobs, bindJob, endJob, forgetErrors, forgetReport, fromRefusal, isCopy, note } from "../logic/shown.js"
import { noteHistory, nothing, withKept } from "../logic/shown.js"
import { TRAINING } from "./node_types.js"

/** @import { Bound, Shown, Values } from "../logic/shown.js" */
/** @import { Progress } from "./server.js" */

const STORAGE = "SubjectTrainer.Shown"

/**
 * What is bound to an open workflow, what it is kept under, and the jobs that ComfyUI's history has told all of.
 * @typedef {{ bound: Bound, graph: string, key?: string, told: Set<string> }} Tab
 */
/** By what ComfyUI tracks a workflow's changes with: the same object for as long as its tab is open. @type {WeakMap<object, Tab>} */
const tabs = new WeakMap()
/** @type {((node: Comfy.Node, shown: Shown, queued?: Values) => void)[]} */
const listeners = []
/** @type {(() => void)[]} */
const openListeners = []
/** @type {(() => Promise<unknown>)[]} */
const beforehand = []
/** Resolves once it is known from which workflow the newest job was queued: its first events may come before. */
let queueing = Promise.resolve()

const workflows = () => app.extensionManager?.workflow

/** The workflow that is open; undefined before the page has one. @returns {Tab | undefined} */
function currentTab() {
  const tracker = workflows()?.activeWorkflow?.changeTracker
  if (!tracker) return undefined
  const tab = tabs.get(tracker) ?? { bound: nothing(), graph: app.graph?.id ?? "", told: new Set() }
  tabs.set(tracker, tab)
  return tab
}

/** @returns {Record<string, Bound>} */
function readKept() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE) ?? "{}")
  } catch {
    return {} // Somebody else wrote it.
  }
}

/**
 * Where a workflow is kept. Its graph's id alone would not tell copies of a file apart, nor its path alone two workflows that were
 * never saved.
 * @param {Comfy.Tracker} tracker
 * @param {string} graph
 */
const keyOf = (tracker, graph) => `${tracker.workflow.path}\n${graph}`

/**
 * Keep what is bound to a workflow for when the page is loaded again.
 * @param {Comfy.Tracker} tracker
 */
function keep(tracker) {
  const tab = tabs.get(tracker)
  if (!tab || !tab.bound.jobs.length) return
  const kept = readKept()
  if (tab.key) delete kept[tab.key] // It may have been saved under another name.
  tab.key = keyOf(tracker, tab.graph)
  try {
    localStorage.setItem(STORAGE, JSON.stringify(withKept(kept, tab.key, tab.bound)))
  } catch {
    // The storage is full: the panels will be empty once the page was loaded again.
  }
}

/**
 * Let each open workflow that a job was queued from do something.
 * @param {string} prompt
 * @param {(tab: Tab) => void} act
 */
function forJob(prompt, act) {
  for (const { changeTracker: tracker } of workflows()?.openWorkflows ?? []) {
    const tab = tracker && tabs.get(tracker)
    if (!tracker || !tab?.bound.jobs.includes(prompt)) continue
    act(tab)
    keep(tracker)
  }
}

/** @param {Tab} tab @param {string} id */
function tell(tab, id) {
  const node = tab === currentTab() ? findNode(app.graph, id) : undefined
  if (!node) return
  const { nodes, queued } = tab.bound
  listeners.forEach((listener) => listener(node, nodes[id], queued[nodes[id].prompt]?.[id]))
}

/** @param {string} id @param {Shown} shown */
function receive(id, shown) {
  forJob(shown.prompt, (tab) => {
    note(tab.bound, id, shown)
    tell(tab, id)
  })
}

/**
 * Let nodes say why they were not queued. ComfyUI may have queued the rest of the graph as a job.
 * @param {Tab | undefined} tab
 * @param {Parameters<typeof fromRefusal>[0]} refused
 * @param {string} [prompt]
 */
function showRefusals(tab, refused, prompt) {
  if (!tab || !Object.keys(refused ?? {}).length) return
  forgetErrors(tab.bound).forEach((id) => tell(tab, id))
  for (const [id, error] of Object.entries(fromRefusal(refused))) {
    const job = prompt ? { prompt } : { prompt: tab.bound.nodes[id]?.prompt ?? "", after: tab.bound.jobs.at(-1) ?? "" }
    note(tab.bound, id, { ...job, error })
    tell(tab, id)
  }
}

/** @param {string} prompt @returns {Promise<Record<string, any> | undefined>} Nothing without the server. */
const fetchHistory = (prompt) => api.fetchApi(`/history/${prompt}`).then((response) => response.json()).catch(() => undefined)

/**
 * Show what the nodes told before the page was loaded, or while it was not connected: ComfyUI's history has it.
 * @param {Tab} tab
 */
async function showMissed(tab) {
  const { bound, told } = tab
  const asked = askedJobs(bound)
  const untold = bound.jobs.filter((prompt) => asked.includes(prompt) && !told.has(prompt)) // The oldest first.
  const answers = await Promise.all(untold.map(fetchHistory))
  const changed = untold.flatMap((prompt, index) => {
    const entry = answers[index]?.[prompt]
    if (entry) endJob(bound, prompt)
    if (answers[index] && !bound.waiting.includes(prompt)) told.add(prompt)
    return noteHistory(bound, prompt, entry)
  })
  new Set(changed).forEach((id) => tell(tab, id))
}

/**
 * Show again what the nodes of the workflow that was opened have shown.
 * @param {Tab} tab
 */
function showAgain(tab) {
  Object.keys(tab.bound.nodes).forEach((id) => tell(tab, id))
  showMissed(tab)
}

const load = app.loadGraphData.bind(app)
app.loadGraphData = async (...given) => {
  const before = workflows()?.activeWorkflow?.changeTracker
  const isSaved = given[3]?.isTemporary === false // The workflow that is opened: of "save as", it is saved afterwards.
  const result = await load(...given)
  const tracker = workflows()?.activeWorkflow?.changeTracker
  if (!tracker) return result
  if (!tabs.has(tracker)) {
    const graph = app.graph?.id ?? ""
    const isOther = before && before !== tracker
    const copied = isOther && isCopy(given[0], before.activeState, isSaved) ? tabs.get(before)?.bound : undefined
    const bound = structuredClone(copied ?? readKept()[keyOf(tracker, graph)])
    tabs.set(tracker, { bound: { ...nothing(), ...bound }, graph, told: new Set() })
    keep(tracker)
  }
  const tab = currentTab()
  if (tab) showAgain(tab)
  openListeners.forEach((listener) => listener())
  return result
}

/**
 * What the training nodes of a graph that is being queued have in their widgets, by their ids.
 * @param {{ output?: object } | undefined} graph
 */
function valuesToQueue(graph) {
  const nodes = Object.keys(graph?.output ?? {}).map((id) => /** @type {const} */ ([id, findNode(app.graph, id)]))
  return Object.fromEntries(nodes.flatMap(([id, node]) => (node && TRAINING.includes(node.comfyClass) ? [[id, valuesByName(node)]] : [])))
}

const queue = api.queuePrompt.bind(api)
api.queuePrompt = (...given) => {
  const tracker = workflows()?.activeWorkflow?.changeTracker
  const tab = currentTab()
  const values = valuesToQueue(given[1])
  const queued = Promise.all(beforehand.map((prepare) => prepare())).then(() => queue(...given))
  queueing = queued.then(
    ({ prompt_id: prompt, node_errors: refused }) => {
      if (tab && prompt) bindJob(tab.bound, prompt, values)
      if (tracker) keep(tracker)
      showRefusals(tab, refused, prompt)
    },
    (error) => showRefusals(tab, error?.response?.node_errors)
  )
  return queueing.then(() => queued)
}

api.addEventListener("executed", async ({ detail: { prompt_id: prompt, display_node, node, output } }) => {
  await queueing
  const run = output?.run?.[0]
  if (output) receive(String(display_node ?? node), run ? { prompt, output, run } : { prompt, output })
})
api.addEventListener("execution_start", async ({ detail: { prompt_id: prompt } }) => {
  await queueing
  forJob(prompt, (tab) => forgetErrors(tab.bound, prompt).forEach((id) => tell(tab, id)))
})
api.addEventListener("execution_error", async ({ detail: { prompt_id: prompt, node_id: node, exception_message: error } }) => {
  await queueing
  receive(String(node), { prompt, error })
})
for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
  api.addEventListener(end, async ({ detail: { prompt_id: prompt } }) => {
    await queueing
    forJob(prompt, ({ bound }) => endJob(bound, prompt))
  })
}
api.addEventListener("reconnected", () => {
  const tab = currentTab()
  if (tab) showMissed(tab)
})
// A job that was taken from the queue tells nothing, nor one that ended while the page was not connected.
api.addEventListener("status", ({ detail }) => {
  if (detail?.exec_info?.queue_remaining !== 0) return
  for (const { changeTracker: tracker } of workflows()?.openWorkflows ?? []) {
    const tab = tracker && tabs.get(tracker)
    if (tab) endJob(tab.bound)
  }
})
addEventListener("pagehide", () => workflows()?.openWorkflows.forEach(({ changeTracker }) => changeTracker && keep(changeTracker)))

/**
 * `listener` gets the node, what it shows, and the values that a training node was queued with for that, as far as they are known:
 * for each node of a workflow that is opened, and whenever that changes.
 * @param {(node: Comfy.Node, shown: Shown, queued?: Values) => void} listener
 */
export const onShown = (listener) => listeners.push(listener)

/** @param {() => void} listener Called when a workflow was opened. */
export const onOpened = (listener) => openListeners.push(listener)

/** @param {() => void} listener Called when a workflow was opened, or changed, were it only that a node was muted. */
export function onChanged(listener) {
  api.addEventListener("graphChanged", listener)
  onOpened(listener)
}

/**
 * Queueing waits for what `prepare` returns, and does not happen when that fails.
 * @param {() => Promise<unknown>} prepare
 */
export const beforeQueueing = (prepare) => beforehand.push(prepare)

/** Jobs of the workflow that is open, one that runs now among them: their runs are the page's to stop. */
export const ownJobs = () => askedJobs(currentTab()?.bound ?? nothing())

/**
 * What a node of the open workflow shows, as a pair of its id and that.
 * @param {Comfy.Node} node
 */
const entryOf = (node) => Object.entries(currentTab()?.bound.nodes ?? {}).find(([id]) => findNode(app.graph, id) === node)

/**
 * The run that a node of the open workflow showed last.
 * @param {Comfy.Node} node
 */
export const shownRun = (node) => entryOf(node)?.[1].run

/**
 * Show no more what a node has told: it is not of what its widgets say now.
 * @param {Comfy.Node} node
 */
export function forget(node) {
  const tab = currentTab()
  const [id, shown] = entryOf(node) ?? []
  if (!tab || !id || !shown || (!shown.output && !shown.error)) return
  forgetReport(tab.bound, id)
  listeners.forEach((listener) => listener(node, tab.bound.nodes[id]))
}

/**
 * Bind a run that trains now to its node, and return the node if its workflow is open.
 * @param {Progress} progress
 * @returns {Promise<Comfy.Node | undefined>}
 */
export async function nodeThatTrains({ prompt, node, run }) {
  await queueing
  const tab = currentTab()
  forJob(prompt, ({ bound }) => {
    if (bound.nodes[node]?.prompt !== prompt || bound.nodes[node].run !== run) receive(node, { prompt, run })
  })
  return tab?.bound.jobs.includes(prompt) ? findNode(app.graph, node) : undefined
}
