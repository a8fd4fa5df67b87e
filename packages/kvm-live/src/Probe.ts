import { readdirSync, readFileSync } from "node:fs"
import { cpus, release } from "node:os"
import { type CapabilityName, KVM_CAP } from "./kvm/Abi.ts"
import type { LiveCase } from "./measure/Case.ts"
import { LIVE_CASES, type NotMeasured, obstacle } from "./measure/Measure.ts"
import type { Session } from "./Session.ts"

/** What this machine's KVM is. */
export interface Probe {
  readonly path: string
  readonly apiVersion: number
  /** Module that implements it, such as kvm_amd; `unknown` where the kernel does not tell. */
  readonly backend: string
  readonly cpu: string
  readonly cpus: number
  readonly kernel: string
  /** This machine is itself a guest. */
  readonly nested: boolean
  /** halt_poll_ns of the kvm module; null where it cannot be read. */
  readonly haltPollNs: number | null
  readonly capabilities: { readonly [K in CapabilityName]: number }
  readonly notMeasurable: ReadonlyArray<NotMeasured>
}

const BACKENDS = ["kvm_amd", "kvm_intel", "kvm_pvm"]

const textOf = (path: string): string | null => {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    return null
  }
}

/** Module behind /dev/kvm: the one of those that are loaded. */
export const backendModule = (modules: ReadonlyArray<string>): string =>
  BACKENDS.find((name) => modules.includes(name)) ??
  modules.find((name) => name.startsWith("kvm_") && name !== "kvm_stat") ??
  "unknown"

const loadedModules = (): ReadonlyArray<string> => {
  try {
    return readdirSync("/sys/module")
  } catch {
    return []
  }
}

/** The figures carry over to SEV-SNP hardware as they are only from KVM on AMD's processors. */
export const isHardwareBackend = (backend: string): boolean => backend === "kvm_amd"

/** What must stand in every table of another backend; null for kvm_amd. */
export const backendCaution = (backend: string): string | null => {
  if (isHardwareBackend(backend)) return null
  if (backend === "kvm_intel") return "kvm_intel backend: another processor's transitions, ratios only"
  return `${backend} backend: software KVM backend, ratios only`
}

/** Looks at what there is. */
export const probe = (session: Session, cases: ReadonlyArray<LiveCase> = LIVE_CASES): Probe => {
  const { system } = session
  const poll = textOf("/sys/module/kvm/parameters/halt_poll_ns")
  const capabilities = Object.fromEntries(
    Object.entries(KVM_CAP).map(([name, number]) => [name, system.capability(number)])
  ) as Probe["capabilities"]
  return {
    path: session.path,
    apiVersion: system.apiVersion,
    backend: backendModule(loadedModules()),
    cpu: cpus()[0]?.model ?? "unknown",
    cpus: session.cpus.length,
    kernel: release(),
    nested: / hypervisor /.test(textOf("/proc/cpuinfo") ?? ""),
    haltPollNs: poll === null || !/^\d+$/.test(poll) ? null : Number(poll),
    capabilities,
    notMeasurable: [
      ...cases.flatMap((one) => {
        const why = obstacle(session, one)
        return why === null ? [] : [{ id: one.id, what: one.what, why }]
      }),
      ...NEVER_MEASURABLE
    ]
  }
}

/** What no machine without SEV-SNP can tell. */
const NEVER_MEASURABLE: ReadonlyArray<NotMeasured> = [
  {
    id: "sev-snp",
    what: "VMGEXIT and VMRUN of a guest with encrypted state, #VC, RMPUPDATE, PVALIDATE, RMPADJUST, the AMD-SP's commands",
    why: "guests here are ordinary ones: these need SEV-SNP hardware"
  }
]
