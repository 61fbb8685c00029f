import assert from "node:assert"
import test from "node:test"
import { readableView } from "../../js/logic/view.js"

const PAGE = { width: 1920, height: 1080 }

/** Where a point of the graph is in the page. */
const seen = ({ scale, offset }, x, y) => [(x + offset[0]) * scale, (y + offset[1]) * scale]

test("a graph that fits is seen whole beside the page's bars", () => {
  const view = readableView([[-500, 40, 300, 200], [1500, 700, 400, 500]], PAGE)
  const [left, top] = seen(view, -500, 40)
  const [right, bottom] = seen(view, 1900, 1200)
  assert.ok(left >= 64 && top >= 90 && right <= 1920 && bottom <= 1080)
  assert.ok(view.scale >= 0.65 && view.scale <= 1)
})

test("a graph that does not fit is seen from its beginning, and can be read", () => {
  const view = readableView([[-500, 40, 300, 200], [5000, 3000, 400, 500]], PAGE)
  assert.equal(view.scale, 0.65)
  assert.deepEqual(seen(view, -500, 40).map(Math.round), [90, 110])
})

test("a small graph is not made larger than it is", () => {
  assert.equal(readableView([[0, 0, 300, 200]], PAGE).scale, 1)
})
