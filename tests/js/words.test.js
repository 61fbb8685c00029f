import assert from "node:assert/strict"
import { readdir, readFile } from "node:fs/promises"
import { test } from "node:test"

const JS = new URL("../../js/", import.meta.url)
const { en, uk } = JSON.parse(await readFile(new URL("words.json", JS), "utf8"))

const placeholders = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort()

test("Ukrainian has the same texts as English, with the same placeholders", () => {
  assert.deepEqual(Object.keys(uk).sort(), Object.keys(en).sort())
  for (const key of Object.keys(en)) assert.deepEqual(placeholders(uk[key]), placeholders(en[key]), key)
})

test("every text is used, and every text that is used exists", async () => {
  const files = (await readdir(JS, { recursive: true })).filter((file) => /^(common|logic|views).*\.js$/.test(file))
  const source = (await Promise.all(files.map((file) => readFile(new URL(file, JS), "utf8")))).join("\n")
  const asked = new Set([...source.matchAll(/\b(?:t|translate)\("(\w+)"/g)].map(([, key]) => key))
  assert.ok(asked.size > 20)
  assert.deepEqual([...asked].filter((key) => !(key in en)), [])
  // Curves and facts have their keys in tables: there, the name stands as a string or a property.
  const unused = Object.keys(en).filter((key) => !asked.has(key) && !new RegExp(`"${key}"|^ +${key}:`, "m").test(source))
  assert.deepEqual(unused, [])
})
