// @ts-check
// How many decimals a number widget needs, and what it holds of what its arrows have made.

const MAX_DECIMALS = 20 // that browsers write
const DIGITS = 15 // All that a number holds whatever it is: a typed one stays as it is.

/**
 * How many decimals a number has: 2 of 0.25, 8 of 2.25e-6.
 * @param {number} value
 */
export function decimalsOf(value) {
  const [digits, exponent] = Number(value).toExponential().split("e")
  const found = (digits.split(".")[1] ?? "").length - Number(exponent)
  return Math.min(MAX_DECIMALS, Math.max(0, found || 0))
}

/**
 * A number without what adding steps has left far behind its digits: 0.1 + 0.2 is 0.3.
 * @param {any} value
 */
export function withoutNoise(value) {
  return Number.isFinite(value) && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value
}
