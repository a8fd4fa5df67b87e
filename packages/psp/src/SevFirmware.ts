import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { AsidTable } from "./AsidTable.ts"
import type { PspMemory, PspRmp } from "./Ports.ts"
import {
  isSameMac,
  openSecret,
  PACKET_COMPRESSED,
  policyMac,
  type SevPacketHeader,
  secretMac,
  sevMeasurement
} from "./SevChannel.ts"
import {
  MNONCE_SIZE,
  makeSevGuest,
  SEV_GUEST_STATE,
  type SevGuest,
  TRANSPORT_KEY_SIZE,
  type TransportKeys
} from "./SevGuest.ts"
import { framesOf, readEncryptedRange, readPlainRange, writeEncryptedRange, writePlainRange } from "./SevMemory.ts"
import { SEV_POLICY, type SevApi, sevPolicyAccepted } from "./SevPolicy.ts"
import type { Status } from "./Status.ts"

/** How the platform was initialised; every default is what firmware 1.55 on Genoa says of itself. */
export interface SevFirmwareOptions extends Partial<SevApi> {
  /** Root of all keys of this platform. */
  readonly seed: number
  /** False: INIT has not been done. */
  readonly initialised?: boolean
  /** CONFIG.ES of INIT: SEV-ES guests may be launched. */
  readonly es?: boolean
  readonly build?: number
  readonly guestsMax?: number
  /** VMSAs that have room for an integrity value: half of the 1 MiB given to INIT, 8 bytes each. */
  readonly vmsasMax?: number
  /** Given where SNP is initialised too: what the firmware writes must then be Firmware pages. */
  readonly rmp?: Pick<PspRmp, "stateOf"> | null
  /** Shared with `SnpFirmware` where both APIs are used. */
  readonly asids?: AsidTable
  /** LAUNCH_UPDATE_VMSA has encrypted a VMSA: the processor takes its integrity value. */
  readonly vmsaSealed?: (pfn: number, asid: number) => void
}

/** What the guest's owner sends. The Diffie-Hellman exchange that wraps the keys is not modelled. */
export interface SevSession extends TransportKeys {
  /** 32 bytes; see `policyMac`. */
  readonly policyMac: Uint8Array
}

export interface SevLaunchStart {
  readonly policy: number
  /** A guest whose memory key is shared; 0 or absent: a new key. */
  readonly handle?: number
  /** Absent: DH_CERT_PADDR is 0, and nobody checks the policy. */
  readonly session?: SevSession | null
}

/** A range of system memory, in bytes. */
export interface SevRange {
  readonly handle: number
  readonly paddr: number
  readonly length: number
}

export interface SevLaunchSecret {
  readonly handle: number
  readonly header: SevPacketHeader
  /** Where the guest finds the secret. */
  readonly paddr: number
  readonly length: number
  /** The secret as it was sent. */
  readonly data: Uint8Array
}

export interface SevDebug {
  readonly handle: number
  readonly source: number
  readonly destination: number
  readonly length: number
}

export interface SevGuestStatus {
  readonly status: Status
  /** One of SEV_GUEST_STATE; UNINIT for a handle that no guest has. */
  readonly state: number
  readonly asid: number
  readonly policy: number
}

/** What LAUNCH_MEASURE writes: the measurement, then MNONCE. */
const MEASUREMENT_SIZE = 32 + MNONCE_SIZE
const SECRET_SIZE_MAX = 0x5000
const PACKET_IV_SIZE = 16
const PACKET_MAC_SIZE = 32
/** 16 bytes of a VMSA in which the firmware notes where the integrity value is; here the processor knows that itself. */
const VMSA_INTEGRITY = { offset: 0x380, size: 16 } as const

const isAligned = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && value % 16 === 0

/**
 * The AMD-SP's commands that create, launch and end a SEV or SEV-ES guest. Each command makes its checks in the
 * firmware's order and returns the name of its status; a refused command changes nothing, unless it says so.
 *
 * Limitations: reserved bits of command buffers do not exist; certificates and the exchange of keys, ACTIVATE_EX, COPY,
 * ATTESTATION, migration (SEND and RECEIVE) and swapping are not modelled.
 * @spec SEV-API "guest management commands"
 */
export class SevFirmware {
  readonly #memory: PspMemory
  readonly #options: Required<SevFirmwareOptions>
  readonly #guests = new Map<number, SevGuest>()
  #guestsCreated = 0

  constructor(memory: PspMemory, options: SevFirmwareOptions) {
    this.#memory = memory
    this.#options = {
      initialised: true,
      es: true,
      apiMajor: 1,
      apiMinor: 55,
      build: 25,
      guestsMax: 1024,
      vmsasMax: 0x1_0000,
      rmp: null,
      asids: new AsidTable(),
      vmsaSealed: () => {},
      ...options
    }
  }

  /** State of the platform: it works as long as it has guests. @spec SEV-API "platform state machine" */
  get state(): "UNINIT" | "INIT" | "WORKING" {
    if (!this.#options.initialised) return "UNINIT"
    return this.#guests.size > 0 ? "WORKING" : "INIT"
  }

  /** The guest with this handle, for tests and explanations. */
  guest(handle: number): Readonly<SevGuest> | undefined {
    return this.#guests.get(handle)
  }

  /** A new guest in LUPDATE with keys and policy. @spec SEV-API LAUNCH_START */
  launchStart({ policy, handle = 0, session = null }: SevLaunchStart): { status: Status; handle: number } {
    const refused = (status: Status) => ({ status, handle: 0 })
    const { initialised, guestsMax, es, seed } = this.#options
    if (!initialised) return refused("INVALID_PLATFORM_STATE")
    if (session !== null) {
      const { tek, tik } = session
      if (tek.length !== TRANSPORT_KEY_SIZE || tik.length !== TRANSPORT_KEY_SIZE) return refused("INVALID_LEN")
      if (!isSameMac(session.policyMac, policyMac(tik, policy))) return refused("BAD_MEASUREMENT")
      if (!sevPolicyAccepted(policy, this.#options)) return refused("POLICY_FAILURE")
    }
    const sharedWith = handle === 0 ? null : this.#guests.get(handle)
    if (sharedWith === undefined) return refused("INVALID_GUEST")
    if (sharedWith !== null && (policy !== sharedWith.policy || (policy & SEV_POLICY.NOKS) !== 0))
      return refused("POLICY_FAILURE")
    let free = 1
    while (this.#guests.has(free)) free++
    if (free > guestsMax) return refused("RESOURCE_LIMIT")
    if ((policy & SEV_POLICY.ES) !== 0 && !es) return refused("UNSUPPORTED")
    const guest = makeSevGuest(seed, this.#guestsCreated++, { handle: free, policy, transport: session, sharedWith })
    this.#guests.set(free, guest)
    return { status: "SUCCESS", handle: free }
  }

  /** Gives the guest an ASID and that ASID the guest's memory key. @spec SEV-API ACTIVATE */
  activate(handle: number, asid: number): Status {
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    const { asids } = this.#options
    const refusal = asids.refusal({ asid, isActive: guest.asid !== 0, encryptedState: isEs(guest) })
    if (refusal !== null) return refusal
    guest.asid = asid
    asids.allocate(asid, guest.state === "RUNNING")
    this.#memory.createKey(asid, guest.memoryKey)
    return "SUCCESS"
  }

  /** Takes the ASID away; it needs a DF_FLUSH if the guest could run with it. @spec SEV-API DEACTIVATE */
  deactivate(handle: number): Status {
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    if (guest.asid === 0) return "INACTIVE"
    this.#memory.destroyKey(guest.asid)
    this.#options.asids.release(guest.asid)
    guest.asid = 0
    return "SUCCESS"
  }

  /** A core has executed WBINVD. */
  wbinvdDone(core: number): void {
    this.#options.asids.wbinvdDone(core)
  }

  /** Makes the ASIDs of guests that are gone usable again. @spec SEV-API DF_FLUSH */
  dfFlush(): Status {
    return this.#options.asids.dfFlush()
  }

  /** Measures a range and encrypts it in place. @spec SEV-API LAUNCH_UPDATE_DATA */
  launchUpdateData(range: SevRange): Status {
    const guest = this.#launching(range.handle)
    if (typeof guest === "string") return guest
    const refusal = this.#rangeRefusal(guest, range)
    if (refusal !== null) return refusal
    const bytes = readPlainRange(this.#memory, range.paddr, range.length)
    guest.launched.update(bytes)
    writeEncryptedRange(this.#memory, range.paddr, bytes, guest.asid)
    return "SUCCESS"
  }

  /**
   * Measures a VMSA, encrypts it in place and gives it an integrity value. Where no room is left for that, the VMSA has
   * been measured already, so that the guest's owner will see that it went wrong.
   * @spec SEV-API LAUNCH_UPDATE_VMSA
   */
  launchUpdateVmsa(range: SevRange): Status {
    if (range.length !== PAGE_SIZE) return "INVALID_LEN"
    const guest = this.#launching(range.handle)
    if (typeof guest === "string") return guest
    if (!isEs(guest)) return "UNSUPPORTED"
    const refusal = this.#rangeRefusal(guest, range)
    if (refusal !== null) return refusal
    const vmsa = readPlainRange(this.#memory, range.paddr, range.length)
    guest.launched.update(vmsa)
    let vmsas = 0
    for (const other of this.#guests.values()) vmsas += other.vmsas
    if (vmsas >= this.#options.vmsasMax) return "RESOURCE_LIMIT"
    guest.vmsas++
    vmsa.fill(0, VMSA_INTEGRITY.offset, VMSA_INTEGRITY.offset + VMSA_INTEGRITY.size)
    writeEncryptedRange(this.#memory, range.paddr, vmsa, guest.asid)
    // A VMSA that does not fill a page is none that VMRUN could name.
    if (range.paddr % PAGE_SIZE === 0) this.#options.vmsaSealed(range.paddr / PAGE_SIZE, guest.asid)
    return "SUCCESS"
  }

  /**
   * Ends the updates: LD is final and the guest's owner may check it. `length` is that of the host's buffer.
   * @returns the length needed, and the measurement with MNONCE, 48 bytes
   * @spec SEV-API LAUNCH_MEASURE
   */
  launchMeasure(
    handle: number,
    length = MEASUREMENT_SIZE
  ): { status: Status; length: number; measurement: Uint8Array | null } {
    const refused = (status: Status) => ({ status, length: MEASUREMENT_SIZE, measurement: null })
    const guest = this.#launching(handle)
    if (typeof guest === "string") return refused(guest)
    if (length < MEASUREMENT_SIZE) return refused("INVALID_LEN")
    const digest = new Uint8Array(guest.launched.digest())
    const { apiMajor, apiMinor, build } = this.#options
    const { policy, mnonce } = guest
    guest.digest = digest
    guest.measurement = sevMeasurement(guest.transport!.tik, { apiMajor, apiMinor, build, policy, digest, mnonce })
    guest.state = "LSECRET"
    const measurement = new Uint8Array(MEASUREMENT_SIZE)
    measurement.set(guest.measurement)
    measurement.set(mnonce, guest.measurement.length)
    return { status: "SUCCESS", length: MEASUREMENT_SIZE, measurement }
  }

  /** Puts a secret of the guest's owner into the guest's memory. @spec SEV-API LAUNCH_SECRET */
  launchSecret({ handle, header, paddr, length, data }: SevLaunchSecret): Status {
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    if (!isAligned(paddr)) return "INVALID_ADDRESS"
    if (header.iv.length !== PACKET_IV_SIZE || header.mac.length !== PACKET_MAC_SIZE) return "INVALID_LEN"
    if (!isAligned(length) || length === 0 || length > SECRET_SIZE_MAX || length !== data.length) return "INVALID_LEN"
    if (guest.state !== "LSECRET") return "INVALID_GUEST_STATE"
    if (guest.asid === 0) return "INACTIVE"
    if (!this.#isWritable(paddr, length)) return "INVALID_PAGE_STATE"
    const { tek, tik } = guest.transport!
    if (!isSameMac(header.mac, secretMac(tik, header, data, guest.measurement!))) return "BAD_MEASUREMENT"
    if ((header.flags & PACKET_COMPRESSED) !== 0) return "UNSUPPORTED"
    writeEncryptedRange(this.#memory, paddr, openSecret(tek, header.iv, data), guest.asid)
    return "SUCCESS"
  }

  /** Ends the launch; an active guest may run. @spec SEV-API LAUNCH_FINISH */
  launchFinish(handle: number): Status {
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    if (guest.state !== "LSECRET") return "INVALID_GUEST_STATE"
    if (guest.asid !== 0) this.#options.asids.use(guest.asid)
    guest.transport = null
    guest.state = "RUNNING"
    return "SUCCESS"
  }

  /** @spec SEV-API GUEST_STATUS */
  guestStatus(handle: number): SevGuestStatus {
    const none = { state: SEV_GUEST_STATE.UNINIT, asid: 0, policy: 0 }
    if (!this.#options.initialised) return { status: "INVALID_PLATFORM_STATE", ...none }
    const guest = this.#guests.get(handle)
    if (guest === undefined) return { status: "SUCCESS", ...none }
    const { state, asid, policy } = guest
    return { status: "SUCCESS", state: SEV_GUEST_STATE[state], asid, policy }
  }

  /** Decrypts memory of the guest for the host. @spec SEV-API DBG_DECRYPT */
  dbgDecrypt(command: SevDebug): Status {
    const guest = this.#debugged(command)
    if (typeof guest === "string") return guest
    const { source, destination, length } = command
    const bytes = readEncryptedRange(this.#memory, source, length, guest.asid)
    writePlainRange(this.#memory, destination, bytes)
    return "SUCCESS"
  }

  /** Encrypts memory of the host for the guest. @spec SEV-API DBG_ENCRYPT */
  dbgEncrypt(command: SevDebug): Status {
    const guest = this.#debugged(command)
    if (typeof guest === "string") return guest
    const { source, destination, length } = command
    writeEncryptedRange(this.#memory, destination, readPlainRange(this.#memory, source, length), guest.asid)
    return "SUCCESS"
  }

  /** Forgets an inactive guest, in whatever state it is. @spec SEV-API DECOMMISSION */
  decommission(handle: number): Status {
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    if (guest.asid !== 0) return "ACTIVE"
    this.#guests.delete(handle)
    return "SUCCESS"
  }

  /** The guest of a handle, or the status that refuses the command. */
  #guestOf(handle: number): SevGuest | Status {
    if (this.state !== "WORKING") return "INVALID_PLATFORM_STATE"
    return this.#guests.get(handle) ?? "INVALID_GUEST"
  }

  #launching(handle: number): SevGuest | Status {
    const guest = this.#guestOf(handle)
    return typeof guest === "string" || guest.state === "LUPDATE" ? guest : "INVALID_GUEST_STATE"
  }

  #rangeRefusal(guest: SevGuest, { paddr, length }: SevRange): Status | null {
    if (guest.asid === 0) return "INACTIVE"
    if (!isAligned(paddr)) return "INVALID_ADDRESS"
    if (!isAligned(length) || length === 0) return "INVALID_LEN"
    return this.#isWritable(paddr, length) ? null : "INVALID_PAGE_STATE"
  }

  #debugged({ handle, source, destination, length }: SevDebug): SevGuest | Status {
    if (this.state !== "WORKING") return "INVALID_PLATFORM_STATE"
    if (!isAligned(source) || !isAligned(destination)) return "INVALID_ADDRESS"
    if (!isAligned(length)) return "INVALID_LEN"
    const guest = this.#guestOf(handle)
    if (typeof guest === "string") return guest
    if ((guest.policy & SEV_POLICY.NODBG) !== 0) return "POLICY_FAILURE"
    if (!this.#isWritable(destination, length)) return "INVALID_PAGE_STATE"
    return guest.asid === 0 ? "INACTIVE" : guest
  }

  /** Once the RMP is in use, the firmware writes to its own pages and those that the RMP does not cover. */
  #isWritable(paddr: number, length: number): boolean {
    const { rmp } = this.#options
    // A command without a length looks at one page all the same.
    return framesOf(paddr, Math.max(1, length)).every((pfn) => {
      const state = rmp === null ? "Default" : rmp.stateOf(pfn)
      return state === "Firmware" || state === "Default"
    })
  }
}

const isEs = ({ policy }: SevGuest): boolean => (policy & SEV_POLICY.ES) !== 0
