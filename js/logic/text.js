// @ts-check
// The choice of the language, and what is done to texts before they are shown.

/** The value of the pack's language setting that means: as ComfyUI's page. */
export const FOLLOW_PAGE = "page"

/**
 * ComfyUI's page (1.47) offers no Ukrainian and is English for Ukrainian users, so the browser's language decides then.
 * @param {{ setting?: string | null, page?: string | null, browser: string }} languages
 * @returns {"en" | "uk"}
 */
export function chooseLanguage({ setting, page, browser }) {
  const chosen = setting ?? FOLLOW_PAGE
  const followed = (page ?? "en") === "en" ? browser : String(page)
  return (chosen === FOLLOW_PAGE ? followed : chosen).startsWith("uk") ? "uk" : "en"
}

/**
 * Replace each {name} by its value; a name without a value stays. English says "1 photo"; translations suit any number.
 * @param {string} template
 * @param {Record<string, unknown>} [values]
 */
export function fillIn(template, values = {}) {
  const suited = template.replace(/(\{(\w+)\} (?:photo|step))s\b/g, (whole, one, name) => (values[name] === 1 ? one : whole))
  return suited.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole))
}

/** @typedef {{ text: string, kind: "plain" | "token" | "class" }} CaptionPart */

/** @param {string} text */
const escapeRegExp = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

// Scripts that are written without blanks, or set particles to a word, as trainer/dataset/captions.py has them.
const UNSPACED =
  "\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u2e80-\\u30ff\\u3400-\\u9fff\\uac00-\\ud7af\\uf900-\\ufaff\\u{20000}-\\u{3ffff}"
const LETTER = `(?![${UNSPACED}])[\\p{L}\\p{N}]`

/**
 * Split a caption where the token and the class stand as whole words, in upper or lower case.
 * @param {string} caption
 * @param {string} token
 * @param {string} classWord
 * @returns {CaptionPart[]}
 */
export function splitCaption(caption, token, classWord) {
  const names = [token, classWord].filter(Boolean).map(escapeRegExp)
  if (!names.length) return [{ text: caption, kind: "plain" }]
  const whole = new RegExp(`(?<!${LETTER})(${names.join("|")})(?!${LETTER})`, "giu")
  // Split at an expression in parentheses: what it matched is at the odd places, between the rest.
  /** @type {CaptionPart[]} */
  const parts = caption.split(whole).map((text, index) => {
    if (index % 2 === 0) return { text, kind: "plain" }
    return { text, kind: text.toLowerCase() === token.toLowerCase() ? "token" : "class" }
  })
  return parts.filter(({ text }) => text)
}
