import { readFileSync } from "node:fs"
import { PRIMITIVE, PRIMITIVES, type PrimitiveName, type Profile } from "@vmpl-lab/sim"
import * as Result from "effect/Result"
import type { ComparisonRun, OperationName, OperationRecord, StrategyRun } from "../src/ComparisonRun.ts"
import { DEFAULT_SCENARIO } from "../src/DefaultScenario.ts"
import { parseProfile } from "../src/ProfileFile.ts"
import { Scenario } from "../src/Scenario.ts"

/** The text of the built-in profile. */
export const profileText = readFileSync(new URL("../../../profiles/epyc-9654p.json", import.meta.url), "utf8")

export const profile: Profile = Result.getOrThrow(parseProfile("epyc-9654p.json", profileText))

export const scenario = new Scenario(DEFAULT_SCENARIO)

/** What each sample was charged for, as often as given, at the profile's nominal price. */
export const record = (
  operation: OperationName,
  samples: number,
  charges: { readonly [K in PrimitiveName]?: number },
  counters: Partial<OperationRecord["counters"]> = {}
): OperationRecord => {
  const countByPrimitive = PRIMITIVES.map((name) => (charges[name] ?? 0) * samples)
  const nsByPrimitive = countByPrimitive.map((count, index) => count * profile.primitives[PRIMITIVES[index]!].ns)
  const total = nsByPrimitive.reduce((sum, ns) => sum + ns, 0)
  return {
    operation,
    ns: Array.from({ length: samples }, () => total / samples),
    switchesPerOperation: operation === "run-vmpl-round-trip" ? 2 : 1,
    counters: { vmExits: 0, userExits: 0, ioctls: 0, threadHandOffs: 0, kicks: 0, tlbFlushes: 0, ...counters },
    // One more than there are primitives: time spent waiting for a core.
    nsByPrimitive: [...nsByPrimitive, 0],
    countByPrimitive: [...countByPrimitive, 0],
    groups: []
  }
}

export const count = (of: OperationRecord, name: PrimitiveName): number => of.countByPrimitive[PRIMITIVE[name]]!

export const strategyRun = (strategy: string, operations: ReadonlyArray<OperationRecord>): StrategyRun => ({
  strategy,
  variant: null,
  summary: `${strategy} in one line`,
  operations,
  hostObjects: { vms: 1, vcpus: 4, vmcbs: 4, lapics: 4, threads: 4, nestedPageTables: 1 },
  guestVcpus: 4,
  host: { cpuNsPerCall: 5_000, stolenNs: 0, bytesPerVcpu: 4_096, bytes: [] },
  boot: { allUpNs: [], apCreate: [] },
  acceptance: null,
  coconutPanics: null,
  stateDigest: strategy.length.toString(16).padStart(64, "0"),
  guestDigest: "ab".repeat(32),
  virtualNs: 1_000_000,
  launchNs: 2_000_000,
  wallMs: 12.5
})

const exit = { vmexit_sev_snp: 1, kvm_dispatch: 1, vmrun_sev_snp: 1 }

/** A small comparison: the first strategy stays in the kernel, the second hands over to another thread. */
export const run: ComparisonRun = {
  launchDigest: "cd".repeat(48),
  firmware: { name: "OVMF.fd", bytes: 4096, sha256: "ef".repeat(32) },
  runs: [
    strategyRun("multi-vmpl-vcpu", [
      record("ap-create", 2, { ...exit, gpa_translate_vmsa: 1 }, { vmExits: 2 }),
      record(
        "run-vmpl-round-trip",
        4,
        { vmexit_sev_snp: 2, kvm_dispatch: 2, vmrun_sev_snp: 2, vmcb_swap_fields: 2 },
        { vmExits: 8, tlbFlushes: 4 }
      ),
      record("run-vmpl-one-way", 4, { ...exit, vmcb_swap_fields: 1 }, { vmExits: 4 })
    ]),
    strategyRun("vcpu-per-vmpl", [
      record(
        "ap-create",
        2,
        { ...exit, userspace_exit: 1, userspace_entry: 1, create_vcpu: 1, thread_spawn: 1 },
        { vmExits: 2, userExits: 2, ioctls: 2 }
      ),
      record(
        "run-vmpl-round-trip",
        4,
        {
          vmexit_sev_snp: 2,
          vmrun_sev_snp: 2,
          kvm_dispatch: 3,
          userspace_exit: 2,
          userspace_entry: 2,
          thread_handoff_cross_core: 2
        },
        { vmExits: 8, userExits: 8, threadHandOffs: 8 }
      ),
      record("run-vmpl-one-way", 0, {})
    ])
  ]
}
