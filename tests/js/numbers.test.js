import assert from "node:assert/strict"
import { test } from "node:test"
import { decimalsOf, withoutNoise } from "../../js/logic/numbers.js"

test("a number has as many decimals as it is written with", () => {
  const known = { 0: 0, 3: 0, 1000: 0, 0.25: 2, 0.999985: 6, "-0.5": 1, "1e-5": 5, "2.25e-6": 8, "5e-8": 8, "12.5": 1, "1e21": 0 }
  for (const [value, decimals] of Object.entries(known)) assert.equal(decimalsOf(Number(value)), decimals, value)
  assert.equal(decimalsOf(1e-30), 20) // no more are written
  assert.equal(decimalsOf(NaN), 0)
})

test("what adding steps in binary leaves is taken away, and no digit that one types", () => {
  assert.equal(withoutNoise(0.1 + 0.2), 0.3)
  assert.equal(withoutNoise(0.29 + 0.01), 0.3)
  assert.equal(withoutNoise(1 - 0.99), 0.01)
  for (const typed of [0, 5, 1e-5, 2.25e-6, 0.999985, 5.125, 2 ** 53 - 1, -1]) assert.equal(withoutNoise(typed), typed)
  assert.equal(withoutNoise("auto"), "auto")
})
