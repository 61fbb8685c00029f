import assert from "node:assert/strict"
import { test } from "node:test"
import { allNodes, announced, findNode, progressLine, runButtons, runFacts, samplePictures } from "../../js/logic/run.js"

/** In place of a translation, its key and what is filled in. */
const translate = (key, values) => (values ? `${key} ${JSON.stringify(values)}` : key)

test("each sample is called by its step and prompt, the grid comes last", () => {
  const card = {
    prompts: ["a toy", "a toy in the snow"],
    samples: [
      { step: 0, prompt: 1, file: "step-0-1.png" },
      { step: 20, prompt: 0, file: "step-20-0.png" },
    ],
    grid: "grid.png",
  }
  assert.deepEqual(samplePictures(card, translate), [
    { file: "step-0-1.png", title: 'sample {"step":0,"prompt":"a toy in the snow"}' },
    { file: "step-20-0.png", title: 'sample {"step":20,"prompt":"a toy"}' },
    { file: "grid.png", title: "grid" },
  ])
})

test("a sample whose prompt is not known is called by the number of its prompt", () => {
  const card = { prompts: [], samples: [{ step: 5, prompt: 3, file: "step-5-3.png" }], grid: "" }
  assert.deepEqual(samplePictures(card, translate), [{ file: "step-5-3.png", title: 'sample {"step":5,"prompt":3}' }])
})

test("an empty prompt stays empty, and without samples there are no pictures", () => {
  const samples = [{ step: 5, prompt: 0, file: "a.png" }]
  assert.equal(samplePictures({ prompts: [""], samples, grid: "" }, translate)[0].title, 'sample {"step":5,"prompt":""}')
  assert.deepEqual(samplePictures({ prompts: [], samples: [], grid: "" }, translate), [])
})

const FACTS = { trigger: "mysks toy", token: "mysks", class: "toy", base: "v1.safetensors", photos: 4, date: "2025-11-26 17:44" }

test("the facts of a run, the step of the exported weights among them", () => {
  assert.deepEqual(runFacts({ facts: { ...FACTS, finished: true, exported_step: 600, step_to_use: 400 }, steps: 800 }), [
    ["trigger", "mysks toy"],
    ["token", "mysks"],
    ["class_word", "toy"],
    ["base", "v1.safetensors"],
    ["steps", 600],
    ["step_to_use", 400],
    ["photos", 4],
    ["date", "2025-11-26 17:44"],
  ])
})

test("a run that exported nothing has the steps that it was given", () => {
  for (const exported_step of [null, undefined]) {
    assert.deepEqual(runFacts({ facts: { ...FACTS, exported_step }, steps: 800 })[4], ["steps", 800])
  }
})

test("empty facts are left out, zero is none of them", () => {
  const facts = { ...FACTS, class: "", photos: 0, exported_step: 0 }
  const keys = runFacts({ facts, steps: 800 }).map(([key]) => key)
  assert.deepEqual(keys, ["trigger", "token", "base", "steps", "photos", "date"])
  assert.deepEqual(Object.fromEntries(runFacts({ facts, steps: 800 })).steps, 0)
})

test("the line of progress ends with the memory in decimal gigabytes", () => {
  const text = "Training: step 1 of 2"
  assert.equal(progressLine({ text, memory: 7_340_032_000 }, translate), `${text} · memory {"gb":"7.3"}`)
  assert.equal(progressLine({ text, memory: 12_960_000_000 }, translate), `${text} · memory {"gb":"13.0"}`)
  assert.equal(progressLine({ text, memory: 1 }, translate), `${text} · memory {"gb":"0.0"}`)
})

test("what is not known yet is left out of the line", () => {
  assert.equal(progressLine({ text: "Preparing", memory: 0 }, translate), "Preparing")
  assert.equal(progressLine({ text: "", memory: 2e9 }, translate), 'memory {"gb":"2.0"}')
  assert.equal(progressLine({ text: "", memory: 0 }, translate), "")
})

/** A graph that has these nodes by their numbers. */
const graphOf = (nodes) => ({ getNodeById: (id) => (Number.isInteger(id) ? (nodes[id] ?? null) : null) })

test("a node is found by its id, in subgraphs too", () => {
  const inner = { title: "inner" }
  const middle = { title: "middle", subgraph: graphOf({ 5: inner }) }
  const outer = { title: "outer", subgraph: graphOf({ 7: middle }) }
  const graph = graphOf({ 5: { title: "another" }, 12: outer })
  assert.equal(findNode(graph, "12"), outer)
  assert.equal(findNode(graph, 12), outer)
  assert.equal(findNode(graph, "12:7"), middle)
  assert.equal(findNode(graph, "12:7:5"), inner)
})

test("no node is found where the graph, the node or the subgraph is missing", () => {
  const graph = graphOf({ 12: { title: "plain" } })
  assert.equal(findNode(undefined, "12"), undefined)
  assert.equal(findNode(graph, "13"), undefined)
  assert.equal(findNode(graph, "12:5"), undefined)
  assert.equal(findNode(graph, "13:5"), undefined)
  assert.equal(findNode(graph, ""), undefined)
})

test("a run can be ended, and that undone, until it exports", () => {
  const progress = { can_finish: true, finishing: false, has_prompts: true }
  assert.deepEqual(runButtons(progress), ["sample", "finish"])
  assert.deepEqual(runButtons({ ...progress, finishing: true }), ["undo"])
  assert.deepEqual(runButtons({ ...progress, can_finish: false, finishing: true }), [])
  assert.deepEqual(runButtons({ ...progress, can_finish: false }), [])
})

test("samples are offered only where the run has prompts to draw", () => {
  assert.deepEqual(runButtons({ can_finish: true, finishing: false, has_prompts: false }), ["finish"])
})

test("of the progress another phase is said aloud, and what else there is to know", () => {
  let said = ""
  const heard = []
  for (const text of ["Starting", "Training: step 1 of 9", "Training: step 2 of 9", "Training: step 3 of 9\nStopping", "Exporting", ""]) {
    if (announced(text, said) !== said) heard.push(text)
    said = announced(text, said)
  }
  assert.deepEqual(heard, ["Starting", "Training: step 1 of 9", "Training: step 3 of 9\nStopping", "Exporting", ""])
})

test("what there is to know beside the step is said aloud, once", () => {
  const [step, stopping, refusal] = ["Training: step", "Stopping after this step …", "The run trains on 2 devices."]
  const told = [`${step} 1 of 9`, `${step} 2 of 9 · 3 s`, `${step} 3 of 9\n${stopping}`, `${step} 4 of 9\n${stopping}`]
  told.push(`${step} 5 of 9\n${refusal}`, `${step} 6 of 9\n${refusal}`, `${step} 7 of 9`)
  let said = ""
  const heard = told.filter((text) => {
    const before = said
    said = announced(text, said)
    return said !== before
  })
  assert.deepEqual(heard, [told[0], told[2], told[4], told[6]])
})

test("the nodes of a graph are those in its subgraphs too", () => {
  const graph = { nodes: [{ id: 1 }, { id: 2, subgraph: { nodes: [{ id: 3, subgraph: { nodes: [{ id: 4 }] } }] } }] }
  assert.deepEqual(allNodes(graph).map(({ id }) => id), [1, 2, 3, 4])
  assert.deepEqual(allNodes(undefined), [])
})
