// @ts-check
// The curves of a run, prepared for uPlot.
import uPlot from "../vendor/uPlot.esm.js"

/** @import { RunCard } from "../common/server.js" */
/** @typedef {{ name: string, colour: string, width: number }} Curve */

/** @type {Curve[]} */
const LOSS = [
  { name: "mean", colour: "#8aa4c8", width: 1 },
  { name: "smooth", colour: "#2f7ff0", width: 2 },
]
/** @type {Curve[]} */
const MEASURED = [
  { name: "held_out", colour: "#e8833a", width: 2 },
  { name: "trained", colour: "#3aa76d", width: 1.5 },
  { name: "class", colour: "#a66bd4", width: 1.5 },
]

/**
 * Where the pointer is in a chart, in the chart's own pixels: the canvas zooms its panels, and what a browser says of the
 * pointer and of an element's `box` is on the screen. `width` is the element's own width.
 * @param {{ clientX: number, clientY: number }} pointer
 * @param {{ left: number, top: number, width: number }} box
 * @param {number} width
 * @returns {[left: number, top: number]}
 */
export function pointerInChart({ clientX, clientY }, box, width) {
  const zoom = box.width / width || 1
  return [(clientX - box.left) / zoom, (clientY - box.top) / zoom]
}

/**
 * What a chart shows, for who does not see it: each curve's first and last value, and its lowest.
 * @param {Pick<RunCard, "loss" | "measured">} card
 * @param {(key: string, values?: Record<string, unknown>) => string} translate
 */
export function describeCurves(card, translate) {
  const { curves, data } = chartData(card)
  const said = curves.map(({ name }, index) => {
    const values = [...(data[index + 1] ?? [])].filter((value) => value != null)
    const [first, last, lowest] = [values[0], values.at(-1), Math.min(...values)].map((value) => value?.toFixed(4))
    return values.length ? translate("curve", { name: translate(name), first, last, lowest }) : ""
  })
  return [translate("curves_steps", { step: data[0].at(-1) }), ...said.filter(Boolean)].join(". ")
}

/**
 * The curves that a run has, over one axis of steps: `data` is the steps, then the values of each curve.
 * Losses and measurements are taken at different steps, so a curve lacks a value wherever only the others have one.
 * @param {Pick<RunCard, "loss" | "measured">} card
 */
export function chartData({ loss, measured }) {
  const taken = MEASURED.filter(({ name }) => measured[name])
  /** @type {uPlot.AlignedData[]} */
  const tables = [[loss.step, loss.mean, loss.smooth]]
  if (taken.length) tables.push([measured.step, ...taken.map(({ name }) => measured[name])])
  return { curves: [...LOSS, ...taken], data: uPlot.join(tables) }
}
