import {
  EFI_STATUS,
  EFI_VARIABLE,
  LOCK_ON_STATE,
  LOCK_POLICY,
  MM_HEADER,
  MM_RECEIVER,
  MM_VARIABLE,
  mmMessage,
  nameBytes,
  POLICY_COMMAND,
  POLICY_DUMP,
  POLICY_ENTRY,
  POLICY_HEADER,
  policyEntry,
  policyMessage,
  policyResult,
  registerPolicyMessage,
  VARIABLE_HEADER,
  VARIABLE_PROPERTY,
  type Variable,
  type VariableName,
  type VariablePolicy
} from "@vmpl-lab/guest"
import { getU64, guidBytes, setU64 } from "@vmpl-lab/sev-es"
import { EDK2_RULES, ManagementMode, type VariableRules, VIRTFW_RULES } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { statusAt, statusName } from "../../../test/support/uefiHost.ts"

const GUID = "11111111-2222-3333-4444-555555555555"
const NV_BS = EFI_VARIABLE.NON_VOLATILE | EFI_VARIABLE.BOOTSERVICE_ACCESS
const mode = (rules: VariableRules = EDK2_RULES): ManagementMode =>
  new ManagementMode({ rules, verifier: null, enrolled: {} })
/** Hands a whole message over. @returns it, with the answer in its place */
const send = (to: ManagementMode, message: Uint8Array, receiver: string = MM_RECEIVER.VARIABLE_POLICY): Uint8Array => {
  const body = message.slice(MM_HEADER.SIZE)
  const answered = to.dispatch(receiver, body)
  expect(answered).toBeLessThanOrEqual(body.length)
  const after = message.slice()
  after.set(body.subarray(0, answered), MM_HEADER.SIZE)
  return after
}
const register = (to: ManagementMode, policy: VariableName & Partial<VariablePolicy>): string =>
  statusName(policyResult(send(to, registerPolicyMessage(policy))))
const set = (to: ManagementMode, variable: Partial<Variable>): string =>
  statusName(to.variables.set({ name: "A", guid: GUID, attributes: NV_BS, data: Uint8Array.of(1, 2, 3), ...variable }))

describe("policies", () => {
  it.each<[string, Partial<VariablePolicy>, Partial<Variable>, string]>([
    ["enough data", { minSize: 3 }, {}, "SUCCESS"],
    ["too little data", { minSize: 4 }, {}, "INVALID_PARAMETER"],
    ["too much data", { maxSize: 2 }, {}, "INVALID_PARAMETER"],
    ["attributes that it must have", { mustHave: NV_BS }, {}, "SUCCESS"],
    ["one that it must have and has not", { mustHave: EFI_VARIABLE.RUNTIME_ACCESS }, {}, "INVALID_PARAMETER"],
    ["one that it cannot have", { cantHave: EFI_VARIABLE.NON_VOLATILE }, {}, "INVALID_PARAMETER"],
    ["a lock", { lock: LOCK_POLICY.LOCK_NOW }, {}, "WRITE_PROTECTED"],
    ["a lock for a deletion too", { lock: LOCK_POLICY.LOCK_NOW }, { data: new Uint8Array(0) }, "WRITE_PROTECTED"],
    ["sizes and attributes not for a deletion", { minSize: 9 }, { data: new Uint8Array(0) }, "NOT_FOUND"],
    ["another name", { name: "B", lock: 1 }, {}, "SUCCESS"],
    ["the vendor's, without a name", { name: "", lock: 1 }, {}, "WRITE_PROTECTED"],
    ["another vendor's", { name: "", guid: MM_RECEIVER.VARIABLE, lock: 1 }, {}, "SUCCESS"],
    ["digits by wildcards", { name: "Boot####", lock: 1 }, { name: "Boot00fF" }, "WRITE_PROTECTED"],
    ["no digit for a wildcard", { name: "Boot####", lock: 1 }, { name: "Boot00fG" }, "SUCCESS"],
    ["more behind wildcards", { name: "Boot####", lock: 1 }, { name: "Boot00000" }, "SUCCESS"],
    ["a wildcard is no name", { name: "Boot#", lock: 1 }, { name: "Boot#" }, "SUCCESS"]
  ])("%s", (_, policy, variable, expected) => {
    for (const rules of [EDK2_RULES, VIRTFW_RULES]) {
      const to = mode(rules)
      expect(register(to, { name: "A", guid: GUID, ...policy })).toBe("SUCCESS")
      // Nothing holds before the end of DXE.
      const before = mode(rules)
      register(before, { name: "A", guid: GUID, ...policy })
      const free = set(before, variable)
      expect(["SUCCESS", statusName(rules.absentDeletion)]).toContain(free)
      to.dispatch(MM_RECEIVER.END_OF_DXE, new Uint8Array(1))
      expect(set(to, variable)).toBe(expected === "NOT_FOUND" ? statusName(rules.absentDeletion) : expected)
    }
  })

  it("hold in the order exact, wildcards, vendor", () => {
    const to = mode()
    register(to, { name: "", guid: GUID, lock: LOCK_POLICY.LOCK_NOW })
    register(to, { name: "Boot##", guid: GUID, minSize: 5 })
    register(to, { name: "Boot0#", guid: GUID, minSize: 2 })
    register(to, { name: "Boot01", guid: GUID, maxSize: 1 })
    to.variables.endDxe()
    const sizes = (name: string) =>
      [1, 3, 5].map((length) => set(to, { name, data: new Uint8Array(length) }) === "SUCCESS")
    expect(sizes("Boot01")).toEqual([true, false, false])
    expect(sizes("Boot02")).toEqual([false, true, true])
    expect(sizes("Boot12")).toEqual([false, false, true])
    expect(sizes("Other")).toEqual([false, false, false])
  })

  it("hold in the order of their registration where they fit alike", () => {
    const to = mode()
    register(to, { name: "Boot#0", guid: GUID, minSize: 4 })
    register(to, { name: "Boot0#", guid: GUID, lock: LOCK_POLICY.LOCK_NOW })
    to.variables.endDxe()
    expect([set(to, { name: "Boot00" }), set(to, { name: "Boot01" })]).toEqual(["INVALID_PARAMETER", "WRITE_PROTECTED"])
  })

  it("lock with the creation", () => {
    const to = mode()
    register(to, { name: "A", guid: GUID, lock: LOCK_POLICY.LOCK_ON_CREATE })
    to.variables.endDxe()
    expect([set(to, {}), set(to, {}), set(to, { data: new Uint8Array(0) })]).toEqual([
      "SUCCESS",
      "WRITE_PROTECTED",
      "WRITE_PROTECTED"
    ])
  })

  /** An entry whose lock is the state of another variable. */
  const stateEntry = (state: string, value: number): Uint8Array => {
    const plain = policyEntry({ name: "A", guid: GUID, lock: LOCK_POLICY.LOCK_ON_VAR_STATE })
    const named = nameBytes(state)
    const more = LOCK_ON_STATE.name + named.length
    const entry = new Uint8Array(plain.length + more)
    entry.set(plain.subarray(0, POLICY_ENTRY.SIZE))
    entry.set(guidBytes(GUID), POLICY_ENTRY.SIZE)
    entry[POLICY_ENTRY.SIZE + LOCK_ON_STATE.value] = value
    entry.set(named, POLICY_ENTRY.SIZE + LOCK_ON_STATE.name)
    entry.set(plain.subarray(POLICY_ENTRY.SIZE), POLICY_ENTRY.SIZE + more)
    const view = new DataView(entry.buffer)
    view.setUint16(POLICY_ENTRY.size, entry.length, true)
    view.setUint16(POLICY_ENTRY.offset_to_name, POLICY_ENTRY.SIZE + more, true)
    return entry
  }

  it("lock by the state of another variable", () => {
    const to = mode()
    const entry = policyMessage(POLICY_COMMAND.REGISTER, stateEntry("Lock", 7))
    expect(policyResult(send(to, entry))).toBe(EFI_STATUS.SUCCESS)
    to.variables.endDxe()
    expect(set(to, {})).toBe("SUCCESS")
    set(to, { name: "Lock", data: Uint8Array.of(6) })
    expect(set(to, { data: Uint8Array.of(1) })).toBe("SUCCESS")
    set(to, { name: "Lock", data: Uint8Array.of(7, 7) })
    expect(set(to, { data: Uint8Array.of(2) })).toBe("SUCCESS")
    set(to, { name: "Lock", data: Uint8Array.of(7) })
    expect(set(to, { data: Uint8Array.of(3) })).toBe("WRITE_PROTECTED")
  })

  it("are refused malformed", () => {
    const good = policyEntry({ name: "A", guid: GUID })
    const with16 = (at: number, value: number): Uint8Array => {
      const entry = good.slice()
      new DataView(entry.buffer).setUint16(at, value, true)
      return entry
    }
    const bad: ReadonlyArray<Uint8Array> = [
      good.subarray(0, POLICY_ENTRY.SIZE - 1),
      with16(POLICY_ENTRY.version, 2),
      with16(POLICY_ENTRY.size, POLICY_ENTRY.SIZE - 1),
      with16(POLICY_ENTRY.size, good.length + 1),
      with16(POLICY_ENTRY.size, good.length - 1),
      with16(POLICY_ENTRY.offset_to_name, POLICY_ENTRY.SIZE - 1),
      with16(POLICY_ENTRY.offset_to_name, POLICY_ENTRY.SIZE + 2),
      with16(POLICY_ENTRY.offset_to_name, 0xffff),
      policyEntry({ name: "A", guid: GUID, maxSize: 0 }),
      policyEntry({ name: "A", guid: GUID, lock: 4 }),
      policyEntry({ name: "A", guid: GUID, lock: LOCK_POLICY.LOCK_ON_VAR_STATE }),
      policyEntry({ name: "#".repeat(256), guid: GUID }),
      good.with(good.length - 2, 1),
      stateEntry("Lock", 7).with(POLICY_ENTRY.SIZE + LOCK_ON_STATE.name + 8, 1)
    ]
    for (const [i, entry] of bad.entries()) {
      const result = policyResult(send(mode(), policyMessage(POLICY_COMMAND.REGISTER, entry)))
      expect([i, statusName(result)]).toEqual([i, "INVALID_PARAMETER"])
    }
    expect(register(mode(), { name: "A", guid: GUID })).toBe("SUCCESS")
  })

  it("end where their room does", () => {
    const to = mode()
    let last = "SUCCESS"
    for (let i = 0; i < 100 && last === "SUCCESS"; i++) last = register(to, { name: `${i}`.padEnd(1000), guid: GUID })
    expect(last).toBe("OUT_OF_RESOURCES")
  })

  it("are dumped page by page, as they were registered", () => {
    const to = mode()
    const entries = Array.from({ length: 12 }, (_, i) => policyEntry({ name: `${i}`.padEnd(1000), guid: GUID }))
    const page = (number: number) => {
      const body = new Uint8Array(POLICY_DUMP.SIZE + POLICY_DUMP.PAGE)
      new DataView(body.buffer).setUint32(POLICY_DUMP.page_requested, number, true)
      const after = send(to, policyMessage(POLICY_COMMAND.DUMP, body))
      const from = after.subarray(MM_HEADER.SIZE + POLICY_HEADER.SIZE)
      const view = new DataView(from.buffer, from.byteOffset)
      const size = view.getUint32(POLICY_DUMP.page_size, true)
      return {
        status: statusName(policyResult(after)),
        total: view.getUint32(POLICY_DUMP.total_size, true),
        hasMore: view.getUint8(POLICY_DUMP.has_more) === 1,
        bytes: from.slice(POLICY_DUMP.SIZE, POLICY_DUMP.SIZE + size)
      }
    }
    expect(page(0)).toMatchObject({ status: "SUCCESS", total: 0, hasMore: false })
    expect(page(1).status).toBe("TIMEOUT")
    for (const entry of entries) send(to, policyMessage(POLICY_COMMAND.REGISTER, entry))
    const whole = Uint8Array.from(Buffer.concat(entries))
    expect(page(0)).toEqual({ status: "SUCCESS", total: whole.length, hasMore: true, bytes: new Uint8Array(0) })
    const [first, second] = [page(1), page(2)]
    expect([first.hasMore, second.hasMore]).toEqual([true, false])
    expect(Uint8Array.from([...first.bytes, ...second.bytes])).toEqual(whole)
    // The last page ends it, and so does any other command.
    expect(page(1).status).toBe("TIMEOUT")
    page(0)
    expect(page(9).status).toBe("INVALID_PARAMETER")
    send(to, policyMessage(POLICY_COMMAND.IS_ENABLED, new Uint8Array(1)))
    expect(page(1).status).toBe("TIMEOUT")
  })

  it("say that they are enabled", () => {
    const after = send(mode(), policyMessage(POLICY_COMMAND.IS_ENABLED, new Uint8Array(1)))
    expect([policyResult(after), after.at(-1)]).toEqual([EFI_STATUS.SUCCESS, 1])
  })
})

describe("properties", () => {
  const message = (fn: number, fields: { attributes?: number; min?: number; max?: number; revision?: number }) => {
    const named = nameBytes("A")
    const body = new Uint8Array(VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.name + named.length)
    setU64(new DataView(body.buffer), VARIABLE_HEADER.function, fn)
    const view = new DataView(body.buffer, VARIABLE_HEADER.SIZE)
    body.set(guidBytes(GUID), VARIABLE_HEADER.SIZE)
    setU64(view, VARIABLE_PROPERTY.name_size, named.length)
    view.setUint16(VARIABLE_PROPERTY.revision, fields.revision ?? 1, true)
    view.setUint32(VARIABLE_PROPERTY.attributes, fields.attributes ?? 0, true)
    setU64(view, VARIABLE_PROPERTY.min_size, fields.min ?? 0)
    setU64(view, VARIABLE_PROPERTY.max_size, fields.max ?? 100)
    body.set(named, VARIABLE_HEADER.SIZE + VARIABLE_PROPERTY.name)
    return mmMessage(MM_RECEIVER.VARIABLE, body)
  }
  const { VAR_CHECK_VARIABLE_PROPERTY_SET: SET, VAR_CHECK_VARIABLE_PROPERTY_GET: GET } = MM_VARIABLE
  const ask = (to: ManagementMode, fn: number, fields: Parameters<typeof message>[1]) => {
    const after = send(to, message(fn, fields), MM_RECEIVER.VARIABLE)
    return { status: statusAt(after, VARIABLE_HEADER.status), after }
  }

  it("come back as they were set, and hold from the end of DXE on", () => {
    const to = mode()
    expect(ask(to, GET, {}).status).toBe("NOT_FOUND")
    expect(ask(to, SET, { revision: 2 }).status).toBe("INVALID_PARAMETER")
    expect(ask(to, SET, { attributes: NV_BS, min: 2, max: 4 }).status).toBe("SUCCESS")
    const { status, after } = ask(to, GET, {})
    const view = new DataView(after.buffer, MM_HEADER.SIZE + VARIABLE_HEADER.SIZE)
    expect(status).toBe("SUCCESS")
    expect([
      view.getUint16(VARIABLE_PROPERTY.property, true),
      view.getUint32(VARIABLE_PROPERTY.attributes, true),
      getU64(view, VARIABLE_PROPERTY.min_size),
      getU64(view, VARIABLE_PROPERTY.max_size)
    ]).toEqual([0, NV_BS, 2, 4])
    expect(set(to, { data: new Uint8Array(5) })).toBe("SUCCESS")
    to.variables.endDxe()
    expect(ask(to, SET, {}).status).toBe("ACCESS_DENIED")
    expect(set(to, { data: new Uint8Array(5) })).toBe("INVALID_PARAMETER")
    expect(set(to, { data: new Uint8Array(1) })).toBe("INVALID_PARAMETER")
    expect(set(to, { data: new Uint8Array(3) })).toBe("SUCCESS")
    expect(set(to, { attributes: 7, data: new Uint8Array(3) })).toBe("INVALID_PARAMETER")
    expect(set(to, { data: new Uint8Array(0) })).toBe("SUCCESS")
  })
})
