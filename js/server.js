// The pack's own routes and ComfyUI's pictures, as nodes/routes.py answers them.
import { api } from "../../scripts/api.js"

const ROOT = "/subject_trainer"

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `HTTP ${status}`)
    this.status = status
    this.answer = answer
  }
}

async function ask(path, options) {
  const response = await api.fetchApi(ROOT + path, options)
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

// `listener` gets the news of a run; `missed` is called when news may have been missed.
export function onLive(listener, missed) {
  api.addEventListener("subject_trainer.live", (event) => listener(event.detail))
  api.addEventListener("reconnected", missed)
}
