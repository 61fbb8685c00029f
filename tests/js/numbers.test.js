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
  for (const typed of [0, 5, 1e-5, 2.25e-6, 0.999985, 5.125, 2 ** 53 - 1, -1, 0.1234567890123, 1234567.89123456])
    assert.equal(withoutNoise(typed), typed)
  assert.equal(withoutNoise("auto"), "auto")
})

test("an arrow's step leaves a multiple of it, from wherever", () => {
  for (const step of [1e-7, 1e-5, 0.0001, 0.01, 0.05, 0.1])
    for (let count = 2; count < 200; count += 1) {
      const value = Number((count * step).toPrecision(12))
      for (const [made, wanted] of [[value - step, count - 1], [value + step, count + 1]])
        assert.equal(withoutNoise(made), Number((wanted * step).toPrecision(12)), `${value} by ${step}`)
    }
})
