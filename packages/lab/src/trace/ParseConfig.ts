import { NUM_VMPLS, resolveSwitches, SWITCH_IDS, type SwitchChoice, type SwitchId } from "@vmpl-lab/rmp"
import type { TraceConfig } from "./Action.ts"
import { Fields, LineInvalid } from "./Fields.ts"

/** 4 TiB of covered memory, the most that one table can hold. */
const PAGES_MAX = 2 ** 30
const FRAMES = 2 ** 40
const CHOICES = ["default", "alternative"] as const

const switchesOf = (config: Fields): { readonly [id in SwitchId]?: SwitchChoice } => {
  const fields = config.optionalObject("switches", 'an object such as {"U1":"alternative"}')
  if (fields === undefined) return {}
  const given: { [id in SwitchId]?: SwitchChoice } = {}
  for (const id of SWITCH_IDS) {
    const choice = fields.optionalChoice(id, CHOICES)
    if (choice !== undefined) given[id] = choice
  }
  fields.end()
  return given
}

/** Whether a line after the first gives the configuration again. */
export const isConfig = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.hasOwn(value, "config")

/**
 * One JSON value, the first line of a trace, as its configuration.
 * @throws LineInvalid for anything but `{"config":{...}}` with `pages` and `base` whole 2 MiB regions.
 */
export const parseConfig = (value: unknown): TraceConfig => {
  const line = new Fields(value)
  const config = line.object(
    "config",
    'the configuration such as {"pages":1024,"base":"0x0","vmpls":4} on the first line'
  )
  const pages = config.integer("pages", 512, PAGES_MAX)
  if (pages % 512 !== 0) throw new LineInvalid("config.pages", `got ${pages}`, "a multiple of 512")
  const basePfn = config.largeFrame("base")
  if (basePfn + pages > FRAMES)
    throw new LineInvalid("config.pages", `got ${pages}`, "that the pages from base on end below 2^52")
  const vmpls = config.integer("vmpls", 1, NUM_VMPLS)
  const switches = resolveSwitches(switchesOf(config))
  config.end()
  line.end()
  return { pages, basePfn, vmpls, switches }
}
