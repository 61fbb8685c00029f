// The curves of a run, drawn by uPlot (js/vendor, MIT licence). The server sends at most some hundred points a curve.
import uPlot from "./vendor/uPlot.esm.js"
import { t } from "./words.js"

const HEIGHT = 150
const CURVES = [
  ["mean", "#8aa4c8", 1],
  ["smooth", "#2f7ff0", 2],
  ["held_out", "#e8833a", 2],
  ["trained", "#3aa76d", 1.5],
  ["class", "#a66bd4", 1.5],
]

const style = document.createElement("link")
style.rel = "stylesheet"
style.href = new URL("./vendor/uPlot.min.css", import.meta.url)
document.head.append(style)

// The curves that there are, over one axis of steps: [[step], [value or null] for each curve].
function table(card) {
  const { loss, measured } = card
  const tables = [[loss.step, loss.mean, loss.smooth]]
  const names = CURVES.slice(2).filter(([name]) => measured[name])
  if (names.length) tables.push([measured.step, ...names.map(([name]) => measured[name])])
  return { curves: [...CURVES.slice(0, 2), ...names], data: uPlot.join(tables) }
}

// Charts are drawn on a canvas: they must be told when the theme changes.
const charts = new Set()
new MutationObserver(() => charts.forEach((chart) => chart.plot.redraw(false))).observe(document.documentElement, { attributes: true, attributeFilter: ["class", "style"] })

export class Chart {
  constructor(element) {
    this.element = element
    this.element.className = "st-chart"
  }

  show(card) {
    const { curves, data } = table(card)
    const kind = curves.map(([name]) => name).join()
    if (this.kind !== kind) this.make(curves, kind)
    this.plot.setData(data)
    this.fit()
  }

  // Nothing is drawn any more; uPlot keeps a chart that is not destroyed.
  clear() {
    this.plot?.destroy()
    this.plot = this.kind = undefined
    charts.delete(this)
  }

  make(curves, kind) {
    this.clear()
    this.kind = kind
    const colour = () => getComputedStyle(this.element).color
    const axis = { stroke: colour, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" }, font: "11px sans-serif" }
    const options = {
      width: this.width(),
      height: HEIGHT,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 46 }],
      cursor: { drag: { x: false, y: false } },
      series: [
        { label: t("step") },
        ...curves.map(([name, stroke, width]) => ({
          label: t(name),
          stroke,
          width,
          spanGaps: true,
          points: { show: false },
          value: (_, value) => (value == null ? "" : value.toFixed(4)),
        })),
      ],
    }
    this.plot = new uPlot(options, [[], ...curves.map(() => [])], this.element)
    charts.add(this)
  }

  width() {
    return Math.max(160, Math.floor(this.element.clientWidth) || 300)
  }

  fit() {
    if (this.plot && this.plot.width !== this.width()) this.plot.setSize({ width: this.width(), height: HEIGHT })
  }
}
