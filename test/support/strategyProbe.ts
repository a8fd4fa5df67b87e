import { AP_TRAMPOLINE_GPA, BLOCK, CORE_CALL, type Ghcb, PROTOCOL, runVmplMsr } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { PERMISSION } from "@vmpl-lab/rmp"
import { AP_CREATION, GHCB, REPLY, SEV_FEATURES } from "@vmpl-lab/sev-es"
import type { Profile } from "@vmpl-lab/sim"
import { hlt, type Program, pause, readShared, rmpadjust } from "@vmpl-lab/vmpl"
import { type Guest, profile, runGuestProgram, setUp, setUpAp, startAp } from "./guestRun.ts"

/** What becomes of a guest that does something which strategies answer differently. */
export interface StrategyProbe {
  /** Run VMPL of a level that was never created, by the GHCB page. */
  readonly missingByPage: string
  /** The same by the MSR protocol. */
  readonly missingByMsr: string
  /** Run VMPL of a level whose VMSA was destroyed before it ran. */
  readonly destroyed: string
  /** A second VMSA at a level with other SEV_FEATURES that are no injection mode. */
  readonly otherFeatures: string
  /** AP creation that is refused, for a level that runs elsewhere: what the level has then. */
  readonly refusedCreation: string
  /** CREATE of VMPL3 while VMPL2 runs, and after VMPL2 has halted. */
  readonly lessPrivileged: string
}

/** The host's answer to the latest event. */
function* answerOf(ghcb: Ghcb): Program<string> {
  const info1 = (yield readShared(ghcb.gpa + GHCB.sw_exit_info_1, 8)).lo
  const info2 = (yield readShared(ghcb.gpa + GHCB.sw_exit_info_2, 8)).lo
  return info1 === REPLY.NO_ACTION ? "served" : `info1=${info1}, info2=${info2}`
}

const UNTIL_NS = 90_000_000

/** Runs a boot processor's program: what it says, or what ended it. */
const told = (strategy: Strategy, boot: (guest: Guest) => Program<string>): string => {
  let said = "the guest vCPU sleeps"
  const { failure } = runGuestProgram({
    strategy,
    untilNs: UNTIL_NS,
    *boot(guest) {
      said = yield* boot(guest)
    }
  })
  return failure === null ? said : `the VM ends: ${failure.replace(/:.*/, "")}`
}

const missingByPage = (strategy: Strategy): string =>
  told(strategy, function* (guest) {
    const { ghcb } = yield* setUp(guest)
    yield* ghcb.runVmpl(3)
    return yield* answerOf(ghcb)
  })

const missingByMsr = (strategy: Strategy): string =>
  told(strategy, function* (guest) {
    yield* setUp(guest)
    const error = yield* runVmplMsr(3)
    return error === 0 ? "served" : `error ${error}`
  })

const destroyed = (strategy: Strategy): string =>
  told(strategy, function* (guest) {
    const { ghcb } = yield* setUp(guest)
    yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, 3, 0, guest.page(BLOCK.VMSA), SEV_FEATURES.SNPActive)
    yield* ghcb.apCreation(AP_CREATION.DESTROY, 3, 0, 0, -1)
    yield* ghcb.runVmpl(3)
    return yield* answerOf(ghcb)
  })

const otherFeatures = (strategy: Strategy): string =>
  told(strategy, function* (guest) {
    const { ghcb } = yield* setUp(guest)
    const page = guest.page(BLOCK.VMSA)
    yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, 3, 0, page, SEV_FEATURES.SNPActive)
    const other = SEV_FEATURES.SNPActive | SEV_FEATURES.DebugVirtualization
    yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, 3, 0, page, other)
    return yield* answerOf(ghcb)
  })

const refusedCreation = (strategy: Strategy): string => {
  let refused = false
  let result = "nobody serves the vCPU's calls"
  runGuestProgram({
    strategy,
    profile: calm,
    vcpus: 2,
    untilNs: UNTIL_NS,
    *boot(guest) {
      const client = yield* setUp(guest)
      const vmsa = guest.page(BLOCK.VMSA, 1)
      refused = !(yield* client.ghcb.apCreation(AP_CREATION.CREATE, 0, 1, vmsa, SEV_FEATURES.SNPActive))
      yield* startAp(guest, client, 1)
    },
    *ap(guest, apicId) {
      const { svsm } = yield* setUpAp(guest, apicId)
      const answer = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.QUERY_PROTOCOL, { rcx: 1 })
      if (answer === 0) result = "its VMSA"
    }
  })
  return refused ? result : "the request is served"
}

const PAUSES = 50_000

/** The profile without what happens now and then: a grace period would outlast VMPL2's stretch before it halts. */
const calm: Profile = {
  ...profile,
  primitives: Object.fromEntries(
    Object.entries(profile.primitives).map(([name, cost]) => [
      name,
      cost.probability === undefined ? cost : { ...cost, probability: { permille: 0, low: 0, high: 0 } }
    ])
  ) as Profile["primitives"]
}

const lessPrivileged = (strategy: Strategy): string => {
  let when = "not at all"
  let halted = false
  let started = 0
  runGuestProgram({
    strategy,
    profile: calm,
    vcpus: 2,
    untilNs: UNTIL_NS,
    *boot(guest) {
      const client = yield* setUp(guest)
      yield* startAp(guest, client, 1)
      yield rmpadjust(AP_TRAMPOLINE_GPA, 3, PERMISSION.ALL, false)
      const other: Guest = { ...guest, page: (offset) => guest.page(offset, 0) }
      yield* startAp(other, client, 1, 3)
    },
    *ap(guest, apicId) {
      if (started++ > 0) {
        when = halted ? "once VMPL2 has halted" : "at once"
        return
      }
      yield* setUpAp(guest, apicId)
      for (let i = 0; i < PAUSES; i++) yield pause()
      halted = true
      yield hlt()
    }
  })
  return when
}

/** Runs the questions. Each is a guest of its own. */
export const probeStrategy = (strategy: Strategy): StrategyProbe => {
  return {
    missingByPage: missingByPage(strategy),
    missingByMsr: missingByMsr(strategy),
    destroyed: destroyed(strategy),
    otherFeatures: otherFeatures(strategy),
    refusedCreation: refusedCreation(strategy),
    lessPrivileged: lessPrivileged(strategy)
  }
}
