import assert from "node:assert/strict"
import { test } from "node:test"
import { findWidget, isChosen, isOffered, savedByName, valuesByName } from "../../js/logic/widgets.js"

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
