import { Rmp } from "@vmpl-lab/rmp"
import { GHCB, HV_FEATURE, PAGE_SIZE, VMCB, validByte, validMask } from "@vmpl-lab/sev-es"
import { CostTable, Host, type HostThread, PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import { GuestMode, HostMemory, PhysicalMemory, ProgramMemory } from "@vmpl-lab/vmpl"
import {
  type ApCreateRequest,
  DEFAULT_VM_CONFIG,
  EXIT_REASON,
  GuestMemory,
  HANDLED,
  HostFrames,
  Kvm,
  Meter,
  type Vcpu,
  type Vm,
  type VmConfig,
  type VmplOperations
} from "../../src/index.ts"

/** Every step costs 1 ns, so that charges can be counted. */
const profile: Profile = {
  name: "test",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: 1, low: 1, high: 1, basis: "assumed", source: "none" }])
  ) as Profile["primitives"],
  sums: []
}

/** Guest frames of the test guest: 0x10 to 0x0f + 0x400, hence with 2 MiB aligned ones among them. */
export const SLOT = { gfn: 0x10, pages: 0x400 } as const
export const ASID = 1

/** What the kernel half of a strategy was asked, and what it answers. */
export interface Asked {
  answer: number
  readonly apCreate: Array<ApCreateRequest>
  readonly runVmpl: Array<number>
}

export interface Bench {
  readonly kvm: Kvm
  readonly vm: Vm
  readonly vcpu: Vcpu
  readonly thread: HostThread
  readonly rmp: Rmp
  readonly asked: Asked
}

/** Everything that this KVM can offer a guest. */
export const FULL_CONFIG: VmConfig = {
  ...DEFAULT_VM_CONFIG,
  irqchip: true,
  hvFeatures: Object.values(HV_FEATURE).reduce((all, bit) => all | bit, 0)
}

/** A KVM with one VM object and one vCPU that holds all levels, at VMPL2; the strategy answers as it is told. */
export const bench = (config: VmConfig = DEFAULT_VM_CONFIG): Bench => {
  const rmp = new Rmp({ pages: 4096 })
  const memory = new PhysicalMemory(4096)
  const nestedTables = new Map()
  const host = new HostMemory(memory, rmp)
  const hardware = { memory, rmp, host, programs: new ProgramMemory(), nestedTables, executions: new Map() }
  const machine = new Host(2, new CostTable(profile, 1))
  const kvm = new Kvm(
    machine,
    hardware,
    (thread) => new GuestMode(hardware, thread),
    new HostFrames(0x100, 4096),
    new Meter(() => true)
  )
  const asked: Asked = { answer: HANDLED.RESUME_GUEST, apCreate: [], runVmpl: [] }
  const operations: VmplOperations = {
    apCreate: ({ run }, _thread, request) => {
      run.exitReason = EXIT_REASON.AP_CREATE
      asked.apCreate.push(request)
      return asked.answer
    },
    runVmpl: ({ run }, _thread, vmpl) => {
      run.exitReason = EXIT_REASON.RUN_VMPL
      asked.runVmpl.push(vmpl)
      return asked.answer
    },
    runVmplReason: 0,
    runVmplMsr: "response",
    wakeLevel: () => {}
  }
  const thread = machine.spawn("test", -1)
  const vm = kvm.createVm(thread, new GuestMemory(kvm.frames), operations, config)
  vm.asid = ASID
  vm.setMemoryRegion(thread, SLOT)
  const vcpu = vm.createVcpu(thread, 0, 0, [0, 1, 2, 3])
  if (typeof vcpu === "number") throw new Error("no vCPU")
  vcpu.current = vcpu.slot(2)!
  return { kvm, vm, vcpu, thread, rmp, asked }
}

/** Puts a value into the GHCB MSR as the guest leaves it. */
export const setGhcbMsr = ({ kvm, vcpu }: Bench, lo: number, hi = 0): void => {
  kvm.hardware.host.write64(vcpu.vmcb + VMCB.ghcb_gpa, lo, hi)
}

/** Both halves of the GHCB MSR, lower first. */
export const ghcbMsr = ({ kvm, vcpu }: Bench): readonly [lo: number, hi: number] => [
  kvm.hardware.host.read32(vcpu.vmcb + VMCB.ghcb_gpa),
  kvm.hardware.host.read32(vcpu.vmcb + VMCB.ghcb_gpa + 4)
]

export const GHCB_GFN = 0x20
export const GHCB_GPA = GHCB_GFN * PAGE_SIZE

/** System address of the GHCB's shared frame. */
export const ghcbAddress = ({ vm }: Bench): number => vm.memory.sharedFrame(GHCB_GFN) * PAGE_SIZE

/** A guest that has made its GHCB page shared, has registered it, and points its GHCB MSR at it. */
export const benchWithGhcb = (config: VmConfig = DEFAULT_VM_CONFIG): Bench => {
  const it = bench(config)
  it.vm.setMemoryAttributes(it.thread, GHCB_GFN, false)
  it.vcpu.current.registeredGhcbGfn = GHCB_GFN
  setGhcbMsr(it, GHCB_GPA)
  return it
}

/** Fields that a guest fills, each with its valid bit. */
export type Fields = { readonly [K in keyof typeof GHCB]?: number }

export const fill = (it: Bench, fields: Fields): void => {
  const { host } = it.kvm.hardware
  const ghcb = ghcbAddress(it)
  for (const [name, value] of Object.entries(fields)) {
    const offset = GHCB[name as keyof typeof GHCB]
    host.write64(ghcb + offset, value >>> 0, Math.floor(value / 2 ** 32))
    if (offset < 0x400) setValid(it, offset, true)
  }
}

export const setValid = (it: Bench, offset: number, valid: boolean): void => {
  const { host } = it.kvm.hardware
  const byte = ghcbAddress(it) + validByte(offset)
  const mask = validMask(offset)
  host.write8(byte, valid ? host.read8(byte) | mask : host.read8(byte) & ~mask)
}

/** Names of the fields whose valid bit is set. */
export const validFields = (it: Bench): ReadonlyArray<string> =>
  Object.entries(GHCB)
    .filter(([, offset]) => offset < 0x3f0 && offset % 8 === 0)
    .filter(([, offset]) => (it.kvm.hardware.host.read8(ghcbAddress(it) + validByte(offset)) & validMask(offset)) !== 0)
    .map(([name]) => name)

/** Both information words of the reply. */
export const reply = (it: Bench): ReadonlyArray<number> =>
  [GHCB.sw_exit_info_1, GHCB.sw_exit_info_2].map((offset) => it.kvm.hardware.host.read64(ghcbAddress(it) + offset))
