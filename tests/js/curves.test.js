import assert from "node:assert/strict"
import { test } from "node:test"
import { chartData, describeCurves, pointerInChart } from "../../js/logic/curves.js"

const names = ({ curves }) => curves.map(({ name }) => name)

test("without measurements there are the losses alone", () => {
  const chart = chartData({ loss: { step: [1, 2, 3], mean: [0.5, 0.4, 0.6], smooth: [0.5, 0.49, 0.501] }, measured: {} })
  assert.deepEqual(names(chart), ["mean", "smooth"])
  assert.deepEqual(chart.data, [
    [1, 2, 3],
    [0.5, 0.4, 0.6],
    [0.5, 0.49, 0.501],
  ])
})

test("losses and measurements share one axis of steps, with gaps where a curve has no value", () => {
  const loss = { step: [10, 20, 40], mean: [0.5, 0.4, 0.3], smooth: [0.5, 0.45, 0.35] }
  const measured = { step: [20, 30], held_out: [0.6, 0.55] }
  const chart = chartData({ loss, measured })
  assert.deepEqual(names(chart), ["mean", "smooth", "held_out"])
  assert.deepEqual(chart.data, [
    [10, 20, 30, 40],
    [0.5, 0.4, undefined, 0.3],
    [0.5, 0.45, undefined, 0.35],
    [undefined, 0.6, 0.55, undefined],
  ])
})

test("measured curves keep their order and colours, whatever others the run has", () => {
  const loss = { step: [1], mean: [0.5], smooth: [0.5] }
  const all = chartData({ loss, measured: { class: [0.1], trained: [0.2], held_out: [0.3], step: [1] } })
  assert.deepEqual(names(all), ["mean", "smooth", "held_out", "trained", "class"])
  assert.deepEqual(all.data.slice(3), [[0.3], [0.2], [0.1]])
  const one = chartData({ loss, measured: { step: [1], class: [0.1] } })
  assert.deepEqual(one.curves[2], all.curves[4])
  assert.equal(new Set(all.curves.map(({ colour }) => colour)).size, 5)
})

test("a measurement that is missing stays a gap, one of an unknown kind is left out", () => {
  const loss = { step: [1, 2], mean: [0.5, 0.4], smooth: [0.5, 0.49] }
  const chart = chartData({ loss, measured: { step: [1, 2], held_out: [null, 0.3], seconds: [9, 9] } })
  assert.deepEqual(names(chart), ["mean", "smooth", "held_out"])
  assert.deepEqual(chart.data[3], [null, 0.3])
})

test("a curve has a value for each step, losses included that were measured before the first loss", () => {
  const chart = chartData({ loss: { step: [5], mean: [0.5], smooth: [0.5] }, measured: { step: [0, 10], trained: [0.7, 0.2] } })
  assert.deepEqual(chart.data, [
    [0, 5, 10],
    [undefined, 0.5, undefined],
    [undefined, 0.5, undefined],
    [0.7, undefined, 0.2],
  ])
})

test("the pointer's place in a chart is the same at every zoom of the canvas", () => {
  for (const zoom of [0.25, 0.5, 1, 1.5, 2]) {
    const box = { left: 70, top: 40, width: 300 * zoom }
    assert.deepEqual(pointerInChart({ clientX: 70 + 150 * zoom, clientY: 40 + 20 * zoom }, box, 300), [150, 20])
  }
})

test("a chart without a width, as in a collapsed node, still has a place for the pointer", () => {
  assert.deepEqual(pointerInChart({ clientX: 5, clientY: 6 }, { left: 1, top: 2, width: 0 }, 0), [4, 4])
})

test("the chart is said in words: each curve's first, last and lowest value", () => {
  const card = {
    loss: { step: [1, 2, 3], mean: [0.5, 0.1, 0.2], smooth: [0.5, 0.46, 0.434] },
    measured: { step: [0, 3], held_out: [1.25, null] },
  }
  const translate = (key, values) => (values ? `${key} ${Object.values(values).join(" ")}` : key)
  assert.equal(
    describeCurves(card, translate),
    "curves_steps 3. curve mean 0.5000 0.2000 0.1000. curve smooth 0.5000 0.4340 0.4340. curve held_out 1.2500 1.2500 1.2500"
  )
})
