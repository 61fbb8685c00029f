// @ts-check
// The files that were dropped on the page, those in dropped folders among them.

/** @typedef {{ file: File, path: string }} Dropped A file, and its path from what was dropped: "toys/a.jpg", or "a.jpg". */

/**
 * The files of a drop. To be called while the drop is handled: its items are gone afterwards.
 * @param {DataTransfer} transfer
 * @returns {Promise<Dropped[]>}
 */
export async function droppedFiles(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file")
  const found = items.map((item) => {
    const entry = item.webkitGetAsEntry?.()
    return entry ? filesBelow(entry) : Promise.resolve(plainFiles([item.getAsFile()]))
  })
  return (await Promise.all(found)).flat()
}

/**
 * Files that came without a folder.
 * @param {Iterable<File | null>} files
 * @returns {Dropped[]}
 */
export const plainFiles = (files) => [...files].flatMap((file) => (file ? [{ file, path: file.name }] : []))

/**
 * @param {any} entry A FileSystemEntry: a file or a folder.
 * @returns {Promise<Dropped[]>}
 */
async function filesBelow(entry, folder = "") {
  const path = folder + entry.name
  if (!entry.isDirectory) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path }]
  const reader = entry.createReader()
  const files = []
  for (;;) {
    /** @type {any[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)) // A hundred at a time.
    if (!some.length) return files
    for (const inside of some) files.push(...(await filesBelow(inside, `${path}/`)))
  }
}
