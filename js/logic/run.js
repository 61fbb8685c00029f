// @ts-check
// What the page shows of a training run, taken from the server's description of the run.

/** @import { Progress, RunCard } from "../common/server.js" */
/** @typedef {(key: string, values?: Record<string, unknown>) => string} Translate */

/**
 * The sample pictures, oldest first, then the grid of all of them where there is one, each with its title.
 * @param {Pick<RunCard, "samples" | "prompts" | "grid">} card
 * @param {Translate} translate
 */
export function samplePictures({ samples, prompts, grid }, translate) {
  const pictures = samples.map(({ step, prompt, file }) => {
    return { file, title: translate("sample", { step, prompt: prompts[prompt] ?? prompt }) }
  })
  return grid ? [...pictures, { file: grid, title: translate("grid") }] : pictures
}

/**
 * The facts that are known of a run, as pairs of a translation key and a value.
 * @param {Pick<RunCard, "facts" | "steps">} card
 */
export function runFacts({ facts, steps }) {
  const known = {
    trigger: facts.trigger,
    token: facts.token,
    class_word: facts.class,
    base: facts.base,
    steps: facts.exported_step ?? steps,
    step_to_use: facts.step_to_use ?? "",
    photos: facts.photos,
    date: facts.date,
  }
  return Object.entries(known).filter(([, value]) => value !== "")
}

/**
 * "Training: step 120 of 800 · 7.3 GB in use"; the memory is left out before it is known.
 * @param {Pick<Progress, "text" | "memory">} progress
 * @param {Translate} translate
 */
export function progressLine({ text, memory }, translate) {
  const used = memory ? translate("memory", { gb: (memory / 1e9).toFixed(1) }) : ""
  return [text, used].filter(Boolean).join(" · ")
}

/**
 * What is said aloud of the progress, whose first line tells the step and what follows it: that another phase has begun, or that
 * there is something else to know, not each of its steps.
 * @param {string} text
 * @param {string} said What was said last.
 */
export function announced(text, said) {
  /** @param {string} lines */
  const withoutStep = (lines) => lines.replace(/^([^\d\n]*)\d.*/, "$1")
  return withoutStep(text) === withoutStep(said) ? said : text
}

/** @typedef {"sample" | "finish" | "undo" | "reopen"} RunButton What a button of the panel asks of a run. */

/**
 * The buttons that a run offers while it trains. Once it exports, nothing can be asked of it.
 * @param {Pick<Progress, "can_finish" | "finishing" | "has_prompts">} progress
 * @returns {RunButton[]}
 */
export function runButtons({ can_finish: isTraining, finishing: isFinishing, has_prompts: hasPrompts }) {
  if (!isTraining) return []
  if (isFinishing) return ["undo"]
  return hasPrompts ? ["sample", "finish"] : ["finish"]
}

/**
 * The nodes of a graph and of the subgraphs in it.
 * @param {Comfy.Graph | undefined} graph
 * @returns {Comfy.Node[]}
 */
export const allNodes = (graph) => (graph?.nodes ?? []).flatMap((node) => [node, ...allNodes(node.subgraph)])

/**
 * The node with this id; "12:5" is node 5 in the subgraph of node 12.
 * @param {Comfy.Graph | undefined} graph
 * @param {string | number} id
 * @returns {Comfy.Node | undefined}
 */
export function findNode(graph, id) {
  const [first, ...rest] = String(id).split(":")
  const node = graph?.getNodeById(Number(first)) ?? undefined
  return rest.length ? findNode(node?.subgraph, rest.join(":")) : node
}
