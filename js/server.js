// The pack's own routes and ComfyUI's pictures, as nodes/routes.py answers them.
import { api } from "../../scripts/api.js"
import { language } from "./words.js"

const ROOT = "/subject_trainer"
const RETRY_MS = 5000

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `HTTP ${status}`)
    this.status = status
    this.answer = answer
  }
}

async function ask(path, options = {}) {
  const response = await api.fetchApi(ROOT + path, { ...options, headers: { ...options.headers, "Accept-Language": language() } })
  const answer = await response.json().catch(() => ({}))
  if (!response.ok) throw new Refused(response.status, answer)
  return answer
}

const query = (values) => new URLSearchParams(values).toString()
const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })

export const liveRuns = () => ask("/live").then((answer) => answer.runs)
export const runCard = (run) => ask(`/runs/${encodeURIComponent(run)}`)
export const finishRun = (run) => post(`/runs/${encodeURIComponent(run)}/finish`, {})
export const photos = (values) => ask(`/photos?${query(values)}`)
export const photoUrl = (values) => api.apiURL(`${ROOT}/photo?${query(values)}`)
export const writeCaption = (values) => post("/caption", values)

export function sampleUrl(run, file) {
  const subfolder = `finetune/${run}/samples`
  return api.apiURL(`/view?${query({ type: "output", subfolder, filename: file })}`)
}

// The server remembers it for as long as the page is connected, and sends news only to pages whose language it knows.
export function tellLanguage() {
  if (!api.clientId) return
  const again = () => setTimeout(tellLanguage, RETRY_MS)
  ask(`/language?${query({ client: api.clientId })}`, { method: "POST" }).catch(again)
}

// `then` is called once the page has its connection, and for each new one.
export function onConnected(then) {
  let known
  api.addEventListener("status", () => {
    if (known !== api.clientId) then()
    known = api.clientId
  })
  api.addEventListener("reconnected", then)
  then()
}

// `listener` gets the news of a run; `missed` is called when news may have been missed.
export function onLive(listener, missed) {
  api.addEventListener("subject_trainer.live", (event) => listener(event.detail))
  api.addEventListener("reconnected", missed)
}
