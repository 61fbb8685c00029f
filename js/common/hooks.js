// @ts-check

/**
 * Call `then` whenever the object's method was called, with the same `this` and arguments. ComfyUI and LiteGraph call back
 * through methods that any extension may replace, so the method that is there already stays and keeps its result.
 * @param {any} object
 * @param {string} method
 * @param {(this: any, ...given: any[]) => void} then
 */
export function after(object, method, then) {
  const before = object[method]
  /** @this {any} @param {...any} given */
  object[method] = function (...given) {
    const result = before?.apply(this, given)
    then.apply(this, given)
    return result
  }
}
