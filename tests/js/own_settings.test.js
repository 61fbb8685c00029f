import assert from "node:assert/strict"
import { test } from "node:test"
import { filledIn, ownValues, refilled, saidBefore } from "../../js/logic/own_settings.js"

const plain = { class_images: 0, optimizer: "adamw", batch_size: 1 }
const lora = { ...plain, train: "lora", lora_rank: 16, lora_alpha: 16, learning_rate: 1e-4, text_learning_rate: 0 }
const unet = { ...plain, train: "unet", learning_rate: 2e-6, text_learning_rate: 0 }
const token = { ...plain, train: "unet_and_token", learning_rate: 2e-6, text_learning_rate: 1e-4 }
const presets = {
  decided: Object.keys({ ...lora, steps: 0, precision: "" }),
  named: {
    paper: { train: "unet", class_images: 200, steps: 1000, learning_rate: 5e-6 },
    small: { train: "lora", class_images: 100, optimizer: "adamw_8bit" },
  },
  plain: { auto: token, unet, lora, unet_and_token: token, lora_and_token: { ...lora, train: "lora_and_token" } },
}
const initial = {
  train: "auto", class_images: -1, optimizer: "auto", batch_size: 0, lora_rank: 0, lora_alpha: 0, steps: 0, precision: "auto",
  start_lora: "none", learning_rate: 0, text_learning_rate: 0, prior: "class_images", devices: 1,
}
const state = (values = {}, wired = []) => ({ values: { ...initial, ...values }, initial, wired: new Set(wired), presets })
const AUTO_TOOK = { ...lora, steps: 400, precision: "fp32" }

/** A node with "own settings", as its page has it. */
class Node {
  constructor(said, values = {}) {
    this.filling = { said, put: {} }
    this.values = { ...initial, ...values }
    this.fill(filledIn(state(this.values), this.filling))
  }
  fill(now) {
    Object.assign(this.values, refilled(state(this.values), this.filling, now))
    this.filling = JSON.parse(JSON.stringify(now ?? null)) // as a file keeps it
  }
  set(name, value) {
    this.values[name] = value
    this.fill(filledIn(state(this.values), this.filling))
  }
  leave() {
    this.fill()
    return Object.fromEntries(Object.entries(this.values).filter(([name, value]) => value !== initial[name]))
  }
}

test("own settings are what the preset before said, else what the last run took, else the plain defaults", () => {
  assert.equal(saidBefore(state(), "small", AUTO_TOOK), presets.named.small)
  assert.equal(saidBefore(state(), "auto", AUTO_TOOK), AUTO_TOOK)
  assert.deepEqual(ownValues(state(), presets.named.small), { ...lora, class_images: 100, optimizer: "adamw_8bit" })
  assert.deepEqual(ownValues(state(), presets.named.paper), { ...unet, class_images: 200, steps: 1000, learning_rate: 5e-6 })
  assert.deepEqual(ownValues(state(), AUTO_TOOK), AUTO_TOOK)
  assert.deepEqual(ownValues(state(), saidBefore(state(), "auto")), token)
})

test("rates and a LoRA's settings are those of what is trained", () => {
  assert.deepEqual(ownValues(state({ train: "unet" }), AUTO_TOOK), { ...unet, steps: 400, precision: "fp32" })
  assert.deepEqual(ownValues(state({ train: "lora" }), presets.named.paper), { ...lora, class_images: 200, steps: 1000 })
  const tuned = { ...AUTO_TOOK, lora_rank: 32, learning_rate: 5e-5 }
  assert.deepEqual([32, 1e-4], ["lora_rank", "learning_rate"].map((name) => ownValues(state({ train: "lora_and_token" }), tuned)[name]))
})

test("a rate of the text that is the model's stays the model's", () => {
  const study = { train: "unet_and_token", learning_rate: 2e-6, text_learning_rate: 2e-6 } // the preset's 0, see widget_values
  const text = (said, values) => ownValues(state(values), said).text_learning_rate
  assert.equal(text(study, {}), 2e-6)
  assert.equal(text(study, { learning_rate: 5e-6 }), 5e-6)
  assert.equal(text(study, { learning_rate: 5e-6, train: "unet" }), 0)
  assert.equal(text(token, { learning_rate: 5e-6 }), 1e-4)
  assert.equal(text({}, { learning_rate: 5e-6 }), 1e-4)
  const both = { ...lora, train: "lora_and_token", text_learning_rate: 1e-4 } // each at its own
  const withBoth = { ...state({ learning_rate: 5e-5 }), presets: { ...presets, plain: { ...presets.plain, lora_and_token: both } } }
  assert.equal(ownValues(withBoth, both).text_learning_rate, 1e-4)
  const node = new Node(study)
  node.set("learning_rate", 5e-6)
  assert.equal(node.values.text_learning_rate, 5e-6)
})

test("what is filled in contradicts nothing that the user has set", () => {
  assert.equal(ownValues(state({ prior: "teacher" }), presets.named.paper).class_images, 0)
  assert.equal(ownValues(state({}, ["class_dataset"]), presets.named.paper).class_images, 0)
  assert.equal(ownValues(state({ lora_rank: 32 }), presets.named.small).lora_alpha, 32)
  for (const of of [state({ start_lora: "a.safetensors" }), state({}, ["lora"]), state({}, ["start_lora"])]) {
    assert.ok(!("lora_rank" in ownValues(of, AUTO_TOOK)) && !("lora_alpha" in ownValues(of, AUTO_TOOK)))
  }
  assert.equal(ownValues(state({ start_lora: "none" }), AUTO_TOOK).lora_rank, 16)
  assert.equal(ownValues(state({ devices: 3 }), {}).batch_size, 3)
  assert.equal(ownValues(state({ devices: 2 }), { batch_size: 8 }).batch_size, 8)
  assert.ok(!("learning_rate" in ownValues(state({ optimizer: "prodigy" }), presets.named.paper)))
  assert.ok(!("learning_rate" in ownValues(state({}, ["optimizer"]), presets.named.paper)))
  assert.deepEqual(Object.keys(ownValues(state({}, ["train"]), AUTO_TOOK)).filter((name) => /lora|rate/.test(name)), [])
})

test("what the user has not touched follows what is trained", () => {
  const node = new Node(AUTO_TOOK, { batch_size: 4 })
  assert.deepEqual([node.values.learning_rate, node.values.lora_rank, node.values.batch_size], [1e-4, 16, 4])
  node.set("train", "unet")
  assert.deepEqual([node.values.learning_rate, node.values.lora_rank, node.values.lora_alpha], [2e-6, 0, 0])
  assert.equal(node.values.steps, 400)
  node.set("learning_rate", 1e-5)
  node.set("train", "lora")
  assert.deepEqual([node.values.learning_rate, node.values.lora_rank], [1e-5, 16])
  node.set("lora_rank", 8)
  assert.equal(node.values.lora_alpha, 8)
  node.set("learning_rate", 0) // left to what is trained, and not filled in again
  node.set("steps", 500)
  assert.equal(node.values.learning_rate, 0)
})

test("Prodigy takes the rates away, and another optimizer brings them back", () => {
  const node = new Node(presets.named.paper)
  node.set("optimizer", "prodigy")
  assert.equal(node.values.learning_rate, 0)
  node.set("optimizer", "adamw")
  assert.equal(node.values.learning_rate, 5e-6)
})

test("another preset leaves what was filled in and untouched to itself, whatever is trained by now", () => {
  assert.deepEqual(new Node(AUTO_TOOK).leave(), {})
  const node = new Node({}, { batch_size: 4 })
  node.set("train", "lora")
  node.set("steps", 7)
  assert.deepEqual(node.leave(), { train: "lora", steps: 7, batch_size: 4 })
  const back = new Node(AUTO_TOOK)
  back.set("train", "unet")
  back.set("train", "auto")
  assert.deepEqual(back.leave(), {})
})

test("what comes through a link is left alone", () => {
  const before = { said: AUTO_TOOK, put: { steps: 400 } }
  assert.deepEqual(refilled(state({ steps: 400 }, ["steps"]), before), {})
  assert.deepEqual(refilled({ ...state({ steps: 400 }), presets: undefined }, before), { steps: 0 })
})
