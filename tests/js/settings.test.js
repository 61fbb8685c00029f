import assert from "node:assert/strict"
import { test } from "node:test"
import { besidePreset, sight } from "../../js/logic/settings.js"

const presets = {
  decided: ["train", "class_images", "lora_rank", "learning_rate", "optimizer"],
  named: { "12 GB card": { train: "unet_and_token", class_images: 100 }, small: { train: "lora" } },
  plain: {
    auto: { train: "unet_and_token", class_images: 0, learning_rate: 2e-6, optimizer: "adamw" },
    lora: { train: "lora", lora_rank: 16, learning_rate: 1e-4 },
  },
  unused: { unet: ["lora_rank", "text_learning_rate"], unet_and_token: ["lora_rank"], lora: ["text_learning_rate"], lora_and_token: [] },
  unused_beside_embedding: { unet: ["lora_rank"], unet_and_token: ["lora_rank"], lora: [], lora_and_token: [] },
}
const initial = {
  preset: "auto", train: "auto", class_images: -1, lora_rank: 0, learning_rate: 0, optimizer: "auto",
  prior_loss_weight: 1, hold_out: 0, early_stopping: "off", sample_prompts: "", sample_every: 0,
}
const state = (values = {}, wired = []) => ({ values: { ...initial, ...values }, initial, wired: new Set(wired), presets })
const means = (name, values, wired) => !sight(state(values, wired), { name, advanced: true }).meaningless

test("a LoRA's settings mean something where one is or may be trained", () => {
  assert.equal(means("lora_rank", { train: "lora" }), true)
  assert.equal(means("lora_rank", { train: "lora_and_token" }), true)
  assert.equal(means("lora_rank", { preset: "small" }), true)
  assert.equal(means("lora_rank", {}), true) // the server may choose one
  assert.equal(means("lora_rank", { preset: "12 GB card" }), false)
  assert.equal(means("lora_rank", { preset: "own settings" }), false)
  assert.equal(means("lora_rank", { train: "unet" }), false)
  assert.equal(means("lora_rank", { preset: "12 GB card" }, ["preset"]), true)
  assert.equal(means("lora_rank", { train: "unet" }, ["train"]), true)
  assert.equal(means("start_lora", { train: "unet" }), false)
  assert.equal(means("start_lora", { train: "lora" }), true)
})

test("the rate of the text means something where the text is or may be trained", () => {
  assert.equal(means("text_learning_rate", { train: "unet" }), false)
  assert.equal(means("text_learning_rate", { train: "unet_and_token" }), true)
  assert.equal(means("text_learning_rate", {}), true)
  const beside = (values) => sight({ ...state(values), clipHasToken: true }, { name: "text_learning_rate", advanced: true }).meaningless
  assert.equal(beside({ train: "lora" }), false) // the vectors of a CLIP from Train a Textual Inversion learn on
  assert.equal(means("text_learning_rate", { train: "lora" }), false)
  assert.equal(means("text_learning_rate", { train: "unet_and_token", optimizer: "prodigy" }), false)
})

test("a setting means nothing without what it is about", () => {
  assert.equal(means("prior_loss_weight", { class_images: 0 }), false)
  assert.equal(means("prior_loss_weight", { preset: "12 GB card" }), true)
  assert.equal(means("prior_loss_weight", { class_images: 0 }, ["class_dataset"]), true)
  assert.equal(means("prior_loss_weight", { class_images: 0, prior: "teacher" }), true)
  assert.equal(means("prior_loss_weight", {}), false) // auto makes no class images
  assert.equal(means("prior_loss_weight", { class_images: 50 }), true)
  assert.equal(means("prior_loss_weight", { prior: "teacher" }), true)
  assert.equal(means("prior_loss_weight", { preset: "own settings" }), false)
  for (const wired of ["preset", "prior", "class_images", "class_dataset"]) assert.equal(means("prior_loss_weight", {}, [wired]), true)
  assert.equal(means("class_images", {}, ["class_dataset"]), false) // they are given
  assert.equal(means("class_images", { class_images: 50 }, ["class_dataset"]), true) // refused, so it must be seen
  assert.equal(means("class_images", { prior: "teacher" }), false)
  assert.equal(means("prior_loss_weight", { class_images: 0, prior: "teacher_outside_masks" }), true)
  assert.equal(means("class_images", { prior: "teacher_outside_masks" }), false)
  assert.equal(means("class_images", {}), true)
  assert.equal(means("learning_rate", { optimizer: "prodigy" }), false)
  assert.equal(means("learning_rate", { optimizer: "adamw" }), true)
  assert.equal(means("text_learning_rate", {}), true)
  assert.equal(means("text_learning_rate", { train: "unet" }), false)
  assert.equal(means("text_learning_rate", { train: "lora" }), false)
  assert.equal(means("text_learning_rate", { train: "lora", embedding: "mysks" }), true)
  assert.equal(means("text_learning_rate", { train: "lora" }, ["embedding"]), true)
  assert.equal(means("text_learning_rate", { train: "lora_and_token" }), true)
  assert.equal(means("early_stopping", {}), false)
  assert.equal(means("early_stopping", { hold_out: 2 }), true)
  assert.equal(means("sample_every", { sample_prompts: "a photo" }), true)
})

test("a changed or wired setting is always in sight", () => {
  const shown = { meaningless: false, waiting: false }
  assert.deepEqual(sight(state({ lora_rank: 8, train: "unet" }), { name: "lora_rank", advanced: true }), shown)
  assert.deepEqual(sight(state({ train: "unet" }, ["lora_rank"]), { name: "lora_rank", advanced: true }), shown)
  assert.deepEqual(sight(state({ optimizer: "prodigy" }), { name: "optimizer", advanced: true }), shown)
  assert.equal(sight(state(), { name: "optimizer", advanced: true }).waiting, true)
  assert.equal(sight(state(), { name: "optimizer", advanced: false }).waiting, false)
  assert.equal(sight(state({ preset: "own settings" }), { name: "optimizer", advanced: true }).waiting, false)
})

test("what was set beside a preset is what it does not say itself", () => {
  assert.deepEqual(besidePreset(state()), [])
  assert.deepEqual(besidePreset(state({ lora_rank: 32 })), ["lora_rank"])
  assert.deepEqual(besidePreset(state({ preset: "12 GB card", class_images: 100, optimizer: "adamw" })), ["optimizer"])
  assert.deepEqual(besidePreset(state({ preset: "own settings", lora_rank: 32 })), [])
  const card = { preset: "12 GB card", prior: "class_images" }
  assert.deepEqual(besidePreset(state(card)), [])
  for (const prior of ["teacher", "teacher_outside_masks"]) {
    assert.deepEqual(besidePreset(state({ ...card, prior, optimizer: "adamw" })), ["optimizer", "prior"])
    assert.deepEqual(besidePreset(state({ preset: "small", prior })), []) // It makes none.
    assert.deepEqual(besidePreset(state({ prior })), [])
  }
  assert.deepEqual(besidePreset(state(card, ["prior"])), ["prior"])
  assert.deepEqual(besidePreset(state(card, ["class_dataset"])), ["class_dataset"])
  assert.deepEqual(besidePreset(state({ preset: "small" }, ["class_dataset"])), [])
  assert.deepEqual(besidePreset(state({ preset: "own settings", lora_rank: 32 }, ["preset", "train"])), ["train", "lora_rank"])
  assert.deepEqual(besidePreset({ ...state({ hold_out: 2 }), presets: undefined }), [])
})
