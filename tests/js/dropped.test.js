import assert from "node:assert/strict"
import { test } from "node:test"
import { droppedFiles, plainFiles } from "../../js/logic/dropped.js"

/** An entry of a file system, as browsers give it; of a folder's entries they give two at a time here. */
const fileEntry = (name) => ({ name, isDirectory: false, file: (resolve) => resolve({ name }) })
const folderEntry = (name, entries) => ({
  name,
  isDirectory: true,
  createReader() {
    const left = [...entries]
    return { readEntries: (resolve) => resolve(left.splice(0, 2)) }
  },
})
const item = (entry) => ({ kind: "file", webkitGetAsEntry: () => entry, getAsFile: () => ({ name: entry.name }) })
const paths = (dropped) => dropped.map(({ path, file }) => [path, file.name])

test("the files of a dropped folder come with their paths, however many and deep", async () => {
  const deep = folderEntry("10_dog", ["a.jpg", "b.jpg", "c.jpg", "a.txt", "d.jpg"].map(fileEntry))
  const transfer = { items: [item(folderEntry("img", [deep, fileEntry("x.png")])), item(fileEntry("y.png"))] }
  assert.deepEqual(paths(await droppedFiles(transfer)), [
    ["img/10_dog/a.jpg", "a.jpg"],
    ["img/10_dog/b.jpg", "b.jpg"],
    ["img/10_dog/c.jpg", "c.jpg"],
    ["img/10_dog/a.txt", "a.txt"],
    ["img/10_dog/d.jpg", "d.jpg"],
    ["img/x.png", "x.png"],
    ["y.png", "y.png"],
  ])
})

test("a browser without entries gives plain files, and text that is dragged along is no file", async () => {
  const plain = { kind: "file", getAsFile: () => ({ name: "a.jpg" }) }
  const gone = { kind: "file", getAsFile: () => null }
  assert.deepEqual(paths(await droppedFiles({ items: [{ kind: "string" }, plain, gone] })), [["a.jpg", "a.jpg"]])
})

test("a folder that cannot be read is an error, not an empty drop", async () => {
  const closed = { name: "img", isDirectory: true, createReader: () => ({ readEntries: (_, reject) => reject(new Error("no")) }) }
  await assert.rejects(droppedFiles({ items: [item(closed)] }), /no/)
})

test("chosen files have their names as paths", () => {
  assert.deepEqual(paths(plainFiles([{ name: "a.jpg" }])), [["a.jpg", "a.jpg"]])
})
