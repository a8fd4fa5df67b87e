import { SWITCH_IDS, type Switches } from "@vmpl-lab/rmp"
import fc from "fast-check"
import {
  type AccessKind,
  type Action,
  type GuestAt,
  MOVE_COMMANDS,
  type NestedMapping,
  PAGE_COMMANDS,
  type TraceConfig
} from "../src/index.ts"

/** Which frames and guests random actions name. */
export interface Space {
  readonly frames: fc.Arbitrary<number>
  readonly asids: number
  readonly vmpls: number
}

const size = fc.constantFrom(0 as const, 1 as const)
const mask = fc.integer({ min: 0, max: 0x1f })
const target = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 255 }))
const kind = fc.constantFrom<AccessKind>(0, 1, 2, 3, 4)

/** Every action that a trace can hold. */
export const anyAction = ({ frames, asids, vmpls }: Space): fc.Arbitrary<Action> => {
  const asid = fc.integer({ min: 1, max: asids })
  const mapping: fc.Arbitrary<NestedMapping> = fc
    .record({ pfn: frames, size })
    .map((one) => (one.size === 0 ? one : { ...one, pfn: one.pfn - (one.pfn % 512) }))
  const at: { [K in keyof GuestAt]: fc.Arbitrary<GuestAt[K]> } = {
    asid,
    vmpl: fc.integer({ min: 0, max: vmpls - 1 }),
    gfn: frames,
    npt: fc.option(mapping, { freq: 8 })
  }
  const op = <const Name extends string>(name: Name) => ({ op: fc.constant(name) })
  const command = <const Names extends ReadonlyArray<string>>(names: Names) => ({
    ...op("firmware"),
    command: fc.constantFrom(...names) as fc.Arbitrary<Names[number]>,
    pfn: frames
  })
  return fc.oneof(
    fc.record({
      ...op("rmpupdate"),
      pfn: frames,
      assigned: fc.boolean(),
      size,
      immutable: fc.boolean(),
      gfn: frames,
      asid: fc.integer({ min: 0, max: asids })
    }),
    fc.record({ op: fc.constantFrom("psmash", "rmpread", "vmexit", "entry"), pfn: frames }),
    fc.record({ ...op("pvalidate"), ...at, size, validate: fc.boolean() }),
    fc.record({ ...op("rmpadjust"), ...at, size, targetVmpl: target, mask, vmsa: fc.boolean() }),
    fc.record({ ...op("rmpquery"), ...at, targetVmpl: target }),
    fc.record({ ...op("access"), by: fc.constantFrom("host", "non-snp"), kind, pfn: frames, size }),
    fc.record({
      ...op("access"),
      by: fc.constant("guest" as const),
      kind,
      ...at,
      cpl: fc.integer({ min: 0, max: 3 }),
      cbit: fc.boolean()
    }),
    fc.record({ ...op("vmrun"), asid, gfn: frames, pfn: frames, snp: fc.boolean() }),
    fc.record(command(PAGE_COMMANDS)),
    fc.record({
      ...command(["LAUNCH_UPDATE"]),
      pageType: fc.integer({ min: 1, max: 6 }),
      asid,
      size,
      masks: fc.tuple(mask, mask, mask)
    }),
    fc.record({ ...command(["MD_INIT"]), contextPfn: frames }),
    fc.record({ ...command(MOVE_COMMANDS), targetPfn: frames, metadataPfn: frames }),
    fc.record(op("digest"))
  )
}

/** Few pages and guests, so that actions meet; sometimes a page that is not covered. */
export const SMALL: Space = {
  frames: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(0, 1, 2, 511, 512, 513) },
    { weight: 1, arbitrary: fc.constantFrom(1023, 1024, 5000) }
  ),
  asids: 2,
  vmpls: 4
}

/** Everything that the format can express. */
export const WIDE: Space = { frames: fc.integer({ min: 0, max: 2 ** 40 - 1 }), asids: 1022, vmpls: 4 }

export const anySwitches: fc.Arbitrary<Switches> = fc.record(
  Object.fromEntries(SWITCH_IDS.map((id) => [id, fc.constantFrom("default", "alternative")]))
) as fc.Arbitrary<unknown> as fc.Arbitrary<Switches>

export const anyConfig: fc.Arbitrary<TraceConfig> = fc.record({
  pages: fc.integer({ min: 1, max: 2 ** 19 }).map((regions) => regions * 512),
  basePfn: fc.integer({ min: 0, max: 2 ** 31 - 2 ** 19 }).map((regions) => regions * 512),
  vmpls: fc.integer({ min: 1, max: 4 }),
  switches: anySwitches
})
