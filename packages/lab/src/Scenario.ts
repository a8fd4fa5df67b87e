import { HAND_OFF_MEANS, PLACEMENTS } from "@vmpl-lab/hypervisor"
import { SWITCH_IDS, type SwitchId } from "@vmpl-lab/rmp"
import { SVSM_BEHAVIOURS } from "@vmpl-lab/svsm"
import * as Schema from "effect/Schema"
import { WORKLOADS, workloadKeys } from "./workloads/Workload.ts"

const share = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 })))

const PRINTABLE = "a text that is not empty and has no control characters"
const printable = Schema.String.annotate({ expected: PRINTABLE }).check(
  Schema.makeFilter((value) => /^\P{C}+$/u.test(value), { expected: PRINTABLE })
)

const choice = Schema.optionalKey(Schema.Literals(["default", "alternative"]))

/** Answers to what the public documents leave open about the RMP, by the ids of `SWITCH_MEANING`. */
const rmpSwitches = Schema.Struct(
  Object.fromEntries(SWITCH_IDS.map((id) => [id, choice])) as Record<SwitchId, typeof choice>
)

/**
 * One comparison's workload: how many guest vCPUs, how many SVSM calls each makes and in which mix, how often the
 * guest is booted (the calls are made in the first boot, the others only add AP-create samples), and the host.
 */
export class Scenario extends Schema.Class<Scenario>("@vmpl-lab/lab/Scenario")({
  name: printable,
  /** What the guest does; `svsm-calls` when left out. Each has further keys, under an object of its name. */
  workload: Schema.optionalKey(Schema.Literals(WORKLOADS)),
  vcpus: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 512 }))),
  calls: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))),
  boots: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1_000 }))),
  /** Relative weights of the SVSM core calls that the guest makes. At least one is positive. */
  mix: Schema.Struct({ QUERY_PROTOCOL: share, PVALIDATE: share, REMAP_CA: share }),
  /** Which way the guest rings: the GHCB page event 0x80000018 or the MSR request 0x016. */
  ring: Schema.Literals(["page", "msr"]),
  /** Those left out are at their default. */
  rmpSwitches: Schema.optionalKey(rmpSwitches),
  /** Whose answers the SVSM gives where specification and COCONUT-SVSM differ; `specification` when left out. */
  svsm: Schema.optionalKey(Schema.Struct({ behaviour: Schema.Literals(SVSM_BEHAVIOURS) })),
  ...workloadKeys,
  host: Schema.Struct({
    cores: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 4_096 }))),
    /**
     * `spread`: each vCPU thread is pinned to a core of its own while there are enough; `same-core`: all threads of one
     * guest vCPU share one core; `two-cores`: VMPL0 has one and the other levels share another; `unpinned`: the
     * scheduler decides.
     */
    placement: Schema.Literals(PLACEMENTS),
    /** Threads whose core is fixed one by one, against the placement: all of a guest vCPU, or that of one VMPL. */
    pins: Schema.optionalKey(
      Schema.Array(
        Schema.Struct({
          vcpu: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 511 }))),
          vmpl: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 3 })))),
          core: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 4_095 })))
        })
      )
    ),
    /** How long a thread keeps its core, in virtual ns, while others wait for it; Linux' base slice when left out. */
    timeSliceNs: Schema.optionalKey(
      Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 100_000, maximum: 1_000_000_000 })))
    ),
    /** Ceiling of KVM's halt polling in virtual ns, 0 to turn it off; KVM's default, 200 us, when left out. */
    haltPollNs: Schema.optionalKey(
      Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000_000 })))
    ),
    /** Whether idle cores enter a deep state, which a wake then pays for leaving; `shallow` when left out. */
    cStates: Schema.optionalKey(Schema.Literals(["shallow", "deep"])),
    /** By what the VMM's threads let each other run; `futex` when left out. */
    handOff: Schema.optionalKey(Schema.Literals(HAND_OFF_MEANS))
  })
}) {}
