import { PROTOCOL, TPM_SEND_COMMAND, VTPM_CALL } from "@vmpl-lab/guest"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { SHIPPED_PROTOCOLS, type SvsmBehaviour, type TpmAnswer, type TpmPort, vtpm } from "@vmpl-lab/svsm"
import { OP, type Program, pause } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  CA,
  FIRMWARE,
  GUEST_VMSA,
  PAGE,
  ScriptedHost,
  SVSM_DATA,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import { resultName, svsmAnswers } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const COMMAND = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8]
const RESPONSE = Uint8Array.of(0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0)

/** A host whose SVSM has a TPM that answers at once. */
const withTpm = (behaviour: SvsmBehaviour, response: Uint8Array | null = RESPONSE) => {
  const commands: Array<Uint8Array> = []
  const tpm = {
    *ask(command: Uint8Array): Program<TpmAnswer | { readonly response: null }> {
      commands.push(command)
      yield pause()
      return response === null ? { response } : { response, ns: 0 }
    }
  } as unknown as TpmPort
  const host = new ScriptedHost(behaviour, [...SHIPPED_PROTOCOLS, vtpm(tpm)]).boot()
  return { host, commands }
}

interface Fields {
  readonly command?: number
  readonly locality?: number
  readonly size?: number
}
/** Bytes of a request as its fields say, which may cross into the next page. */
const put = (
  host: ScriptedHost,
  gpa: number,
  { command = TPM_SEND_COMMAND, locality = 0, size = 12 }: Fields
): void => {
  const bytes = new DataView(new ArrayBuffer(64))
  bytes.setUint32(0, command, true)
  bytes.setUint8(4, locality)
  bytes.setUint32(5, size, true)
  COMMAND.forEach((byte, i) => {
    bytes.setUint8(9 + i, byte)
  })
  for (let i = 0; i < 64; i++) host.poke(gpa + i).setUint8(0, bytes.getUint8(i))
}
const command = (host: ScriptedHost, rcx: number | readonly [number, number]): string =>
  resultName(host.call(PROTOCOL.VTPM, VTPM_CALL.COMMAND, { rcx }).result)
/** A request in PAGE with some fields changed: the result, and whether the TPM heard of it. */
const sent = (behaviour: SvsmBehaviour, fields: Fields): string => {
  const { host, commands } = withTpm(behaviour)
  put(host, PAGE, fields)
  const result = command(host, PAGE)
  expect(commands).toHaveLength(result === "SUCCESS" ? 1 : 0)
  return result
}
/** The call at an address where nothing was put. */
const at = (host_: ScriptedHost, behaviour: SvsmBehaviour, rcx: number | readonly [number, number]): string => {
  const { host, commands } = withTpm(behaviour)
  const result = command(host, rcx)
  expect(commands).toEqual([])
  for (const [why, times] of host.state.panics) host_.state.panics.set(why, times)
  return result
}

answer("vtpm/query", (_, behaviour) => {
  const { host } = withTpm(behaviour)
  const { result, rcx, rdx } = host.call(PROTOCOL.VTPM, VTPM_CALL.QUERY, { rcx: 7, rdx: 7 })
  return `${resultName(result)}, RCX = 0x${rcx.toString(16)}, RDX = ${rdx}`
})
answer("vtpm/offered", (_, behaviour) => {
  const { host } = withTpm(behaviour)
  return host.call(PROTOCOL.CORE, 6, { rcx: [PROTOCOL.VTPM, 1] }).rcx === 2 ** 32 + 1 ? "RCX = 1, 1" : "no"
})
answer("vtpm/absent", (host) => command(host, PAGE))
answer("vtpm/unknown", (_, behaviour) => {
  const { host } = withTpm(behaviour)
  const results = [2, 8, 0xffff_ffff].map((call) => resultName(host.call(PROTOCOL.VTPM, call, { rcx: PAGE }).result))
  return [...new Set(results)].join()
})
answer("vtpm/command", (_, behaviour) => {
  const { host, commands } = withTpm(behaviour)
  put(host, PAGE, {})
  const result = command(host, PAGE)
  expect([...commands[0]!]).toEqual(COMMAND)
  const view = host.peek(PAGE)
  expect(Array.from({ length: 10 }, (_, i) => view.getUint8(4 + i))).toEqual([...RESPONSE])
  return `${result}, size ${view.getUint32(0, true)} at 0, data at 4`
})
answer("vtpm/registers", (_, behaviour) => {
  const { host } = withTpm(behaviour)
  put(host, PAGE, {})
  const { rcx, rdx, r8 } = host.call(PROTOCOL.VTPM, VTPM_CALL.COMMAND, { rcx: PAGE, rdx: 5, r8: 6 })
  return rcx === PAGE && rdx === 5 && r8 === 6 ? "as they were" : "changed"
})
answer("vtpm/null", (host, behaviour) => at(host, behaviour, 0))
answer("vtpm/svsm", (host, behaviour) => at(host, behaviour, SVSM_DATA))
answer("vtpm/outside", (host, behaviour) => at(host, behaviour, FIRMWARE.gpa + FIRMWARE.size))
answer("vtpm/above-52", (host, behaviour) => at(host, behaviour, [0x10_0000, PAGE]))
answer("vtpm/wraps", (host, behaviour) => at(host, behaviour, [0xffff_ffff, 0xffff_fffe]))
answer("vtpm/vmsa", (host, behaviour) => at(host, behaviour, GUEST_VMSA))
answer("vtpm/area", (host, behaviour) => at(host, behaviour, CA + 4))
answer("vtpm/unvalidated", (host, behaviour) => at(host, behaviour, UNVALIDATED))
answer("vtpm/command-0", (_, behaviour) => sent(behaviour, { command: 0 }))
answer("vtpm/command-7", (_, behaviour) => sent(behaviour, { command: 7 }))
answer("vtpm/command-wide", (_, behaviour) => sent(behaviour, { command: 0x108 }))
answer("vtpm/locality", (_, behaviour) => {
  const all = [1, 4, 255].map((locality) => sent(behaviour, { locality }))
  return [...new Set(all)].join()
})
answer("vtpm/size-4087", (_, behaviour) => sent(behaviour, { size: 4087 }))
answer("vtpm/size-4088", (_, behaviour) => sent(behaviour, { size: 4088 }))
answer("vtpm/size-max", (_, behaviour) => sent(behaviour, { size: 0xffff_ffff }))
answer("vtpm/size-0", (_, behaviour) => sent(behaviour, { size: 0 }))
/** A good first word at `gpa`, of whose page the rest cannot all be named. */
const cut = (behaviour: SvsmBehaviour, gpa: number, word: number, change: (host: ScriptedHost) => void = () => {}) => {
  const { host, commands } = withTpm(behaviour)
  change(host)
  host.poke(gpa).setUint32(0, word, true)
  const result = command(host, gpa)
  expect(commands).toEqual([])
  return result
}
const END = FIRMWARE.gpa + FIRMWARE.size
answer("vtpm/page", (_, behaviour) => cut(behaviour, END - 16, TPM_SEND_COMMAND))
answer("vtpm/page-area", (_, behaviour) => cut(behaviour, CA - 16, TPM_SEND_COMMAND))
answer("vtpm/page-command", (_, behaviour) => cut(behaviour, END - 16, 7))
answer("vtpm/entries", (_, behaviour) =>
  cut(behaviour, END - 16, TPM_SEND_COMMAND, (host) => {
    host.state.parameters = { ...host.state.parameters, highRam: { gpa: END, size: 2 * PAGE_SIZE } }
    host.state.validated.add(END / PAGE_SIZE)
  })
)
answer("vtpm/alignment", (_, behaviour) => {
  const { host, commands } = withTpm(behaviour)
  for (const gpa of [PAGE + 1, PAGE + 0x7ff, PAGE + PAGE_SIZE - 3]) {
    put(host, gpa, {})
    expect(command(host, gpa)).toBe("SUCCESS")
    expect([...commands.at(-1)!]).toEqual(COMMAND)
    const reply = Array.from({ length: 14 }, (_, i) => host.peek(gpa + i).getUint8(0))
    expect(reply).toEqual([10, 0, 0, 0, ...RESPONSE])
  }
  return "SUCCESS"
})
answer("vtpm/power", (_, behaviour) => {
  const { host } = withTpm(behaviour, null)
  put(host, PAGE, {})
  return command(host, PAGE)
})
answer("vtpm/power-order", (_, behaviour) => {
  const { host } = withTpm(behaviour, null)
  put(host, PAGE, { locality: 1 })
  return command(host, PAGE)
})
answer("vtpm/response-4092", (_, behaviour) => {
  const { host } = withTpm(behaviour, new Uint8Array(4092).fill(7))
  put(host, PAGE, {})
  const result = command(host, PAGE)
  expect(host.peek(PAGE).getUint8(PAGE_SIZE - 1)).toBe(7)
  return `${result}, size ${host.peek(PAGE).getUint32(0, true)}`
})
answer("vtpm/response-4093", (_, behaviour) => {
  const { host } = withTpm(behaviour, new Uint8Array(4093))
  put(host, PAGE, {})
  const result = command(host, PAGE)
  const view = host.peek(PAGE)
  const isRequest = view.getUint32(0, true) === TPM_SEND_COMMAND && view.getUint32(5, true) === 12
  return `${result}, the buffer holds ${isRequest ? "the request" : "something else"}`
})
answer("vtpm/copied", (_, behaviour) => {
  const { host, commands } = withTpm(behaviour)
  put(host, PAGE, {})
  // Another vCPU writes another size as soon as the SVSM has read.
  let reads = 0
  host.meddle = ({ op, address }) => {
    if (op !== OP.READ_BYTES || address !== PAGE) return
    reads++
    put(host, PAGE, { size: 4088 })
  }
  const result = command(host, PAGE)
  expect([...commands[0]!]).toEqual(COMMAND)
  return `${result}, read ${reads === 1 ? "once" : "again"}`
})

check()
