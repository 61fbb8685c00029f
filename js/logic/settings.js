// @ts-check
// Which of a node's settings mean something, which are in sight, and what the user has set beside the preset.

/** The choice of a setting that leaves it to the preset, and of a preset that leaves it to the server. */
const AUTO = "auto"
export const OWN = "own settings"

/** @typedef {Record<string, any>} Values By the names of settings. */
/**
 * What the server says of presets, see for_page in trainer/run/presets.py.
 * @typedef {{
 *   decided: string[], named: Record<string, Values>, plain: Record<string, Values>,
 *   unused: Record<string, string[]>, unused_beside_embedding: Record<string, string[]>
 * }} Presets
 */
/**
 * A node as far as its settings are concerned: their values, their defaults, the inputs that something is wired to, and whether
 * its CLIP may bring an embedding of the token.
 * @typedef {{ values: Values, initial: Values, wired: Set<string>, presets?: Presets, clipHasToken?: boolean }} State
 */

/**
 * What a setting is, by its widget or else by the preset; undefined where the page cannot know it.
 * @param {State} state
 * @param {string} name
 */
function known({ values, initial, wired, presets }, name) {
  if (wired.has(name)) return undefined
  if (values[name] !== initial[name] || !presets?.decided.includes(name)) return values[name]
  if (wired.has("preset") || values.preset === AUTO) return undefined
  return { ...presets.plain[AUTO], ...presets.named[values.preset] }[name]
}

/**
 * Whether what is trained uses a setting, or may.
 * @param {State} state
 * @param {string} name
 */
function isUsed(state, name) {
  const given = state.wired.has("embedding") || Boolean(state.values.embedding) || state.clipHasToken
  const unused = given ? state.presets?.unused_beside_embedding : state.presets?.unused
  return !unused?.[known(state, "train")]?.includes(name)
}

/**
 * Whether the model as it was takes the place of class images.
 * @param {string | undefined} prior
 */
export const isTaught = (prior) => prior !== undefined && prior !== "class_images"

/**
 * Whether the class counts, or may: by class images that are made or given, or by a teacher. `auto` makes none by itself.
 * @param {State} state
 */
function hasPrior(state) {
  if (isTaught(known(state, "prior")) || ["prior", "class_dataset", "class_images"].some((name) => state.wired.has(name))) return true
  return (known(state, "class_images") ?? (state.wired.has("preset") ? undefined : 0)) !== 0
}

/** @param {State} state */
const hasRates = (state) => known(state, "optimizer") !== "prodigy"

/**
 * When a setting that what is trained may use means something beside others; those that are not here always do.
 * @type {Record<string, (state: State) => boolean>}
 */
const MEANT = {
  start_lora: (state) => isUsed(state, "lora_rank"), // no setting itself
  class_images: (state) => !isTaught(known(state, "prior")) && !state.wired.has("class_dataset"),
  prior_loss_weight: hasPrior,
  learning_rate: hasRates,
  text_learning_rate: hasRates,
  early_stopping: (state) => known(state, "hold_out") !== 0,
  sample_every: (state) => known(state, "sample_prompts") !== "",
}

/**
 * Whether a widget is out of sight because it means nothing now, and whether it waits for the user to ask for all settings. One
 * that was changed, or comes through a link, is always in sight.
 * @param {State} state
 * @param {{ name: string, advanced: boolean }} widget
 * @returns {{ meaningless: boolean, waiting: boolean }}
 */
export function sight(state, { name, advanced }) {
  if (state.wired.has(name) || state.values[name] !== state.initial[name]) return { meaningless: false, waiting: false }
  return { meaningless: !(isUsed(state, name) && (MEANT[name]?.(state) ?? true)), waiting: advanced && state.values.preset !== OWN }
}

/**
 * The settings that the user has set beside the preset, or wired, by name; and what takes the place of its class images.
 * @param {State} state
 */
export function besidePreset({ values, initial, wired, presets }) {
  if (!presets || (values.preset === OWN && !wired.has("preset"))) return []
  const said = wired.has("preset") ? {} : presets.named[values.preset]
  const instead = [isTaught(values.prior) || wired.has("prior") ? "prior" : "", wired.has("class_dataset") ? "class_dataset" : ""]
  const own = presets.decided.filter((name) => wired.has(name) || ![initial[name], said?.[name]].includes(values[name]))
  return [...own, ...(said?.class_images ? instead.filter(Boolean) : [])]
}
