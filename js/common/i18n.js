// @ts-check
// The texts of the pack's own controls, in the language that is set for the pack.
import { app } from "../../../scripts/app.js"
import { chooseLanguage, fillIn } from "../logic/text.js"

export const LANGUAGE_SETTING = "SubjectTrainer.Language"

/** @type {Record<"en" | "uk", Record<string, string>>} */
const texts = await (await fetch(new URL("../words.json", import.meta.url))).json()

export function language() {
  const settings = app.extensionManager?.setting
  const [setting, page] = [settings?.get(LANGUAGE_SETTING), settings?.get("Comfy.Locale")]
  return chooseLanguage({ setting, page, browser: navigator.language })
}

/** @type {(() => void)[]} */
const listeners = []

/** @param {() => void} listener Called when another language was chosen. */
export const onLanguage = (listener) => listeners.push(listener)

export const languageChanged = () => listeners.forEach((listener) => listener())

/**
 * The text of a key, with each {name} in it replaced by its value.
 * @param {string} key
 * @param {Record<string, unknown>} [values]
 */
export function t(key, values) {
  return fillIn(texts[language()][key] ?? texts.en[key] ?? key, values)
}
