import { GUEST_VMPL } from "@vmpl-lab/guest"
import { PAGE_SIZE, SECRETS } from "@vmpl-lab/sev-es"
import { readBytes, write } from "@vmpl-lab/vmpl"
import { describe, expect, it } from "vitest"
import { bootMachine } from "../../../test/support/guestRun.ts"

const page = new Uint8Array(PAGE_SIZE)
const outcome = bootMachine(function* (guest) {
  yield readBytes(guest.secretsGpa, page)
  yield write(guest.secretsGpa + 0xfff, 1, 1)
})
const { guest } = outcome
const view = new DataView(page.buffer)
const bytes = (offset: number, size: number): ReadonlyArray<number> => [...page.subarray(offset, offset + size)]
const isZero = (offset: number, size: number): boolean => bytes(offset, size).every((byte) => byte === 0)

describe("the secrets page that the guest at VMPL2 finds", () => {
  it("is readable and writable for it", () => {
    expect([outcome.failure, outcome.finished]).toEqual([null, [0]])
  })

  it("has lost the keys of VMPL0 and 1, and still has those of 2 and 3", () => {
    const keys = [SECRETS.vmpck0, SECRETS.vmpck1, SECRETS.vmpck2, SECRETS.vmpck3]
    expect(keys.map((key) => isZero(key, 32))).toEqual([true, true, false, false])
    expect(bytes(SECRETS.vmpck2, 32)).not.toEqual(bytes(SECRETS.vmpck3, 32))
  })

  it("tells where the SVSM is, where the first calling area is, and the level of the guest", () => {
    const quad = (offset: number): number => view.getUint32(offset + 4, true) * 2 ** 32 + view.getUint32(offset, true)
    expect({
      base: quad(SECRETS.svsm_base),
      size: quad(SECRETS.svsm_size),
      caa: quad(SECRETS.svsm_caa),
      version: view.getUint32(SECRETS.svsm_max_version, true),
      vmpl: view.getUint8(SECRETS.svsm_guest_vmpl)
    }).toEqual({ base: guest.svsm.gpa, size: guest.svsm.size, caa: guest.firstCaGpa, version: 1, vmpl: GUEST_VMPL })
    expect(isZero(SECRETS.svsm_guest_vmpl + 1, 3)).toBe(true)
  })

  it("names a whole number of pages, with the calling area outside", () => {
    expect([guest.svsm.gpa % PAGE_SIZE, guest.svsm.size % PAGE_SIZE, guest.firstCaGpa % PAGE_SIZE]).toEqual([0, 0, 0])
    const inside = guest.firstCaGpa >= guest.svsm.gpa && guest.firstCaGpa < guest.svsm.gpa + guest.svsm.size
    expect(inside).toBe(false)
  })

  it("is otherwise as the firmware made it", () => {
    expect(view.getUint32(SECRETS.version, true)).toBeGreaterThan(0)
    expect(isZero(SECRETS.svsm_base, SECRETS.tsc_factor - SECRETS.svsm_base)).toBe(false)
  })
})
