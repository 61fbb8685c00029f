import js from "@eslint/js"
import { defineConfig, globalIgnores } from "eslint/config"
import globals from "globals"

const noImports = (...group) => ({ "no-restricted-imports": ["error", { patterns: [{ group }] }] })

export default defineConfig([
  globalIgnores(["js/vendor/", ".venv/", ".host/", "demo/"]),
  js.configs.recommended,
  { rules: { eqeqeq: ["error", "always", { null: "ignore" }], "max-lines-per-function": ["error", 40] } },
  { files: ["js/views/**", "js/common/**"], languageOptions: { globals: globals.browser } },
  { files: ["tests/js/**"], languageOptions: { globals: globals.node } },
  // Views use what is common, and both use the logic, which runs without a browser: it has no browser globals and no ComfyUI.
  { files: ["js/common/**"], rules: noImports("**/views/*") },
  { files: ["js/logic/**"], rules: noImports("**/views/*", "**/common/*", "**/scripts/*") },
])
