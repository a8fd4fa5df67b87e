import { createHash, hkdfSync } from "node:crypto"

/** States of a guest of the SEV API. Migration's states are not modelled. @spec SEV-API "guest state machine" */
export const SEV_GUEST_STATE = { UNINIT: 0, LUPDATE: 1, LSECRET: 2, RUNNING: 3 } as const
export type SevGuestState = Exclude<keyof typeof SEV_GUEST_STATE, "UNINIT">

/** Keys that the guest's owner has sent with the session. 16 bytes each. */
export interface TransportKeys {
  /** Encrypts what the owner sends. */
  readonly tek: Uint8Array
  /** Authenticates it, the policy and the measurement. */
  readonly tik: Uint8Array
}

/** What the AMD-SP keeps of one SEV or SEV-ES guest, in its own memory. */
export interface SevGuest {
  readonly handle: number
  readonly policy: number
  state: SevGuestState
  /** The ASID given by ACTIVATE; 0 while the guest is inactive. */
  asid: number
  /** VEK, 32 bytes; guests that share it can read each other's memory. */
  readonly memoryKey: Uint8Array
  /** Goes into the measurement, 16 bytes. */
  readonly mnonce: Uint8Array
  /** Null once the launch is over. */
  transport: TransportKeys | null
  /** SHA-256 over what was launched, to be finished by LAUNCH_MEASURE. */
  readonly launched: ReturnType<typeof createHash>
  /** LD, 32 bytes, from LAUNCH_MEASURE on. */
  digest: Uint8Array | null
  /** HMAC of the measurement, 32 bytes, from LAUNCH_MEASURE on. */
  measurement: Uint8Array | null
  /** VMSAs with an integrity value. */
  vmsas: number
}

const KEY_SIZE = 32
export const TRANSPORT_KEY_SIZE = 16
export const MNONCE_SIZE = 16

/** Without a session the channel has no keys but zeros: whoever measures such a guest convinces nobody. */
const NO_KEYS: TransportKeys = {
  tek: new Uint8Array(TRANSPORT_KEY_SIZE),
  tik: new Uint8Array(TRANSPORT_KEY_SIZE)
}

export interface NewSevGuest {
  readonly handle: number
  readonly policy: number
  readonly transport: TransportKeys | null
  /** The guest whose key is shared, or null. */
  readonly sharedWith: SevGuest | null
}

/**
 * A guest in state LUPDATE. Real firmware draws its key and nonce from a random source; this one derives them from the
 * seed and the number of the guest with HKDF-SHA-256, so that a run can be repeated.
 */
export const makeSevGuest = (seed: number, guestNumber: number, guest: NewSevGuest): SevGuest => {
  const derive = (label: string, size: number): Uint8Array =>
    new Uint8Array(hkdfSync("sha256", `seed ${seed}`, "vmpl-lab psp", `sev guest ${guestNumber} ${label}`, size))
  return {
    handle: guest.handle,
    policy: guest.policy,
    state: "LUPDATE",
    asid: 0,
    memoryKey: guest.sharedWith?.memoryKey ?? derive("memory", KEY_SIZE),
    mnonce: derive("mnonce", MNONCE_SIZE),
    transport: guest.transport ?? NO_KEYS,
    launched: createHash("sha256"),
    digest: null,
    measurement: null,
    vmsas: 0
  }
}
