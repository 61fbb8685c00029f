// @ts-check
// The chart of a run's curves, drawn by uPlot (js/vendor, MIT license).
import { chartData, pointerInChart } from "../logic/curves.js"
import uPlot from "../vendor/uPlot.esm.js"
import { addStylesheet } from "./dom.js"
import { t } from "./i18n.js"

/** @import { Curve } from "../logic/curves.js" */
/** @import { RunCard } from "./server.js" */

/** The most and the least that a chart is high. */
const HEIGHT = 150
const LOWEST = 70

addStylesheet(new URL("../vendor/uPlot.min.css", import.meta.url))

/** @type {Set<uPlot>} */
const plots = new Set()

// A canvas does not follow the page's style sheets: the charts are drawn again when the theme may have changed.
new MutationObserver(() => plots.forEach((plot) => plot.redraw(false))).observe(document.documentElement, {
  attributes: true,
  attributeFilter: ["class", "style"],
})

export class Chart {
  /** @type {uPlot | undefined} */
  plot
  /** The names of the drawn curves. A plot cannot be given others, so another set of curves needs another plot. */
  names = ""

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element
    this.element.className = "st-chart"
  }

  /** @param {RunCard} card */
  show(card) {
    const { curves, data } = chartData(card)
    const names = curves.map(({ name }) => name).join()
    if (this.names !== names) {
      this.clear()
      this.names = names
      this.plot = this.create(curves)
    }
    this.plot?.setData(data)
    this.fit()
  }

  /** uPlot keeps a chart that is not destroyed, so this must be called before the chart is given up. */
  clear() {
    if (!this.plot) return
    plots.delete(this.plot)
    this.plot.destroy()
    this.plot = undefined
    this.names = ""
  }

  /** @param {Curve[]} curves */
  create(curves) {
    const stroke = () => getComputedStyle(this.element).color
    const axis = { stroke, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" }, font: "11px sans-serif" }
    const options = {
      width: this.width(),
      height: HEIGHT,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 46 }],
      cursor: { drag: { x: false, y: false }, move: movedCursor },
      series: [{ label: t("step") }, ...curves.map(series)],
    }
    const plot = new uPlot(options, [[], ...curves.map(() => [])], this.element)
    plots.add(plot)
    return plot
  }

  width() {
    return Math.max(160, Math.floor(this.element.clientWidth) || 300)
  }

  /** As high as the element leaves it beside the legend. */
  height() {
    const legend = this.plot?.root.querySelector(".u-legend")?.clientHeight ?? 0
    return Math.min(HEIGHT, Math.max(LOWEST, Math.floor(this.element.clientHeight - legend)))
  }

  /** Take the size that the element has now. */
  fit() {
    if (!this.plot) return
    const [width, height] = [this.width(), this.height()]
    if (this.plot.width !== width || this.plot.height !== height) this.plot.setSize({ width, height })
  }
}

/**
 * Where uPlot is to have its cursor; a negative place hides it.
 * @param {uPlot} plot
 * @param {number} left
 * @param {number} top
 * @returns {[left: number, top: number]}
 */
function movedCursor({ cursor, over }, left, top) {
  if (left < 0 || !cursor.event) return [left, top]
  return pointerInChart(cursor.event, over.getBoundingClientRect(), over.offsetWidth)
}

/**
 * @param {Curve} curve
 * @returns {uPlot.Series}
 */
function series({ name, colour, width }) {
  return {
    label: t(name),
    stroke: colour,
    width,
    spanGaps: true,
    points: { show: false },
    value: (_, value) => (value == null ? "" : value.toFixed(4)),
  }
}
