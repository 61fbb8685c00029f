// @ts-check

/** Below this, ComfyUI draws no text on the canvas. */
const SMALLEST = 0.65
const LARGEST = 1
/** Pixels of the page that its bars cover at the left and at the top, and a little around. */
const LEFT = 90
const TOP = 110
const AROUND = 20

/**
 * Return the scale and offset at which a graph is seen whole, or from its top left corner where that would be too small to read.
 * @param {number[][]} boxes of the nodes: left, top, width, height
 * @param {{ width: number, height: number }} page in pixels
 */
export function readableView(boxes, { width, height }) {
  const [left, top] = [0, 1].map((side) => Math.min(...boxes.map((box) => box[side])))
  const [right, bottom] = [0, 1].map((side) => Math.max(...boxes.map((box) => box[side] + box[side + 2])))
  const whole = Math.min((width - LEFT - AROUND) / (right - left), (height - TOP - AROUND) / (bottom - top))
  const scale = Math.max(SMALLEST, Math.min(LARGEST, whole))
  return { scale, offset: [LEFT / scale - left, TOP / scale - top] }
}
