import assert from "node:assert/strict"
import { test } from "node:test"
import { findWidget, isChosen, isHidden } from "../../js/logic/widgets.js"

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
  assert.equal(isChosen("(pictures wired to images)"), false)
  assert.equal(isChosen(""), false)
  assert.equal(isChosen(undefined), false)
})

test("an advanced widget is hidden only while it has its default, has no link, and not all are asked for", () => {
  const untouched = { value: 1e-6, initial: 1e-6, linked: false, showAll: false }
  assert.equal(isHidden(untouched), true)
  assert.equal(isHidden({ ...untouched, value: 2e-6 }), false)
  assert.equal(isHidden({ ...untouched, linked: true }), false)
  assert.equal(isHidden({ ...untouched, showAll: true }), false)
})

test("a value of another type is a changed value", () => {
  assert.equal(isHidden({ value: "0", initial: 0, linked: false, showAll: false }), false)
  assert.equal(isHidden({ value: false, initial: 0, linked: false, showAll: false }), false)
})
