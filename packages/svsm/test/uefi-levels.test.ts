import {
  apVmsa,
  CORE_CALL,
  EFI_STATUS,
  getVariableMessage,
  MM_HEADER,
  PROTOCOL,
  SVSM_RESULT,
  setVariableMessage,
  UEFI_MM_CALL,
  VARIABLE_HEADER,
  variableStatus
} from "@vmpl-lab/guest"
import { EXIT, PAGE_SIZE, SEV_FEATURES, VMSA } from "@vmpl-lab/sev-es"
import { SHIPPED_PROTOCOLS, SVSM_BEHAVIOURS, uefiMm } from "@vmpl-lab/svsm"
import { expect, it } from "vitest"
import { OTHER_CA, PAGE, ScriptedHost } from "../../../test/support/scriptedHost.ts"
import { BUFFER, put, request, take } from "../../../test/support/uefiHost.ts"

const VARIABLE = {
  name: "Boot0001",
  guid: "11111111-2222-3333-4444-555555555555",
  attributes: 7,
  data: new Uint8Array(0x1800).fill(0x5a)
}
const ALL = 0xf

/** VMPL2 has set a variable, and has given its own vCPU a VMSA at VMPL3. */
const withVmpl3 = (): ScriptedHost => {
  const host = new ScriptedHost("specification", [...SHIPPED_PROTOCOLS, uefiMm()]).boot()
  expect(variableStatus(request(host, setVariableMessage(VARIABLE)).message)).toBe(EFI_STATUS.SUCCESS)
  const view = host.poke(PAGE)
  const bytes = apVmsa({ vmpl: 3, sevFeatures: SEV_FEATURES.SNPActive, codeBase: 0x8000, rip: 0, argument: 0 })
  new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes)
  const registers = { rcx: PAGE, rdx: OTHER_CA, r8: 0 }
  expect(host.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, registers).result).toBe(SVSM_RESULT.SUCCESS)
  return host
}

/** A request of VMPL3's, whose pages have these rights at its level. @returns the result and the message after it */
const asVmpl3 = (rights: ReadonlyArray<number>) => {
  const host = withVmpl3()
  const message = getVariableMessage(VARIABLE, VARIABLE.data.length)
  put(host, BUFFER, message)
  rights.forEach((right, page) => {
    host.setEntry(BUFFER + page * PAGE_SIZE, { perms: [ALL, ALL, ALL, right] })
  })
  const vmsa = host.poke(PAGE)
  vmsa.setUint32(VMSA.guest_exit_code, EXIT.VMGEXIT, true)
  vmsa.setUint32(VMSA.rax, UEFI_MM_CALL.REQUEST, true)
  vmsa.setUint32(VMSA.rax + 4, PROTOCOL.UEFI_MM, true)
  vmsa.setUint32(VMSA.rcx, BUFFER, true)
  vmsa.setUint32(VMSA.rdx, rights.length * PAGE_SIZE, true)
  host.poke(OTHER_CA).setUint8(0, 1)
  host.answer()
  expect(host.run().argument).toBe(3)
  const result = host.peek(PAGE).getUint32(VMSA.rax, true)
  const after = take(host, BUFFER, message.length)
  return { result, isUnchanged: Buffer.compare(after, message) === 0, after }
}

it("serves a less privileged level in memory that it may write itself", () => {
  const { result, after } = asVmpl3([ALL, ALL])
  expect(result).toBe(SVSM_RESULT.SUCCESS)
  expect(variableStatus(after)).toBe(EFI_STATUS.SUCCESS)
  expect(after.subarray(-VARIABLE.data.length)).toEqual(VARIABLE.data)
  expect(after.length).toBeGreaterThan(PAGE_SIZE + MM_HEADER.SIZE + VARIABLE_HEADER.SIZE)
})

it.each([
  ["none of it", [0, 0]],
  ["only the first page", [ALL, 0]],
  ["only the second page", [0, ALL]],
  ["all of it for reading", [1, 1]]
])("does not write for a less privileged level into what it may write %s", (_, rights) => {
  expect(asVmpl3(rights)).toMatchObject({ result: SVSM_RESULT.INVALID_ADDRESS, isUnchanged: true })
})

it("looks at each page of a message under either behaviour, and at the rest of the buffer as it says", () => {
  for (const behaviour of SVSM_BEHAVIOURS) {
    for (const [denied, expected] of [
      [0, SVSM_RESULT.INVALID_ADDRESS],
      [1, SVSM_RESULT.INVALID_ADDRESS],
      [2, behaviour === "coconut" ? SVSM_RESULT.SUCCESS : SVSM_RESULT.INVALID_ADDRESS]
    ] as const) {
      const host = new ScriptedHost(behaviour, [...SHIPPED_PROTOCOLS, uefiMm()]).boot()
      // The caller is not the guest's most privileged level.
      Object.assign(host.state.parameters, { guestVmpl: 1 })
      const message = setVariableMessage(VARIABLE)
      put(host, BUFFER, message)
      host.setEntry(BUFFER + denied * PAGE_SIZE, { perms: [ALL, ALL, 1, 0] })
      const rdx = 3 * PAGE_SIZE
      const { result } = host.call(PROTOCOL.UEFI_MM, UEFI_MM_CALL.REQUEST, { rcx: BUFFER, rdx })
      expect([behaviour, denied, result]).toEqual([behaviour, denied, expected])
    }
  }
})
