// @ts-check
// What "own settings" is filled in with, and what of it is the user's own by now.

import { isTaught } from "./settings.js"

/** @import { State, Values } from "./settings.js" */
/**
 * What was filled in: by which values, those of a preset or of a run, and what was put into each widget. null stands for one that
 * had a value of the user's.
 * @typedef {{ said: Values, put: Values }} Filling
 */

const AUTO = "auto"
const RATES = ["learning_rate", "text_learning_rate"]
const SIZE = ["lora_rank", "lora_alpha"]
/** What the photos and the device decide, so that the plain defaults leave it out. */
const LATER = ["steps", "precision"]

/**
 * What "own settings" is filled in by: what the preset before it says, or after `auto` what the node's last run took.
 * @param {State} state
 * @param {string} before The preset that was chosen before.
 * @param {Values} [last]
 */
export const saidBefore = ({ presets }, before, last) => presets?.named[before] ?? last ?? {}

/**
 * Whether the rate of the text is that of the model, as the study has it, and not its own.
 * @param {Values} said
 * @param {Values} plain
 */
const isModels = ({ learning_rate: rate, text_learning_rate: text }, plain) => text && text === rate && text !== plain.text_learning_rate

/**
 * What `said` comes to beside what the user has set, and the plain defaults where it says nothing. Rates and the settings of a LoRA
 * are those of what is trained; the rank of a LoRA that is gone on from is left to its file.
 * @param {State} state
 * @param {Values} said
 * @returns {Values}
 */
export function ownValues({ values, initial, wired, presets }, said) {
  if (!presets) return {}
  const isLeft = values.train === initial.train
  const train = (isLeft ? said.train : values.train) ?? AUTO
  const plain = presets.plain[train] ?? {}
  const other = said.train !== undefined && said.train !== train
  const holds = (/** @type {string} */ name) => LATER.includes(name) || (name in plain && name !== "train" && !(other && RATES.includes(name)))
  const own = { ...plain, ...Object.fromEntries(Object.entries(said).filter(([name]) => holds(name))) }
  if (!other && isModels(said, plain) && values.learning_rate !== initial.learning_rate) own.text_learning_rate = values.learning_rate
  if (isTaught(values.prior) || wired.has("class_dataset")) own.class_images = 0
  if (values.lora_rank !== initial.lora_rank && "lora_alpha" in own) own.lora_alpha = values.lora_rank
  if (own.batch_size % values.devices) own.batch_size = Math.max(1, Math.floor(own.batch_size / values.devices)) * values.devices
  const optimizer = values.optimizer === initial.optimizer ? own.optimizer : values.optimizer
  const everywhere = (/** @type {string} */ name) => LATER.includes(name) || Object.values(presets.plain).every((of) => name in of)
  const goesOn = values.start_lora !== initial.start_lora || wired.has("start_lora") || wired.has("lora")
  const isKnown = (/** @type {string} */ name) => {
    if (goesOn && SIZE.includes(name)) return false
    if (RATES.includes(name)) return optimizer !== "prodigy" && ![...wired].some((by) => ["train", "optimizer"].includes(by))
    return !wired.has("train") || everywhere(name)
  }
  return Object.fromEntries(Object.entries(own).filter(([name]) => isKnown(name)))
}

/**
 * What is filled in now: what the user has not touched follows what they have.
 * @param {State} state
 * @param {Filling} filling
 * @returns {Filling}
 */
export function filledIn(state, { said, put }) {
  const { values, initial, wired } = state
  const isTheirs = (/** @type {string} */ name) => wired.has(name) || values[name] !== (name in put ? put[name] : initial[name])
  const theirs = Object.keys(values).map((name) => [name, isTheirs(name) ? values[name] : initial[name]])
  const own = ownValues({ ...state, values: Object.fromEntries(theirs) }, said)
  const names = [...new Set([...Object.keys(put), ...Object.keys(own)])].filter((name) => name in values)
  const now = names.map((name) => [name, isTheirs(name) ? put[name] ?? null : own[name] ?? initial[name]])
  return { said, put: Object.fromEntries(now) }
}

/**
 * The values that widgets are to get so that a node has what is filled in now, in place of what was before.
 * @param {State} state
 * @param {Filling} before
 * @param {Filling} [now] None: what was filled in is left to the preset again.
 */
export function refilled({ values, initial, wired }, before, now) {
  const names = Object.keys({ ...before.put, ...now?.put }).filter((name) => !wired.has(name) && name in values)
  const untouched = names.filter((name) => values[name] === (name in before.put ? before.put[name] : initial[name]))
  return Object.fromEntries(untouched.map((name) => [name, now ? now.put[name] : initial[name]]))
}
