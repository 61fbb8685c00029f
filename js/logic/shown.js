// @ts-check
// What the nodes of a workflow have shown last, each by the job of ComfyUI's queue that it came of.

/**
 * What ComfyUI sends as a node's output, of this pack's nodes: `told` is `text` in the other languages.
 * @typedef {{ text?: string[], told?: Record<string, string>[], run?: string[], captions?: any[], panel?: any[] }} Output
 */
/**
 * The job, the run that it trained or loaded, what the node told, and why it failed; `after`: the newest job when the node was
 * refused, where nothing was queued; `forgotten`: what it told is not of what its widgets say now, but what it has read still is.
 * @typedef {{ prompt: string, run?: string, output?: Output, error?: string, after?: string, forgotten?: boolean }} Shown
 */
/** The values of widgets by name. @typedef {Record<string, any>} Values */
/**
 * `jobs`: those that were queued from the workflow, the newest last; `waiting`: those of them that have not ended, as far as the
 * page knows; `nodes`: by their ids, "12:5" in a subgraph; `queued`: what training nodes were queued with, by job and id.
 * @typedef {{ jobs: string[], waiting: string[], nodes: Record<string, Shown>, queued: Record<string, Record<string, Values>> }} Bound
 */

const MAX_JOBS = 20
const MAX_WORKFLOWS = 100

/** @returns {Bound} */
export const nothing = () => ({ jobs: [], waiting: [], nodes: {}, queued: {} })

/**
 * Bind a job to the workflow that it was queued from. Older ones that have ended are forgotten.
 * @param {Bound} bound
 * @param {string} prompt
 * @param {Record<string, Values>} [queued] What its training nodes were queued with, by their ids.
 */
export function bindJob(bound, prompt, queued = {}) {
  const jobs = [...bound.jobs.filter((job) => job !== prompt), prompt]
  bound.waiting = [...bound.waiting.filter((job) => job !== prompt), prompt]
  bound.jobs = jobs.filter((job, index) => index >= jobs.length - MAX_JOBS || bound.waiting.includes(job))
  bound.queued = { ...neededValues(bound), [prompt]: queued }
}

/**
 * What nodes were queued with, of the jobs that wait and of those that nodes show: of others nothing asks for it.
 * @param {Bound} bound
 */
function neededValues({ waiting, nodes, queued }) {
  const needed = new Set([...waiting, ...Object.values(nodes).map(({ prompt }) => prompt)])
  return Object.fromEntries(Object.entries(queued).filter(([prompt]) => needed.has(prompt)))
}

/**
 * Whether a node was edited since the job was queued that it shows. A widget that it had not yet then does not count.
 * @param {Values} now
 * @param {Values} queued
 */
export const isEdited = (now, queued) => Object.entries(queued).some(([name, value]) => name in now && now[name] !== value)

/**
 * Note that a job has ended; without its name, that all have.
 * @param {Bound} bound
 * @param {string} [prompt]
 */
export function endJob(bound, prompt) {
  bound.waiting = bound.waiting.filter((job) => prompt !== undefined && job !== prompt)
  bound.queued = neededValues(bound)
}

/**
 * The jobs that the server is asked about, which takes no endless list: the newest, and of those that wait the ones that come
 * next.
 * @param {Bound} bound
 */
export const askedJobs = ({ jobs, waiting }) => [...new Set([...waiting.slice(0, MAX_JOBS), ...jobs.slice(-MAX_JOBS)])]

/**
 * Note what a node shows. Of another job, only the run stays in sight: its report and its error are of the past.
 * @param {Bound} bound
 * @param {string} id
 * @param {Shown} shown
 */
export function note(bound, id, shown) {
  const before = bound.nodes[id]
  bound.nodes[id] = { ...(before?.prompt === shown.prompt ? before : { run: before?.run }), ...shown }
}

/**
 * Forget why nodes have failed before the job that begins was queued, or all that failed, and return the ids of those that had.
 * @param {Bound} bound
 * @param {string} [prompt]
 */
export function forgetErrors({ jobs, nodes }, prompt) {
  /** @param {Shown} shown */
  const isOlder = (shown) => !prompt || jobs.indexOf(shown.after ?? shown.prompt) < jobs.indexOf(prompt)
  const failed = Object.keys(nodes).filter((id) => nodes[id].error && isOlder(nodes[id]))
  for (const id of failed) {
    delete nodes[id].error
    delete nodes[id].after
  }
  return failed
}

/** @param {Shown} shown @returns {Shown} */
function withoutReport({ prompt, output }) {
  return { prompt, forgotten: true, ...(output?.panel && { output: { panel: output.panel } }) }
}

/**
 * Forget what a node has told.
 * @param {Bound} bound
 * @param {string} id
 */
export function forgetReport(bound, id) {
  bound.nodes[id] = withoutReport(bound.nodes[id])
}

/**
 * Why ComfyUI has not queued nodes, by their ids: in this pack's words where it has some, else in ComfyUI's.
 * @param {Record<string, { errors: { type: string, message: string, details: string }[] }> | null} [refused]
 * @returns {Record<string, string>}
 */
export function fromRefusal(refused) {
  /** @type {Record<string, string>} */
  const found = {}
  for (const [id, { errors }] of Object.entries(refused ?? {})) {
    const own = errors.filter(({ type }) => type === "custom_validation_failed").map(({ details }) => details.replace(/^\S+ - /, ""))
    const theirs = errors.map(({ message, details }) => [message, details].filter(Boolean).join(": "))
    if (errors.length) found[id] = [...new Set(own.length ? own : theirs)].join("\n")
  }
  return found
}

/**
 * Whether a graph that is opened is a copy that the page makes of the open one ("save as", "duplicate"): it then has a new id,
 * and is in no file yet. A file that is opened again has the id that it had, or as a template none.
 * @param {{ id?: string, nodes: unknown } | undefined} opened
 * @param {{ id?: string, nodes: unknown } | undefined | null} before
 * @param {boolean} [isSaved]
 */
export function isCopy(opened, before, isSaved = false) {
  if (isSaved || !opened?.id || !before || opened.id === before.id) return false
  return JSON.stringify(opened.nodes) === JSON.stringify(before.nodes)
}

/**
 * What is kept for when the page is loaded again: jobs, what they were queued with, and runs by workflow, of the newest
 * workflows. What the nodes told, ComfyUI's history has.
 * @param {Record<string, Bound>} kept
 * @param {string} key
 * @param {Bound} bound
 * @returns {Record<string, Bound>}
 */
export function withKept(kept, key, { jobs, waiting, nodes, queued }) {
  const others = Object.entries(kept).filter(([other]) => other !== key)
  const runs = Object.entries(nodes).map(([id, { prompt, run, forgotten }]) => [id, { prompt, run, ...(forgotten && { forgotten }) }])
  return Object.fromEntries([...others.slice(1 - MAX_WORKFLOWS), [key, { jobs, waiting, nodes: Object.fromEntries(runs), queued }]])
}

/**
 * What ComfyUI's history of a job says of its nodes.
 * @param {string} prompt
 * @param {{ outputs?: Record<string, Output>, status?: { messages?: [event: string, data: any][] } } | undefined} entry
 * @returns {Record<string, Shown>}
 */
export function fromHistory(prompt, entry) {
  /** @type {Record<string, Shown>} */
  const found = {}
  for (const [id, output] of Object.entries(entry?.outputs ?? {})) {
    found[id] = { prompt, output, ...(output.run && { run: output.run[0] }) }
  }
  for (const [event, data] of entry?.status?.messages ?? []) {
    if (event === "execution_error") found[data.node_id] = { prompt, error: data.exception_message }
  }
  return found
}

/**
 * Note what ComfyUI's history says of a job, and return the ids of the nodes that the page had not heard of, nor of a later job.
 * @param {Bound} bound
 * @param {string} prompt
 * @param {Parameters<typeof fromHistory>[1]} entry
 */
export function noteHistory(bound, prompt, entry) {
  const { jobs, nodes } = bound
  /** @param {string} id */
  const isNews = (id) => {
    const known = nodes[id]
    if (known?.prompt === prompt) return !known.output && !known.error
    return jobs.indexOf(known?.prompt ?? "") < jobs.indexOf(prompt)
  }
  const news = Object.entries(fromHistory(prompt, entry)).filter(([id]) => isNews(id))
  for (const [id, shown] of news) {
    const isForgotten = nodes[id]?.prompt === prompt && nodes[id].forgotten
    note(bound, id, isForgotten ? withoutReport(shown) : shown)
  }
  return news.map(([id]) => id)
}
