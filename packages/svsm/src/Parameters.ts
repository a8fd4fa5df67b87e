import { getU64, PAGE_SIZE, setU64 } from "@vmpl-lab/sev-es"
import { SVSM_BEHAVIOURS, type SvsmBehaviour } from "./Behaviour.ts"
import { svsmRangeSize } from "./Image.ts"

/** A range of guest physical memory, in bytes. */
export interface GuestRange {
  readonly gpa: number
  readonly size: number
}

/**
 * What the loader tells the SVSM, in a page of its image that is launched unmeasured (as an IGVM parameter area is):
 * nothing in it is trusted further than that.
 */
export interface SvsmParameters {
  readonly vcpus: number
  /** Guest RAM from 0 up to here; the SVSM's own range follows. */
  readonly ramSize: number
  /** More guest RAM, above 4 GiB; of size 0 where there is none. */
  readonly highRam: GuestRange
  /** Level of the start-up vCPU's VMSA, 1 or 2: the guest creates those of less privileged levels itself. */
  readonly guestVmpl: number
  /** Entries of a PVALIDATE list that one call serves before it answers INCOMPLETE; 0: all of them. */
  readonly entriesPerCall: number
  readonly svsm: GuestRange
  readonly firmware: GuestRange
  /** Linear address at which the guest's boot processor starts. */
  readonly resetVector: number
  readonly secretsGpa: number
  readonly cpuidGpa: number
  /** First calling area, outside of the SVSM's range. */
  readonly callingAreaGpa: number
  /** True when the calling area's page is part of the launched image. */
  readonly callingAreaLaunched: boolean
  /** Memory that the launch has validated for the firmware: metadata sections of type SEC_MEM. */
  readonly preValidated: ReadonlyArray<GuestRange>
  /** Whose answers it gives where the specification and COCONUT-SVSM differ; the specification's when left out. */
  readonly behaviour?: SvsmBehaviour
  /** What the SVSM does about interrupts; left out, it takes none, and the guest's level has the SVSM's features. */
  readonly interrupts?: SvsmInterrupts
}

/** The SVSM's own interrupts, and how those of the guest's level get there. */
export interface SvsmInterrupts {
  /** SEV_FEATURES of the guest's level. */
  readonly guestFeatures: number
  /** It has handlers; otherwise it never lets an interrupt in. */
  readonly takes: boolean
  /** Its own timer: vector 0 for none. */
  readonly timerVector: number
  readonly timerPeriodNs: number
  /** One IPI to the next vCPU at its own level after so many calls served: vector 0 for none. */
  readonly ipiVector: number
  readonly callsPerIpi: number
}

const MAGIC = 0x4d56_5356
/** Where in the page the number of vCPUs is, a u32: where an IGVM file has the VMM write it. */
export const PARAMETERS_VP_COUNT = 4
const HEADER = 128
/** At the end of the page: zeros where the SVSM takes no interrupts. */
const INTERRUPTS = PAGE_SIZE - 64
/** Behind them, the last word: the behaviour, by its place in SVSM_BEHAVIOURS. */
const BEHAVIOUR = PAGE_SIZE - 8
const MAX_RANGES = Math.floor((INTERRUPTS - HEADER) / 16)

/** The page's bytes. */
export const encodeParameters = (parameters: SvsmParameters): Uint8Array => {
  const bytes = new Uint8Array(PAGE_SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, MAGIC, true)
  view.setUint32(PARAMETERS_VP_COUNT, parameters.vcpus, true)
  const words = [
    parameters.ramSize,
    parameters.svsm.gpa,
    parameters.svsm.size,
    parameters.firmware.gpa,
    parameters.firmware.size,
    parameters.resetVector,
    parameters.secretsGpa,
    parameters.cpuidGpa,
    parameters.callingAreaGpa,
    parameters.callingAreaLaunched ? 1 : 0,
    parameters.preValidated.length,
    parameters.highRam.gpa,
    parameters.highRam.size,
    parameters.guestVmpl,
    parameters.entriesPerCall
  ]
  words.forEach((word, i) => {
    setU64(view, 8 + 8 * i, word)
  })
  parameters.preValidated.slice(0, MAX_RANGES).forEach(({ gpa, size }, i) => {
    setU64(view, HEADER + 16 * i, gpa)
    setU64(view, HEADER + 16 * i + 8, size)
  })
  const { interrupts } = parameters
  if (interrupts !== undefined) {
    const { guestFeatures, takes, timerVector, timerPeriodNs, ipiVector, callsPerIpi } = interrupts
    const fields = [1, guestFeatures, takes ? 1 : 0, timerVector, timerPeriodNs, ipiVector, callsPerIpi]
    fields.forEach((value, i) => {
      setU64(view, INTERRUPTS + 8 * i, value)
    })
  }
  setU64(view, BEHAVIOUR, SVSM_BEHAVIOURS.indexOf(parameters.behaviour ?? "specification"))
  return bytes
}

/** What the SVSM reads back; null when the page holds no parameters, or those of more vCPUs than its range is for. */
export const decodeParameters = (bytes: Uint8Array): SvsmParameters | null => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, PAGE_SIZE)
  const word = (i: number): number => getU64(view, 8 + 8 * i)
  const ranges = word(10)
  if (view.getUint32(0, true) !== MAGIC || ranges > MAX_RANGES) return null
  const behaviour = SVSM_BEHAVIOURS[getU64(view, BEHAVIOUR)]
  if (word(13) < 1 || word(13) > 3 || behaviour === undefined) return null
  const vcpus = view.getUint32(PARAMETERS_VP_COUNT, true)
  const takesInterrupts = view.getUint32(INTERRUPTS, true) === 1
  if (vcpus === 0 || svsmRangeSize(vcpus, takesInterrupts) > word(2)) return null
  return {
    vcpus,
    behaviour,
    ramSize: word(0),
    highRam: { gpa: word(11), size: word(12) },
    guestVmpl: word(13),
    entriesPerCall: word(14),
    svsm: { gpa: word(1), size: word(2) },
    firmware: { gpa: word(3), size: word(4) },
    resetVector: word(5),
    secretsGpa: word(6),
    cpuidGpa: word(7),
    callingAreaGpa: word(8),
    callingAreaLaunched: word(9) === 1,
    preValidated: Array.from({ length: ranges }, (_, i) => ({
      gpa: getU64(view, HEADER + 16 * i),
      size: getU64(view, HEADER + 16 * i + 8)
    })),
    ...(takesInterrupts ? { interrupts: decodeInterrupts(view) } : {})
  }
}

const decodeInterrupts = (view: DataView): SvsmInterrupts => {
  const field = (i: number): number => getU64(view, INTERRUPTS + 8 * i)
  return {
    guestFeatures: field(1),
    takes: field(2) === 1,
    timerVector: field(3),
    timerPeriodNs: field(4),
    ipiVector: field(5),
    callsPerIpi: field(6)
  }
}
