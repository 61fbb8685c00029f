import assert from "node:assert/strict"
import { test } from "node:test"
import { chooseLanguage, fillIn, splitCaption } from "../../js/logic/text.js"

test("the pack's own setting decides the language, whatever page and browser have", () => {
  assert.equal(chooseLanguage({ setting: "en", page: "uk", browser: "uk-UA" }), "en")
  assert.equal(chooseLanguage({ setting: "uk", page: "en", browser: "en-US" }), "uk")
})

test("without a setting of its own the pack follows the page", () => {
  for (const setting of ["page", undefined, null]) {
    assert.equal(chooseLanguage({ setting, page: "uk", browser: "en-US" }), "uk")
    assert.equal(chooseLanguage({ setting, page: "zh-TW", browser: "uk" }), "en")
  }
})

test("an English page, or one that has not said its language, leaves it to the browser", () => {
  for (const page of ["en", undefined, null]) {
    assert.equal(chooseLanguage({ setting: "page", page, browser: "uk-UA" }), "uk")
    assert.equal(chooseLanguage({ setting: "page", page, browser: "de-DE" }), "en")
    assert.equal(chooseLanguage({ setting: "page", page, browser: "ur" }), "en")
  }
})

test("every placeholder that has a value is filled in", () => {
  assert.equal(fillIn("After {step} steps: {prompt}", { step: 20, prompt: "a photo" }), "After 20 steps: a photo")
  assert.equal(fillIn("{a}{a} {b}", { a: 0, b: "" }), "00 ")
})

test("one is singular in English", () => {
  assert.equal(fillIn("After {step} steps: {prompt}", { step: 1, prompt: "1 steps" }), "After 1 step: 1 steps")
  assert.equal(fillIn("{folder} ({count} photos)", { folder: "a", count: 11 }), "a (11 photos)")
})

test("a placeholder without a value stays, and so do other braces", () => {
  assert.equal(fillIn("{gb} GB in use"), "{gb} GB in use")
  assert.equal(fillIn("{a} {} { b } {c", { b: 1, c: 2 }), "{a} {} { b } {c")
  assert.equal(fillIn("{a}", { a: null }), "{a}")
})

test("what is filled in is not read as a template or a pattern", () => {
  assert.equal(fillIn("<{name}>", { name: "{name} $& $1" }), "<{name} $& $1>")
})

/** The parts, written as: plain, [token], (class). */
function written(caption, token, classWord) {
  const marks = { plain: (text) => text, token: (text) => `[${text}]`, class: (text) => `(${text})` }
  return splitCaption(caption, token, classWord).map(({ text, kind }) => marks[kind](text)).join("")
}

test("a caption is split at the token and the class", () => {
  assert.deepEqual(splitCaption("a photo of mysks plush toy", "mysks", "plush toy"), [
    { text: "a photo of ", kind: "plain" },
    { text: "mysks", kind: "token" },
    { text: " ", kind: "plain" },
    { text: "plush toy", kind: "class" },
  ])
})

test("upper and lower case are the same name", () => {
  assert.equal(written("MySks, a Dog. dog!", "mysks", "dog"), "[MySks], a (Dog). (dog)!")
  assert.equal(written("Пес і пес", "mysks", "пес"), "(Пес) і (пес)")
  assert.equal(written("mysks", "MySks", "dog"), "[mysks]")
})

test("only whole words are marked, in every script", () => {
  assert.equal(written("dogs hotdog dog2 dog_ 3dog пdog dog", "sks", "dog"), "dogs hotdog dog2 (dog)_ 3dog пdog (dog)")
  assert.equal(written("dog-dog", "sks", "dog"), "(dog)-(dog)")
})

test("signs that mean something in a regular expression are letters like others", () => {
  assert.equal(written("a.c abc a.c+ (x", "a.c", "(x"), "[a.c] abc [a.c]+ ((x)")
  assert.equal(written("a photo of s$ks", "s$ks", ""), "a photo of [s$ks]")
})

test("a token that begins the class is the token, one that contains the class is whole", () => {
  assert.equal(written("my toy", "my", "my toy"), "[my] toy")
  assert.equal(written("my-toy toy", "my-toy", "toy"), "[my-toy] (toy)")
})

test("nothing to mark leaves one plain part, an empty caption none", () => {
  const plain = [{ text: "a photo, in snow", kind: "plain" }]
  assert.deepEqual(splitCaption("a photo, in snow", "mysks", "toy"), plain)
  assert.deepEqual(splitCaption("a photo, in snow", "", ""), plain)
  assert.deepEqual(splitCaption("", "mysks", "toy"), [])
})

test("underscores, and letters of scripts without blanks, end a word", () => {
  assert.equal(written("photo_of_mysks_dog", "mysks", "dog"), "photo_of_[mysks]_(dog)")
  assert.equal(written("一张mysks狗的照片, รูปmysksหมา", "mysks", ""), "一张[mysks]狗的照片, รูป[mysks]หมา")
  assert.equal(written("mysksä ємysks mysks2", "mysks", ""), "mysksä ємysks mysks2")
})

test("HTML in a caption is text", () => {
  assert.equal(written("<img src=x> mysks", "mysks", ""), "<img src=x> [mysks]")
})
