/** A command's numbers: decimal, whole, bounded. */

/** The number in `text`, from `min` to `max`. Throws naming `what`. */
export function parseCount (text, what, max, min = 0) {
  const count = /^\d+$/.test(text) ? Number(text) : NaN
  if (!(count >= min && count <= max)) {
    throw new Error(`expected a count of ${what} from ${min} to ${max}, got "${text}"`)
  }
  return count
}
