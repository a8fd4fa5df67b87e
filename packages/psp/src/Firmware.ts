import { PAGE_2M, PAGES_PER_2M, type PageSize } from "@vmpl-lab/rmp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { AsidTable } from "./AsidTable.ts"
import { ANY_CPUID, type CpuidPolicy, policedCpuid } from "./CpuidMessage.ts"
import { type GuestContext, makeGuestContext } from "./GuestContext.ts"
import { GUEST_REQUEST_PAGES, type GuestRequest, runGuestRequest } from "./GuestRequest.ts"
import { bindIdBlock } from "./IdBlock.ts"
import { PAGE_TYPE, type VmplPerms } from "./LaunchDigest.ts"
import { cpuidPageAccepted, launchedVmsa, secretsPage } from "./LaunchPages.ts"
import { firstRefusal, isOwnFrame, LAUNCH_UPDATE_OWNER, LAUNCH_UPDATE_PAGE, rulingEntry } from "./PageChecks.ts"
import type { PageCommand } from "./PageCommand.ts"
import { PageCommands } from "./PageCommands.ts"
import type { ContentsOwner } from "./PageContents.ts"
import {
  COMMIT_SIZE,
  commit,
  configure,
  GUEST_STATUS_SIZE,
  guestStatus,
  isInPage,
  loadVlek,
  outputRefusal,
  PLATFORM_STATUS_SIZE,
  type PlatformConfig,
  platformStatus,
  type StatusAddress,
  type VlekLoad,
  writeStatus
} from "./PlatformCommands.ts"
import { FMS_GENOA, PlatformIdentity, type PlatformIdentityOptions } from "./PlatformIdentity.ts"
import { POLICY, policyAccepted } from "./Policy.ts"
import type { PspMemory, PspRmp } from "./Ports.ts"
import type { Status } from "./Status.ts"
import { tscScale } from "./TscInfoMessage.ts"

/** How the platform was initialised; every default is what firmware 1.55 on Genoa says of itself. */
export interface SnpFirmwareOptions {
  /** Root of all keys of this platform. */
  readonly seed: number
  /** Family, model and stepping as CPUID Fn1 EAX, where `identity` does not say them. Default: Genoa, 0xA10F10. */
  readonly fms?: number
  /** False: SNP_INIT has not been done, and every command answers INVALID_PLATFORM_STATE. */
  readonly initialised?: boolean
  readonly smtEnabled?: boolean
  readonly sockets?: number
  readonly abiMajor?: number
  readonly abiMinor?: number
  /** Policy bits beyond those of firmware 1.55 that this firmware can promise; see `knownPolicyBits`. */
  readonly policyFeatures?: bigint
  /** Shared with `SevFirmware` where both APIs are used. Default: one that nobody has used. */
  readonly asids?: AsidTable
  /** What reports say of the platform. Its firmware's version defaults to `abiMajor` and `abiMinor`. */
  readonly identity?: PlatformIdentityOptions
  /** Which CPUID values CPUID pages and MSG_CPUID_REQ may have. Default: all. */
  readonly cpuidPolicy?: CpuidPolicy
}

/** What stands in the reserved bits of a command's buffer; anything but 0 is refused before all else. */
interface Reserved {
  readonly reserved?: number
}

/** LAUNCH_START. */
export interface LaunchStart extends Reserved {
  /** Frame of the guest context. */
  readonly gctx: number
  readonly policy: bigint
  /** Frame of the migration agent's context; null or absent: MA_EN is 0. */
  readonly migrationAgent?: number | null
  /** IMI_EN: only IMI pages are launched, and LAUNCH_FINISH is not for such a guest. */
  readonly imiEn?: boolean
  readonly desiredTscKhz?: number
  /** 16 bytes. */
  readonly gosvw?: Uint8Array
}

/** LAUNCH_UPDATE of the page at frame `pfn`. The gPA is not given: the AMD-SP takes it from the RMP entry. */
export interface LaunchUpdate extends Reserved {
  readonly gctx: number
  readonly pfn: number
  /** 0 = 4 KiB, 1 = 2 MiB. */
  readonly pageSize: PageSize
  /** One of PAGE_TYPE. */
  readonly pageType: number
  readonly vmplPerms?: VmplPerms
  /** IMI_PAGE: the page enters IMD too. */
  readonly imiPage?: boolean
}

/** LAUNCH_FINISH. */
export interface LaunchFinish extends Reserved {
  readonly gctx: number
  /** 32 bytes. */
  readonly hostData?: Uint8Array
  readonly vcekDis?: boolean
  /** ID_BLOCK_EN with the block, 0x60 bytes, and the page with keys and signatures, 4096 bytes. */
  readonly idBlock?: { readonly block: Uint8Array; readonly auth: Uint8Array }
  readonly authKeyEn?: boolean
}

const NO_PERMS: VmplPerms = [0, 0, 0]
const BUILD = 25
const isReservedZero = ({ reserved = 0 }: Reserved): boolean => reserved === 0
const isByte = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 0xff
/**
 * The AMD-SP's commands that create, launch and end an SNP guest. Each command makes its checks in the firmware's
 * order and returns the name of its status; a refused command changes nothing, unless it says so.
 *
 * Limitation: addresses are frames, so their low bits, which are reserved, are not there to be wrong.
 * @spec SNP-ABI "SNP guest life cycle commands"
 */
export class SnpFirmware {
  readonly #rmp: PspRmp
  readonly #memory: PspMemory
  readonly #options: Required<SnpFirmwareOptions>
  /** What this platform says of itself in reports, and the keys that sign them. */
  readonly identity: PlatformIdentity
  readonly #pages: PageCommands
  readonly #contexts = new Map<number, GuestContext>()
  #guestsCreated = 0

  constructor(rmp: PspRmp, memory: PspMemory, options: SnpFirmwareOptions) {
    this.#rmp = rmp
    this.#memory = memory
    this.#pages = new PageCommands(rmp, { memory, ownerOf: (gctx) => this.#ownerOf(gctx) })
    this.#options = {
      fms: FMS_GENOA,
      initialised: true,
      smtEnabled: true,
      sockets: 1,
      abiMajor: 1,
      abiMinor: 55,
      policyFeatures: 0n,
      asids: new AsidTable(),
      identity: {},
      cpuidPolicy: ANY_CPUID,
      ...options
    }
    const { seed, abiMajor, abiMinor, identity, fms } = this.#options
    this.identity = new PlatformIdentity(seed, {
      fms,
      current: { major: abiMajor, minor: abiMinor, build: BUILD },
      ...identity
    })
  }

  /** The context in a page, for tests and for guest messages; undefined when the page holds none. */
  guest(gctx: number): Readonly<GuestContext> | undefined {
    return this.#contexts.get(gctx)
  }

  /** Firmware page of 4 KiB -> Context, with a guest in state INIT. @spec SNP-ABI GCTX_CREATE */
  gctxCreate(gctx: number): Status {
    if (!this.#options.initialised) return "INVALID_PLATFORM_STATE"
    const status = this.#pages.execute({ command: "GCTX_CREATE", pfn: gctx })
    if (status === "SUCCESS") {
      const launchTcb = this.identity.tcbBytes(this.identity.committedTcb)
      const launch = { launchTcb, launchMitigations: this.identity.mitigationVector }
      this.#contexts.set(gctx, makeGuestContext(this.#options.seed, this.#guestsCreated++, launch))
    }
    return status
  }

  /** Binds policy and keys; the guest goes from INIT to LAUNCH. @spec SNP-ABI LAUNCH_START */
  launchStart(command: LaunchStart): Status {
    if (!isReservedZero(command)) return "INVALID_PARAM"
    const guest = this.#contextOf(command.gctx)
    if (typeof guest === "string") return guest
    if (guest.state !== "INIT") return "INVALID_GUEST_STATE"
    const agentFrame = command.migrationAgent ?? null
    const agent = agentFrame === null ? null : this.#contextOf(agentFrame)
    if (typeof agent === "string") return agent
    if (!policyAccepted(command.policy, this.#options, agent)) return "POLICY_FAILURE"
    guest.policy = command.policy
    guest.migrationAgent = agentFrame
    guest.imiEn = command.imiEn ?? false
    if (agent !== null) guest.reportIdMa = agent.reportId.slice()
    guest.desiredTscKhz = command.desiredTscKhz ?? 0
    if (command.gosvw !== undefined) guest.gosvw = command.gosvw.slice(0, guest.gosvw.length)
    guest.state = "LAUNCH"
    return "SUCCESS"
  }

  /** Gives the guest an ASID and that ASID the guest's memory key. @spec SNP-ABI ACTIVATE */
  activate(gctx: number, asid: number): Status {
    const guest = this.#contextOf(gctx)
    if (typeof guest === "string") return guest
    if (guest.state === "INIT") return "INVALID_GUEST_STATE"
    // Such a page would be the new guest's before it was launched. ASID 0 is the host's own.
    if (asid > 0 && this.#rmp.hasPagesOf(asid)) return "INVALID_CONFIG"
    if ((guest.policy & POLICY.SINGLE_SOCKET) !== 0n && this.#options.sockets > 1) return "POLICY_FAILURE"
    const { asids } = this.#options
    const refusal = asids.refusal({ asid, isActive: guest.asid !== 0, encryptedState: true })
    if (refusal !== null) return refusal
    guest.asid = asid
    asids.allocate(asid, guest.state === "RUNNING")
    this.#memory.createKey(asid, guest.memoryKey)
    return "SUCCESS"
  }

  /** A core has executed WBINVD. */
  wbinvdDone(core: number): void {
    this.#options.asids.wbinvdDone(core)
  }

  /** Makes the ASIDs of guests that are gone usable again. @spec SNP-ABI DF_FLUSH */
  dfFlush(): Status {
    return this.#options.asids.dfFlush()
  }

  /**
   * Measures one page, encrypts it in place and hands it to the guest: Pre-Guest -> Guest-Valid.
   * @spec SNP-ABI LAUNCH_UPDATE
   */
  launchUpdate(command: LaunchUpdate): Status {
    const { gctx, pfn, pageSize, pageType, vmplPerms = NO_PERMS, imiPage = false } = command
    if (!isReservedZero(command) || !vmplPerms.every(isByte)) return "INVALID_PARAM"
    const guest = this.#contextOf(gctx)
    if (typeof guest === "string") return guest
    const page = firstRefusal(LAUNCH_UPDATE_PAGE, this.#pages.view, {
      command: "LAUNCH_UPDATE",
      pfn,
      pageType,
      size: pageSize
    })
    if (page.status !== "SUCCESS") return page.status
    if (guest.state !== "LAUNCH") return "INVALID_GUEST_STATE"
    if (guest.asid === 0) return "INACTIVE"
    const owner = firstRefusal(LAUNCH_UPDATE_OWNER, this.#pages.view, { pfn, asid: guest.asid })
    if (owner.status !== "SUCCESS") return owner.status
    if (guest.imiEn && !imiPage) return "INVALID_PARAM"
    const entry = rulingEntry(this.#rmp, pfn)
    if (pageType === PAGE_TYPE.CPUID && !this.#cpuidPageAccepted(pfn)) return "INVALID_PARAM"

    const frames = pageSize === PAGE_2M ? PAGES_PER_2M : 1
    for (let i = 0; i < frames; i++) {
      const contents = this.#launchContents(guest, pageType, pfn + i)
      const gpa = (entry.gfn + i) * PAGE_SIZE
      guest.digest.update(pageType, gpa, contents, vmplPerms, imiPage)
      if (imiPage) guest.imd.update(pageType, gpa, contents, vmplPerms, imiPage)
      const isVmsa = pageType === PAGE_TYPE.VMSA
      const launched = isVmsa ? launchedVmsa(contents, guest.nextNonce(), tscScale(guest.desiredTscKhz)) : contents
      this.#memory.writeEncrypted(pfn + i, guest.asid, launched)
    }
    this.#pages.launch({ pfn, pageType, masks: vmplPerms })
    return "SUCCESS"
  }

  /**
   * The commands that move pages of guests: those on metadata and guest pages need the guest to be launching or running,
   * and active. `command` names the frames; the guest is that of the metadata page, or of MD_INIT.
   * @spec SNP-ABI PAGE_MOVE, PAGE_RECLAIM, PAGE_UNSMASH, PAGE_SET_STATE, MD_INIT, SWAP_OUT, SWAP_IN
   */
  pageCommand(
    command: Exclude<PageCommand, { readonly command: "GCTX_CREATE" | "DECOMMISSION" | "LAUNCH_UPDATE" }>
  ): Status {
    if (!this.#options.initialised) return "INVALID_PLATFORM_STATE"
    const { status } = this.#pages.decide(command)
    if (status !== "SUCCESS") return status
    const guest = this.#guestOf(command)
    if (guest !== null) {
      if (guest === undefined) return "INVALID_GUEST"
      if (guest.state === "INIT") return "INVALID_GUEST_STATE"
      // @spec-silent where among the checks the firmware looks at this bit
      if (command.command !== "MD_INIT" && (guest.policy & POLICY.PAGE_SWAP_DISABLE) !== 0n) return "POLICY_FAILURE"
      if (command.command !== "MD_INIT" && guest.asid === 0) return "INACTIVE"
      if (!this.#ownsPages(command, guest)) return "INVALID_PAGE_OWNER"
    }
    return this.#pages.execute(command)
  }

  /** The guest that a command is about; null where it is about none. */
  #guestOf(command: PageCommand): GuestContext | undefined | null {
    switch (command.command) {
      case "MD_INIT":
        return this.#contexts.get(command.contextPfn)
      case "SWAP_OUT":
      case "SWAP_IN":
        return this.#contexts.get(rulingEntry(this.#rmp, command.metadataPfn).gfn)
      case "PAGE_MOVE":
        return this.#mover(command.pfn)
      default:
        return null
    }
  }

  /** PAGE_MOVE: the guest whose context a metadata page names, or whose ASID a guest page has. */
  #mover(pfn: number): GuestContext | undefined {
    const { asid, gfn } = rulingEntry(this.#rmp, pfn)
    if (this.#rmp.stateOf(pfn) === "Metadata") return this.#contexts.get(gfn)
    for (const guest of this.#contexts.values()) if (guest.asid === asid) return guest
    return undefined
  }

  /** SWAP_OUT's source and SWAP_IN's destination must be pages of the guest, unless they are metadata pages. */
  #ownsPages(command: PageCommand, guest: GuestContext): boolean {
    if (command.command !== "SWAP_OUT" && command.command !== "SWAP_IN") return true
    const pfn = command.command === "SWAP_OUT" ? command.pfn : command.targetPfn
    const { asid } = rulingEntry(this.#rmp, pfn)
    return asid === 0 || asid === guest.asid
  }

  #ownerOf(gctx: number): ContentsOwner | undefined {
    const guest = this.#contexts.get(gctx)
    return guest === undefined || guest.asid === 0 ? undefined : { asid: guest.asid, offlineKey: guest.oek }
  }

  /** Ends the launch: LD is final, host data is bound, the guest may run. @spec SNP-ABI LAUNCH_FINISH */
  launchFinish(command: LaunchFinish): Status {
    if (!isReservedZero(command)) return "INVALID_PARAM"
    const guest = this.#contextOf(command.gctx)
    if (typeof guest === "string") return guest
    if (guest.state !== "LAUNCH" || guest.imiEn) return "INVALID_GUEST_STATE"
    if (guest.asid === 0) return "INACTIVE"
    const hasAuthorKey = command.authKeyEn ?? false
    if (command.idBlock !== undefined) {
      const { digest, policy } = guest
      const binding = bindIdBlock({ ...command.idBlock, hasAuthorKey, digest: digest.value, policy })
      if (typeof binding === "string") return binding
      guest.idBinding = binding
    }
    guest.authorKeyEn = hasAuthorKey
    if (command.hostData !== undefined) guest.hostData = command.hostData.slice(0, guest.hostData.length)
    guest.vcekDis = command.vcekDis ?? false
    this.#options.asids.use(guest.asid)
    guest.state = "RUNNING"
    return "SUCCESS"
  }

  /**
   * Answers a guest's encrypted message, which the hypervisor carries without being able to read or forge it.
   * @spec SNP-ABI SNP_GUEST_REQUEST
   */
  guestRequest(command: GuestRequest): Status {
    if (!this.#options.initialised) return "INVALID_PLATFORM_STATE"
    const pages = firstRefusal(GUEST_REQUEST_PAGES, this.#pages.view, command)
    if (pages.status !== "SUCCESS") return pages.status
    const guest = this.#contextOf(command.gctx)
    if (typeof guest === "string") return guest
    const { smtEnabled, cpuidPolicy } = this.#options
    return runGuestRequest({
      memory: this.#memory,
      command,
      guest,
      platform: this.identity,
      sceneOf: (vmpck, version) => ({
        guest,
        gctx: command.gctx,
        vmpck,
        version,
        platform: this.identity,
        smtEnabled,
        cpuidPolicy,
        contextAt: (address) => this.#contextAt(address)
      })
    })
  }

  /** The guest whose context is at an address that a message names, or the status that refuses it. */
  #contextAt(address: bigint): GuestContext | Status {
    const pfn = Number(address >> 12n)
    return isOwnFrame(this.#rmp, pfn) ? "INVALID_PARAM" : this.#contextOf(pfn)
  }

  /**
   * Ends the guest from any state: its ASID loses the key and, where the guest could run, needs a DF_FLUSH; its Context
   * page is Firmware again. @spec SNP-ABI DECOMMISSION
   */
  decommission(gctx: number): Status {
    const guest = this.#contextOf(gctx)
    if (typeof guest === "string") return guest
    if (guest.asid !== 0) {
      this.#memory.destroyKey(guest.asid)
      this.#options.asids.release(guest.asid)
    }
    this.#contexts.delete(gctx)
    return this.#pages.execute({ command: "DECOMMISSION", pfn: gctx })
  }

  /** Tells policy, ASID and state of a guest. @spec SNP-ABI SNP_GUEST_STATUS */
  guestStatus(gctx: number, address: StatusAddress): Status {
    if (!isInPage(address, GUEST_STATUS_SIZE)) return "INVALID_PARAM"
    const guest = this.#contextOf(gctx)
    if (typeof guest === "string") return guest
    const refusal = outputRefusal(this.#rmp, address)
    if (refusal === null) writeStatus(this.#memory, address, guestStatus(guest))
    return refusal ?? "SUCCESS"
  }

  /** Tells state, versions, masks and the number of guests, before SNP_INIT too. @spec SNP-ABI SNP_PLATFORM_STATUS */
  platformStatus(address: StatusAddress): Status {
    if (!isInPage(address, PLATFORM_STATUS_SIZE)) return "INVALID_PARAM"
    const { initialised } = this.#options
    const refusal = initialised ? outputRefusal(this.#rmp, address) : null
    if (refusal !== null) return refusal
    const guests = [...this.#contexts.values()].filter(({ state }) => state !== "INIT").length
    writeStatus(this.#memory, address, platformStatus(this.identity, initialised, guests))
    return "SUCCESS"
  }

  /** Which TCB reports name, and what they do not show. @spec SNP-ABI SNP_CONFIG */
  config(command: PlatformConfig): Status {
    return configure(this.identity, command)
  }

  /** The TCB that runs becomes the one below which nothing goes. @spec SNP-ABI SNP_COMMIT */
  commit(length = COMMIT_SIZE): Status {
    return commit(this.identity, length)
  }

  /** The operator's key, wrapped for this chip and its reported TCB. @spec SNP-ABI SNP_VLEK_LOAD */
  vlekLoad(command: VlekLoad): Status {
    return loadVlek(this.identity, command)
  }

  /** The guest of a context page, or the status that refuses the command. */
  #contextOf(gctx: number): GuestContext | Status {
    if (!this.#options.initialised) return "INVALID_PLATFORM_STATE"
    if (this.#rmp.stateOf(gctx) !== "Context") return "INVALID_GUEST"
    const guest = this.#contexts.get(gctx)
    // Only gctxCreate makes Context pages, so a stranger means that the RMP and the firmware were not built together.
    if (guest === undefined) throw new Error(`SnpFirmware: no guest context in frame 0x${gctx.toString(16)}`)
    return guest
  }

  /** Whether a CPUID page may be launched; one with values that may not is handed back with those that may. */
  #cpuidPageAccepted(pfn: number): boolean {
    const page = this.#memory.readPlain(pfn)
    if (!cpuidPageAccepted(page)) return false
    const policed = policedCpuid(this.#options.cpuidPolicy, page)
    if (!policed.areAccepted) this.#memory.writePlain(pfn, policed.table)
    return policed.areAccepted
  }

  /** The 4096 bytes that the guest will find in a page of this type. */
  #launchContents(guest: GuestContext, pageType: number, pfn: number): Uint8Array {
    if (pageType === PAGE_TYPE.ZERO) return new Uint8Array(PAGE_SIZE)
    if (pageType === PAGE_TYPE.SECRETS) return secretsPage(guest, this.identity.fms)
    return this.#memory.readPlain(pfn)
  }
}
