import assert from "node:assert/strict"
import { test } from "node:test"
import { comesFrom, findWidget, isChosen, isFed, isOffered, savedByName, valuesByName } from "../../js/logic/widgets.js"

const nodeWith = (values) => ({ widgets: Object.entries(values).map(([name, value]) => ({ name, value })) })

test("a widget is found by its name", () => {
  const node = nodeWith({ steps: 800, train: "unet" })
  assert.equal(findWidget(node, "train"), node.widgets[1])
  assert.equal(findWidget(node, "trai"), undefined)
  assert.equal(findWidget({}, "steps"), undefined)
})

test("a placeholder in parentheses is no choice", () => {
  assert.equal(isChosen("plush"), true)
  assert.equal(isChosen("plush (2)"), true)
  assert.equal(isChosen(5), true) // a file of another version may have any value here
  assert.equal(isChosen("(pictures wired to images)"), false)
  assert.equal(isChosen(""), false)
  assert.equal(isChosen(undefined), false)
})

test("a combo box may name what it does not offer", () => {
  assert.equal(isOffered({ name: "folder", value: "plush", options: { values: ["plush"] } }), true)
  assert.equal(isOffered({ name: "folder", value: "my-photos", options: { values: ["plush"] } }), false)
  assert.equal(isOffered({ name: "folder", value: "plush" }), false)
  assert.equal(isOffered(undefined), false)
})

test("values are saved by name, but for widgets that are not saved", () => {
  const node = nodeWith({ steps: 800, train: "unet" })
  node.widgets.push({ name: "panel", value: "", serialize: false })
  assert.deepEqual(valuesByName(node), { steps: 800, train: "unet" })
})

test("a file's values find their widgets by name, and a widget that the file does not know has its default", () => {
  assert.deepEqual(savedByName({ steps: 0, added: 5 }, { steps: 800 }), { steps: 800, added: 5 })
  assert.deepEqual(savedByName({ steps: 0, added: 5 }, undefined), {})
})

/** A graph of nodes whose links are named by their numbers: { link: [origin's id, its slot] }. */
function graphOf(nodes, links) {
  const graph = {
    getNodeById: (id) => nodes.find((node) => node.id === id),
    getLink: (id) => links[id] && { origin_id: links[id][0], origin_slot: links[id][1] },
  }
  nodes.forEach((node) => (node.graph = graph))
  return nodes[0]
}

test("what is wired is queued unless its node is muted, or bypassed with nothing in its place", () => {
  const input = (link, type = "IMAGE", name = "images") => ({ name, type, link })
  const loader = () => ({ id: 1, mode: 0, inputs: [input(10)] })
  const links = { 10: [2, 0], 11: [3, 0] }
  const picture = { id: 3, mode: 0, inputs: [] }
  /** @param {object} between @param {object} [before] */
  const fed = (between, before = picture) => isFed(graphOf([loader(), { id: 2, mode: 0, ...between }, before], links), "images")
  assert.equal(isFed({ inputs: [input(null)] }, "images"), false)
  assert.equal(isFed({ inputs: [input(null)] }, "other"), false)
  assert.equal(isFed({}, "images"), false)
  assert.equal(fed({}), true)
  assert.equal(fed({ mode: 2 }), false)
  assert.equal(fed({ mode: 4 }), false) // LoadImage
  assert.equal(fed({ mode: 4, inputs: [input(11, "MODEL")] }), false)
  assert.equal(fed({ mode: 4, inputs: [input(11)] }), true)
  assert.equal(fed({ mode: 4, inputs: [input(null, "MASK"), input(11)] }), true) // not beside the output
  assert.equal(fed({ mode: 4, inputs: [input(11)] }, { ...picture, mode: 2 }), false)
  assert.equal(fed({ type: "Reroute", inputs: [input(11, "*", "")] }, { ...picture, mode: 2 }), false)
  assert.equal(fed({ type: "Reroute", inputs: [input(11, "*", "")] }), true)
  assert.equal(fed({ mode: 4, inputs: [input(10)] }), false) // a circle
  assert.equal(isFed(graphOf([loader()], { 10: [-10, 0] }), "images"), true) // from outside of a subgraph
})

test("what is wired comes from a node through others, by their inputs of the same name", () => {
  const clip = (link) => ({ mode: 0, inputs: [{ name: "model", type: "MODEL", link: null }, { name: "clip", type: "CLIP", link }] })
  const links = { 10: [2, 1], 11: [3, 1], 12: [9, 0], 13: [2, 1] }
  /** @param {object} between @param {object} origin */
  const from = (between, origin, types = ["Trains", "Loads"]) => {
    const nodes = [{ id: 1, ...clip(10) }, { id: 2, type: "Lora", ...clip(11), ...between }, { id: 3, mode: 0, ...origin }]
    return comesFrom(graphOf(nodes, links), "clip", types)
  }
  assert.equal(from({}, { type: "Trains", inputs: [] }), true)
  assert.equal(from({}, { type: "Loads", inputs: [] }), true)
  assert.equal(from({}, { type: "Base", inputs: [] }), false)
  assert.equal(from({ type: "Trains" }, { type: "Base" }), true)
  assert.equal(from({ mode: 4 }, { type: "Trains" }), true) // bypassed
  assert.equal(from({ mode: 4, type: "Trains" }, { type: "Base" }), false)
  assert.equal(from({ mode: 2, type: "Trains" }, { type: "Trains" }), false) // muted
  assert.equal(from({}, { type: "Other", ...clip(13) }), false) // in a circle
  assert.equal(from({ ...clip(12) }, { type: "Base" }), true) // from outside of a subgraph: it may
  assert.equal(comesFrom({ inputs: [] }, "clip", ["Trains"]), false)
})
