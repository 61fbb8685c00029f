// @ts-check
// The pack's own routes and events on the server, and ComfyUI's route for pictures.
import { api } from "../../../scripts/api.js"
import { language } from "./i18n.js"
import { DATASET, LOADING } from "./node_types.js"

/**
 * How a run goes that trains now: `node` and `prompt`, its job, tell where its node is, `memory` is in bytes, 0 while unknown.
 * `finishing`: the user has asked for the result of the steps done so far; `has_prompts`: samples can be drawn.
 * @typedef {{
 *   run: string, node: string, prompt: string, text: string, notes: string, memory: number, can_finish: boolean,
 *   finishing: boolean, has_prompts: boolean, ended?: boolean
 * }} Progress
 */
/**
 * A table of curves: the steps, and for each curve as many values; null where it has none.
 * @typedef {Record<string, (number | null)[]> & { step: number[] }} Curves
 */
/**
 * A run as the server describes it: `decided` is what its presets' settings became, `samples` name their prompt by its place in `prompts`, `live` is null unless a job that was asked for trains it, `stopped` says how far a run came that was cancelled.
 * @typedef {{
 *   run: string,
 *   steps: number,
 *   decided: Record<string, any>,
 *   facts: {
 *     token: string, class: string, trigger: string, base: string, photos: number, date: string, exported_step?: number | null,
 *     step_to_use?: number | null
 *   },
 *   prompts: string[],
 *   samples: { step: number, prompt: number, file: string }[],
 *   grid: string,
 *   can_go_on: boolean,
 *   stopped: string,
 *   loss: Curves,
 *   measured: Curves,
 *   live: Progress | null,
 * }} RunCard
 */
/** @typedef {{ folder: string, resolution: number, crop: string }} PhotoSettings */
/**
 * A picture of a folder; without a caption, it can neither be shown nor get one, and its notes say why. `settled`: its caption is
 * in a file beside it, be it empty.
 * @typedef {{ name: string, caption: string | null, settled: boolean, notes: string[] }} Photo
 */

const ROOT = "/subject_trainer"
const RETRY_MS = 5000

/** The server refused a request; `answer` is what it sent as JSON. */
export class RequestError extends Error {
  /**
   * @param {number} status
   * @param {{ error?: string, caption?: string }} answer
   */
  constructor(status, answer) {
    super(answer.error ?? `HTTP ${status}`)
    this.status = status
    this.answer = answer
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 */
async function request(path, options = {}) {
  const headers = { ...options.headers, "Accept-Language": language() }
  const response = await api.fetchApi(ROOT + path, { ...options, headers })
  const answer = await response.json().catch(() => ({}))
  if (!response.ok) throw new RequestError(response.status, answer)
  return answer
}

/** @param {Record<string, any>} values */
const query = (values) => new URLSearchParams(values).toString()

/** @param {string[]} jobs */
const named = (jobs) => new URLSearchParams(jobs.map((job) => ["prompt", job])).toString()

/**
 * @param {string} path
 * @param {object} body
 */
const post = (path, body) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })

/**
 * The runs that jobs of ComfyUI's queue are training now.
 * @param {string[]} jobs
 * @returns {Promise<Progress[]>}
 */
export const fetchLiveRuns = (jobs) => request(`/live?${named(jobs)}`).then((answer) => answer.runs)

/**
 * A run, and how it goes if one of the jobs trains it.
 * @param {string} run
 * @param {string[]} jobs
 * @returns {Promise<RunCard>}
 */
export const fetchRunCard = (run, jobs) => request(`/runs/${encodeURIComponent(run)}?${named(jobs)}`)

/**
 * "finish": end the run with the steps that are done; "undo": train on after all; "sample": draw sample pictures now; "reopen":
 * let a run that was ended early train on with the next queueing. All but the last are refused unless one of the jobs trains it.
 * @param {string} run
 * @param {"finish" | "undo" | "sample" | "reopen"} request
 * @param {string[]} jobs
 */
export const askRun = (run, request, jobs) => post(`/runs/${encodeURIComponent(run)}/${request}?${named(jobs)}`, {})

/** @param {PhotoSettings} settings @returns {Promise<{ total: number, notes: string[], photos: Photo[] }>} */
export const fetchPhotos = (settings) => request(`/photos?${query(settings)}`)

/** `masks`: the folder of the masks that are wired, if any. @param {PhotoSettings & { name: string, masks: string }} photo */
export const photoUrl = (photo) => api.apiURL(`${ROOT}/photo?${query(photo)}`)

/**
 * Write a photo's caption. It is refused with status 409 when the file no longer holds the text `was`.
 * @param {{ folder: string, name: string, text: string, was: string }} caption
 */
export const saveCaption = (caption) => post("/caption", caption)

/**
 * Ask which of the files that were dropped are taken, and make a folder for them unless they go `into` one that is there.
 * `places` tells where each file goes below ComfyUI's input, `folder` is the one that holds the photos.
 * @param {{ files: string[], into?: string }} dropped
 * @returns {Promise<{ places: Record<string, string>, folder: string, notes: string[] }>}
 */
export const planUpload = (dropped) => post("/upload", dropped)

/**
 * Send a file to ComfyUI's own route.
 * @param {File} file
 * @param {string} place Its folder below ComfyUI's input, and the name that it gets there.
 */
export async function uploadFile(file, place) {
  const cut = place.lastIndexOf("/")
  const body = new FormData()
  body.append("image", file, place.slice(cut + 1))
  body.append("subfolder", place.slice(0, cut))
  const response = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!response.ok) throw new RequestError(response.status, {})
}

/**
 * The definition of a node's combo box as the server gives it now.
 * @param {string} nodeType
 * @param {string} name
 */
async function fetchCombo(nodeType, name) {
  const response = await api.fetchApi(`/object_info/${nodeType}`)
  return (await response.json())[nodeType].input.required[name][1]
}

/**
 * The folders of photos, and how many photos each of them has.
 * @returns {Promise<{ options: string[], counts: Record<string, number> }>}
 */
export const fetchFolders = () => fetchCombo(DATASET, "folder")

/** When a run was finished, and after which step. @typedef {Record<string, { date: string, step: number | null }>} FinishedRuns */

/** @returns {Promise<{ options: string[], runs: FinishedRuns }>} */
export const fetchFinishedRuns = () => fetchCombo(LOADING, "run")

/**
 * @param {string} run
 * @param {string} file
 */
export function sampleUrl(run, file) {
  const subfolder = `finetune/${run}/samples`
  return api.apiURL(`/view?${query({ type: "output", subfolder, filename: file })}`)
}

/** The server keeps it for as long as the page is connected, and sends progress only to pages whose language it knows. */
export function sendLanguage() {
  if (!api.clientId) return
  const retry = () => setTimeout(sendLanguage, RETRY_MS)
  post(`/language?${query({ client: api.clientId })}`, {}).catch(retry)
}

/**
 * Call back now, once the page has its connection, and for each new connection.
 * @param {() => void} callback
 */
export function onConnected(callback) {
  /** @type {string | undefined} */
  let known
  api.addEventListener("status", () => {
    if (known !== api.clientId) callback()
    known = api.clientId
  })
  api.addEventListener("reconnected", callback)
  callback()
}

/**
 * `listener` gets the progress of the runs that this page has queued; `missed` is called when some of it may have been lost.
 * @param {(progress: Progress) => void} listener
 * @param {() => void} missed
 */
export function onProgress(listener, missed) {
  api.addEventListener("subject_trainer.live", (event) => listener(event.detail))
  api.addEventListener("reconnected", missed)
}
