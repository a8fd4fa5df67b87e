import {
  DEFAULT_STRATEGY_OPTIONS,
  type GuestRequestPort,
  HALT_POLL,
  HAND_OFF,
  type HandOffMeans,
  HostFrames,
  Kvm,
  type MemorySlot,
  Meter,
  type Pin,
  type Placement,
  type StrategyOptions,
  type VmConfig,
  Vmm,
  type VmmOperations
} from "@vmpl-lab/hypervisor"
import {
  AsidTable,
  type PlatformIdentityOptions,
  type PspMemory,
  SevFirmware,
  SnpFirmware,
  STATUS,
  XSAVE_CPUID
} from "@vmpl-lab/psp"
import { Rmp, type Switches } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { CostTable, type CStates, Host, type Profile, type TraceSink } from "@vmpl-lab/sim"
import {
  GuestMode,
  type Hardware,
  HOST_ASID,
  HostMemory,
  PhysicalMemory,
  ProgramMemory,
  sealVmsa
} from "@vmpl-lab/vmpl"

/** System memory of the host: 256 MiB, all covered by the RMP, and more for many vCPUs. */
const FRAMES = 0x1_0000
/** Frames that the host keeps for itself at the bottom of memory. */
const FIRST_FREE_FRAME = 0x100
/** Frames per guest vCPU beyond the image: guest and SVSM pages, VMCBs, tables. */
const FRAMES_PER_VCPU = 32

/** The host's cores and how threads share them; what is left out is as the scenario's documentation says. */
export interface HostSetup {
  readonly cores: number
  readonly placement: Placement
  readonly pins?: ReadonlyArray<Pin> | undefined
  readonly timeSliceNs?: number | undefined
  readonly cStates?: CStates | undefined
  readonly haltPollNs?: number | undefined
  readonly handOff?: HandOffMeans | undefined
}

/** What one host with one guest is made of, whatever runs in the guest. */
export interface PlatformOptions {
  readonly operations: VmmOperations
  readonly host: HostSetup
  readonly vcpus: number
  readonly memorySlots: ReadonlyArray<MemorySlot>
  readonly profile: Profile
  readonly seed: number
  /** Which boot of the seed this is: its costs vary in their own way. */
  readonly boot?: number | undefined
  readonly rmpSwitches?: Partial<Switches> | undefined
  readonly strategyOptions?: Partial<StrategyOptions> | undefined
  readonly vmConfig?: VmConfig | undefined
  /** What the platform says of itself in reports; the firmware's defaults where left out. */
  readonly identity?: PlatformIdentityOptions | undefined
  /** Seed of the keys of chip and firmware, another for each machine; 1 if left out. */
  readonly chip?: number | undefined
  /** Whether a vCPU's switches count. */
  readonly counting: (apicId: number) => boolean
  /** Sees what happens on the host's threads. */
  readonly trace?: TraceSink | undefined
}

/** The hardware, KVM, the VMM and the AMD-SP's firmware, before anything is launched. */
export class Platform {
  readonly host: Host
  readonly hardware: Hardware
  readonly kvm: Kvm
  readonly vmm: Vmm
  readonly meter: Meter
  readonly snp: SnpFirmware
  readonly sev: SevFirmware

  constructor(options: PlatformOptions) {
    const { operations, vcpus, memorySlots, profile, seed } = options
    const { cores, placement, pins, timeSliceNs, cStates, haltPollNs, handOff } = options.host
    const costs = new CostTable(profile, seed, options.boot ?? 0)
    this.host = new Host(cores, costs, options.trace ?? null, { timeSliceNs, cStates })
    // What lies above 4 GiB is the guest's to accept: as many frames, and room to align its 2 MiB pages.
    const highRam = memorySlots.reduce((sum, slot) => sum + (slot.large === undefined ? 0 : slot.pages + 512), 0)
    const pages = FRAMES + vcpus * FRAMES_PER_VCPU + highRam
    const rmp = new Rmp({ pages: Math.ceil(pages / 512) * 512, switches: options.rmpSwitches ?? {} })
    const memory = new PhysicalMemory(rmp.coveredPages)
    this.hardware = {
      memory,
      rmp,
      host: new HostMemory(memory, rmp),
      programs: new ProgramMemory(),
      nestedTables: new Map(),
      executions: new Map(),
      vmsaIntegrity: new Map()
    }
    this.meter = new Meter(options.counting)
    const frames = new HostFrames(FIRST_FREE_FRAME, rmp.coveredPages)
    this.kvm = new Kvm(this.host, this.hardware, (thread) => new GuestMode(this.hardware, thread), frames, this.meter)
    this.kvm.options = { ...DEFAULT_STRATEGY_OPTIONS, ...options.strategyOptions }
    this.kvm.haltPoll = { ...HALT_POLL, maximumNs: haltPollNs ?? HALT_POLL.maximumNs }
    this.vmm = new Vmm(this.kvm, operations, memorySlots, vcpus, placement, options.vmConfig)
    this.vmm.pins = pins ?? []
    this.vmm.handOff = HAND_OFF[handOff ?? "futex"]
    const asids = new AsidTable({ cores })
    const identity = options.identity ?? {}
    this.snp = new SnpFirmware(rmp, pspMemory(memory), {
      seed: options.chip ?? 1,
      asids,
      identity,
      cpuidPolicy: XSAVE_CPUID
    })
    const vmsaSealed = (pfn: number, asid: number): void => sealVmsa(this.hardware, pfn, asid)
    this.sev = new SevFirmware(pspMemory(memory), { seed: 1, asids, es: true, vmsaSealed })
    this.kvm.asidFlush = {
      wbinvdOnAllCpus: () => {
        for (let core = 0; core < cores; core++) this.snp.wbinvdDone(core)
      },
      dfFlush: () => this.snp.dfFlush()
    }
  }
}

/** How KVM brings guest messages of the guest with a context to the firmware. */
export const guestRequestsOf =
  (snp: SnpFirmware, certificates?: Uint8Array) =>
  (gctx: number): GuestRequestPort => ({
    ...(certificates === undefined ? {} : { certificates }),
    guestRequest: (requestPfn, responsePfn) => STATUS[snp.guestRequest({ gctx, requestPfn, responsePfn })],
    reclaim: (pfn) => STATUS[snp.pageCommand({ command: "PAGE_RECLAIM", pfn })]
  })

const pageBytes = (view: DataView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE)

/** The memory controller as the AMD-SP drives it. */
const pspMemory = (memory: PhysicalMemory): PspMemory => ({
  readPlain: (pfn) => pageBytes(memory.read(pfn, HOST_ASID)),
  writePlain: (pfn, contents) => memory.replace(pfn, HOST_ASID, contents),
  readEncrypted: (pfn, asid) => pageBytes(memory.read(pfn, asid)),
  writeEncrypted: (pfn, asid, contents) => memory.replace(pfn, asid, contents),
  createKey: (asid, key) => memory.setKey(asid, key),
  destroyKey: (asid) => memory.dropKey(asid)
})
