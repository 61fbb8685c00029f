import assert from "node:assert/strict"
import { test } from "node:test"
import { askedJobs, bindJob, endJob, forgetErrors, isCopy, isEdited, note, nothing, withKept } from "../../js/logic/shown.js"
import { forgetReport, fromHistory, fromRefusal, noteHistory } from "../../js/logic/shown.js"

test("what a node shows grows while its job is the same, and of another job only the run stays", () => {
  const bound = nothing()
  note(bound, "5", { prompt: "a", run: "toy-1" })
  note(bound, "5", { prompt: "a", output: { text: ["done"] } })
  assert.deepEqual(bound.nodes["5"], { prompt: "a", run: "toy-1", output: { text: ["done"] } })
  note(bound, "5", { prompt: "b", error: "no" })
  assert.deepEqual(bound.nodes["5"], { prompt: "b", run: "toy-1", error: "no" })
  assert.deepEqual(forgetErrors(bound), ["5"])
  assert.deepEqual(forgetErrors(bound), [])
  note(bound, "5", { prompt: "b", run: "toy-2" })
  assert.deepEqual(bound.nodes["5"], { prompt: "b", run: "toy-2" })
})

test("the error of a job that ComfyUI has queued in part stays when that, or an older one, begins", () => {
  const bound = nothing()
  for (const job of ["a", "b", "c"]) bindJob(bound, job)
  note(bound, "4", { prompt: "a", error: "old" })
  note(bound, "5", { prompt: "b", error: "Nothing comes to dataset." })
  assert.deepEqual(forgetErrors(bound, "a"), [])
  assert.deepEqual(forgetErrors(bound, "b"), ["4"])
  assert.equal(bound.nodes["5"].error, "Nothing comes to dataset.")
  assert.deepEqual(forgetErrors(bound, "c"), ["5"])
})

test("why a node was refused without a job stays when a job begins that was queued before, and goes with one queued later", () => {
  const bound = nothing()
  for (const job of ["a", "b"]) bindJob(bound, job)
  note(bound, "5", { prompt: "a", after: "b", error: "The name '/' cannot be used." })
  assert.deepEqual(forgetErrors(bound, "b"), [])
  bindJob(bound, "c")
  assert.deepEqual(forgetErrors(bound, "c"), ["5"])
  assert.equal(bound.nodes["5"].error ?? bound.nodes["5"].after, undefined)
})

test("why a node was not queued is said in our words, once, and in ComfyUI's where we have none", () => {
  const missing = { type: "required_input_missing", message: "Required input is missing", details: "dataset" }
  const own = { type: "custom_validation_failed", message: "Custom validation failed for node", details: "name - Nothing - at all." }
  const again = { ...own, details: "token - Nothing - at all." }
  const refused = { 5: { errors: [missing, own, again] }, "3:4": { errors: [missing] }, 6: { errors: [] } }
  assert.deepEqual(fromRefusal(refused), { 5: "Nothing - at all.", "3:4": "Required input is missing: dataset" })
  assert.deepEqual(fromRefusal(null), {})
})

test("the newest jobs of a workflow are bound to it, each once", () => {
  const bound = nothing()
  for (let job = 0; job < 50; job += 1) {
    bindJob(bound, String(job))
    endJob(bound, String(job))
  }
  bindJob(bound, "40")
  assert.equal(bound.jobs.length, 20)
  assert.deepEqual(bound.jobs.slice(-2), ["49", "40"])
  assert.deepEqual(bound.waiting, ["40"])
})

test("a job that has not ended stays bound, however many were queued after it", () => {
  const bound = nothing()
  for (let job = 0; job < 300; job += 1) bindJob(bound, String(job))
  assert.equal(bound.jobs.length, 300)
  assert.deepEqual([askedJobs(bound)[0], askedJobs(bound).at(-1), askedJobs(bound).length], ["0", "299", 40])
  for (let job = 0; job < 200; job += 1) endJob(bound, String(job))
  assert.equal(askedJobs(bound)[0], "200")
  bindJob(bound, "300")
  assert.equal(bound.jobs[0], "200")
  endJob(bound) // the queue is empty
  bindJob(bound, "301")
  assert.deepEqual([bound.jobs.length, bound.waiting], [20, ["301"]])
  assert.equal(askedJobs(bound).length, 20)
})

test("a copy has the same nodes and a new id, and is in no file yet", () => {
  const nodes = [{ id: 1 }]
  assert.equal(isCopy({ id: "new", nodes: [{ id: 1 }] }, { id: "old", nodes }), true)
  assert.equal(isCopy({ id: "old", nodes }, { id: "old", nodes }), false) // the file was opened again
  assert.equal(isCopy({ nodes }, { id: "old", nodes }), false) // a template
  assert.equal(isCopy({ id: "new", nodes }, { id: "old", nodes }, true), false) // the file of an earlier copy
  assert.equal(isCopy({ id: "new", nodes: [] }, { id: "old", nodes }), false)
  assert.equal(isCopy(undefined, { id: "old", nodes }), false)
  assert.equal(isCopy({ id: "new", nodes }, undefined), false)
})

test("of the newest workflows jobs and runs are kept, and none of what their nodes told", () => {
  let kept = {}
  const nodes = { "12:5": { prompt: "a", run: "toy", output: { text: ["long"] }, error: "no" } }
  const queued = { a: { "12:5": { steps: 3 } } }
  for (let number = 0; number < 150; number += 1) kept = withKept(kept, `w${number}`, { jobs: ["a"], waiting: [], nodes, queued })
  kept = withKept(kept, "w60", { jobs: ["b"], waiting: ["b"], nodes: {}, queued: {} })
  assert.equal(Object.keys(kept).length, 100)
  assert.deepEqual(kept.w149, { jobs: ["a"], waiting: [], nodes: { "12:5": { prompt: "a", run: "toy" } }, queued })
  assert.deepEqual(Object.entries(kept).at(-1), ["w60", { jobs: ["b"], waiting: ["b"], nodes: {}, queued: {} }])
})

test("what a node was queued with is known while its job waits or is shown, and no longer", () => {
  const bound = nothing()
  bindJob(bound, "a", { 5: { steps: 1 } })
  bindJob(bound, "b", { 5: { steps: 2 } })
  note(bound, "5", { prompt: "a", output: {} })
  endJob(bound, "a")
  assert.deepEqual(bound.queued, { a: { 5: { steps: 1 } }, b: { 5: { steps: 2 } } })
  note(bound, "5", { prompt: "b", output: {} })
  endJob(bound)
  assert.deepEqual(bound.queued, { b: { 5: { steps: 2 } } })
})

test("a node is edited while a value is not the one that was queued", () => {
  const queued = { steps: 3, train: "lora", gone: 1 }
  assert.equal(isEdited({ train: "lora", steps: 3, added: 1 }, queued), false) // by a later version, which has other widgets
  assert.equal(isEdited({ train: "lora", steps: 4 }, queued), true)
  assert.equal(isEdited({ train: "auto", steps: 3 }, queued), true)
})

test("the history of a job has what its nodes told, and why one failed", () => {
  const messages = [["execution_start", {}], ["execution_error", { node_id: "5", exception_message: "no" }]]
  assert.deepEqual(fromHistory("a", { outputs: { 2: { text: ["4 photos"] } }, status: { messages } }), {
    2: { prompt: "a", output: { text: ["4 photos"] } },
    5: { prompt: "a", error: "no" },
  })
  assert.deepEqual(fromHistory("a", undefined), {})
})

test("what a job did while the page was closed is noted of each node that no later job has brought something of", () => {
  const bound = nothing()
  for (const job of ["a", "b", "c"]) bindJob(bound, job)
  note(bound, "5", { prompt: "a", output: { text: ["of a"] } })
  note(bound, "6", { prompt: "c", output: { text: ["of c"] } })
  note(bound, "7", { prompt: "b", run: "toy-1" }) // As it is kept: the run alone.
  const outputs = Object.fromEntries(["5", "6", "7", "8"].map((id) => [id, { text: ["of b"], run: ["toy-2"] }]))
  assert.deepEqual(noteHistory(bound, "b", { outputs }), ["5", "7", "8"])
  const shown = { prompt: "b", run: "toy-2", output: outputs[5] }
  assert.deepEqual([bound.nodes[5], bound.nodes[6].prompt, bound.nodes[7], bound.nodes[8]], [shown, "c", shown, shown])
  assert.deepEqual(noteHistory(bound, "b", { outputs }), []) // The page knows.
  assert.deepEqual(noteHistory(bound, "c", undefined), [])
})

test("a report that was forgotten is not there again after a reload, but what the node has read is", () => {
  const bound = nothing()
  bindJob(bound, "a")
  const output = { text: ["4 photos"], panel: [{ folder: "plush" }] }
  note(bound, "2", { prompt: "a", output })
  forgetReport(bound, "2")
  assert.deepEqual(bound.nodes[2], { prompt: "a", forgotten: true, output: { panel: output.panel } })
  const kept = JSON.parse(JSON.stringify(withKept({}, "w", bound).w))
  assert.deepEqual(noteHistory(kept, "a", { outputs: { 2: output } }), ["2"])
  assert.deepEqual(kept.nodes[2], bound.nodes[2])
  note(bound, "2", { prompt: "b", output })
  assert.deepEqual(bound.nodes[2].output, output)
})
