import assert from "node:assert/strict"
import { test } from "node:test"
import { after } from "../../js/common/hooks.js"

test("the method runs first and keeps its result, both get `this` and the arguments", () => {
  const calls = []
  const node = {
    onExecuted(...given) {
      calls.push(["method", this, ...given])
      return "result"
    },
  }
  after(node, "onExecuted", function (...given) {
    calls.push(["hook", this, ...given])
    return "ignored"
  })
  assert.equal(node.onExecuted(1, 2), "result")
  assert.deepEqual(calls, [
    ["method", node, 1, 2],
    ["hook", node, 1, 2],
  ])
})

test("an object without the method gets one", () => {
  const widget = {}
  const values = []
  after(widget, "callback", (value) => values.push(value))
  assert.equal(widget.callback("plush"), undefined)
  assert.deepEqual(values, ["plush"])
})

test("several hooks run in the order in which they were added", () => {
  const order = []
  const node = { onConfigure: () => order.push("method") }
  after(node, "onConfigure", () => order.push("first"))
  after(node, "onConfigure", () => order.push("second"))
  node.onConfigure()
  assert.deepEqual(order, ["method", "first", "second"])
})

test("a hook on a prototype is called for the object that the method is called on", () => {
  class Node {}
  const seen = []
  after(Node.prototype, "onExecuted", function () {
    seen.push(this)
  })
  const [one, other] = [new Node(), new Node()]
  other.onExecuted()
  one.onExecuted()
  assert.equal(seen[0], other)
  assert.equal(seen[1], one)
})

test("a method that throws is not hidden, and the hook does not run", () => {
  let called = false
  const node = {
    onExecuted() {
      throw new Error("theirs")
    },
  }
  after(node, "onExecuted", () => (called = true))
  assert.throws(() => node.onExecuted(), /theirs/)
  assert.equal(called, false)
})
