// The page's objects call back by methods that anyone may replace: ours run after whatever is there already.
export function after(object, method, then) {
  const before = object[method]
  object[method] = function (...given) {
    const result = before?.apply(this, given)
    then.apply(this, given)
    return result
  }
}
