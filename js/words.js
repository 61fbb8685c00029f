// What our own controls say, in the language that is set for the pack.
import { app } from "../../scripts/app.js"

export const SETTING = "SubjectTrainer.Language"
export const AS_PAGE = "page"

const words = await (await fetch(new URL("./words.json", import.meta.url))).json()

// ComfyUI's page (1.47) has no Ukrainian to choose and is English then: the browser's own language tells.
export function language() {
  const setting = (name) => app.extensionManager?.setting?.get(name)
  const chosen = setting(SETTING) ?? AS_PAGE
  const page = setting("Comfy.Locale") ?? "en"
  const wanted = chosen !== AS_PAGE ? chosen : page === "en" ? navigator.language : page
  return wanted.startsWith("uk") ? "uk" : "en"
}

// The words of a key, {name} filled in.
export function t(key, values = {}) {
  const text = words[language()][key] ?? words.en[key] ?? key
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
}
