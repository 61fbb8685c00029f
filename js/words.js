// What our own controls say, in the language that ComfyUI's page is set to. The page (1.47) has no Ukrainian to choose and is
// English then: the browser's own language tells.
import { app } from "../../scripts/app.js"

const words = await (await fetch(new URL("./words.json", import.meta.url))).json()

export function language() {
  const set = app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "en"
  return (set === "en" ? navigator.language : set).startsWith("uk") ? "uk" : "en"
}

// The words of a key, {name} filled in.
export function t(key, values = {}) {
  const text = words[language()][key] ?? words.en[key] ?? key
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
}
