import { EFI_STATUS, EFI_VARIABLE, UEFI_VENDOR, type Variable, type VariableName } from "@vmpl-lab/guest"
import { pkcs7Verifier } from "@vmpl-lab/lab"
import {
  DATABASE_ATTRIBUTES,
  EDK2_RULES,
  type EnrolledKeys,
  SECURE_BOOT,
  SIGNATURE_TYPE,
  type VariableRules,
  VariableService,
  VIRTFW_RULES
} from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { statusName } from "../../../../test/support/uefiHost.ts"
import { databaseOf, listOf, type Signer, signedWrite, signer, timeOf, withDescriptor } from "./signing.ts"

const { PK, KEK, DB, DBX, SETUP_MODE, CUSTOM_MODE } = SECURE_BOOT
const platform = signer("platform", "ASK")
const exchange = signer("exchange", "ASVK")
const image = signer("image", "EK")
const stranger = signer("stranger", "EK")
const NONE = new Uint8Array(0)

const service = (
  enrolled: EnrolledKeys = {},
  verifier: typeof pkcs7Verifier | null = pkcs7Verifier,
  rules: VariableRules = EDK2_RULES
): VariableService => new VariableService({ rules, verifier, enrolled })
const secured = (rules = EDK2_RULES): VariableService =>
  service({ PK: databaseOf(platform), KEK: databaseOf(exchange), DB: databaseOf(image) }, pkcs7Verifier, rules)

const set = (to: VariableService, variable: Variable): string => statusName(to.set(variable))
/** The value of a variable of one byte; null where there is none. */
const flag = (of: VariableService, name: VariableName): number | null => {
  const found = of.get(name)
  return typeof found === "number" ? null : found.data[0]!
}
const modes = (of: VariableService) =>
  [SETUP_MODE, SECURE_BOOT.SECURE_BOOT, SECURE_BOOT.SECURE_BOOT_ENABLE].map((name) => flag(of, name))
const dataOf = (of: VariableService, name: VariableName): Uint8Array => {
  const found = of.get(name)
  if (typeof found === "number") throw new Error(statusName(found))
  return found.data
}
const unsigned = (name: VariableName, data: Uint8Array): Variable => ({
  ...name,
  attributes: DATABASE_ATTRIBUTES,
  data: withDescriptor(timeOf(1), NONE, data)
})

describe("setup mode", () => {
  it("is there until somebody brings a PK", () => {
    const store = service()
    expect(modes(store)).toEqual([1, 0, null])
    expect(store.isSecureBoot).toBe(false)
    expect(set(store, signedWrite(PK, databaseOf(platform), 1, platform))).toBe("SUCCESS")
    expect(modes(store)).toEqual([0, 1, 1])
    expect([store.isSecureBoot, store.takesDatabaseUpdates]).toEqual([true, true])
  })

  it("takes KEK, db and dbx as they are", () => {
    const store = service()
    for (const name of [KEK, DB, DBX]) expect(set(store, unsigned(name, databaseOf(stranger)))).toBe("SUCCESS")
    expect(modes(store)).toEqual([1, 0, null])
  })

  it("takes none whose descriptor is longer than the data", () => {
    const { data, ...rest } = unsigned(KEK, NONE)
    const tooLong = data.slice()
    new DataView(tooLong.buffer).setUint32(16, data.length - 16 + 1, true)
    expect(set(service(), { ...rest, data })).toBe("NOT_FOUND")
    expect(set(service(), { ...rest, data: tooLong })).toBe("SECURITY_VIOLATION")
  })

  it("takes a PK that signs itself only", () => {
    const store = service()
    expect(set(store, unsigned(PK, databaseOf(platform)))).toBe("SECURITY_VIOLATION")
    expect(set(store, signedWrite(PK, databaseOf(platform), 1, stranger))).toBe("SECURITY_VIOLATION")
    const { data, ...rest } = signedWrite(PK, databaseOf(platform), 1, platform)
    expect(set(store, { ...rest, data: Uint8Array.from([...data.subarray(0, -1), data.at(-1)! ^ 1]) })).toBe(
      "SECURITY_VIOLATION"
    )
    expect(modes(store)).toEqual([1, 0, null])
  })

  it("takes no PK at all where nobody verifies", () => {
    const store = service({}, null)
    expect(set(store, signedWrite(PK, databaseOf(platform), 1, platform))).toBe("SECURITY_VIOLATION")
  })

  it("comes back with a PK deleted by its owner, at runtime without SecureBoot", () => {
    for (const atRuntime of [false, true]) {
      const store = secured()
      if (atRuntime) store.exitBootServices()
      expect(set(store, signedWrite(PK, NONE, 2, stranger))).toBe("SECURITY_VIOLATION")
      expect(set(store, signedWrite(PK, NONE, 2, platform))).toBe("SUCCESS")
      expect(flag(store, SETUP_MODE)).toBe(1)
      expect(flag(store, SECURE_BOOT.SECURE_BOOT)).toBe(atRuntime ? 1 : 0)
    }
  })
})

describe("user mode", () => {
  const cases: ReadonlyArray<[string, VariableName, Signer, string]> = [
    ["PK by PK", PK, platform, "SUCCESS"],
    ["PK by KEK", PK, exchange, "SECURITY_VIOLATION"],
    ["KEK by PK", KEK, platform, "SUCCESS"],
    ["KEK by KEK", KEK, exchange, "SECURITY_VIOLATION"],
    ["db by PK", DB, platform, "SUCCESS"],
    ["db by KEK", DB, exchange, "SUCCESS"],
    ["db by itself", DB, image, "SECURITY_VIOLATION"],
    ["dbx by KEK", DBX, exchange, "SUCCESS"],
    ["dbx by a stranger", DBX, stranger, "SECURITY_VIOLATION"]
  ]
  it.each(cases)("%s", (_, name, by, expected) => {
    const store = secured()
    const before = [PK, KEK, DB].map((one) => dataOf(store, one))
    expect(set(store, signedWrite(name, databaseOf(stranger), 5, by))).toBe(expected)
    if (expected === "SUCCESS") expect(dataOf(store, name)).toEqual(databaseOf(stranger))
    else expect([PK, KEK, DB].map((one) => dataOf(store, one))).toEqual(before)
  })

  it.each(cases)("%s is refused by a store that does not verify there", (_, name, by) => {
    const store = secured(VIRTFW_RULES)
    expect(set(store, signedWrite(name, databaseOf(stranger), 5, by))).toBe("SECURITY_VIOLATION")
    expect(store.takesDatabaseUpdates).toBe(false)
  })

  it("refuses what was signed for another name, vendor, time or attributes", () => {
    const good = signedWrite(DBX, databaseOf(stranger), 5, exchange)
    for (const changed of [
      { ...good, name: "db" },
      { ...signedWrite({ ...DBX, guid: UEFI_VENDOR.GLOBAL }, databaseOf(stranger), 5, exchange), ...DBX },
      { ...good, attributes: good.attributes | EFI_VARIABLE.APPEND_WRITE },
      { ...good, data: good.data.with(4, 9) }
    ]) {
      expect(set(secured(), changed)).toBe("SECURITY_VIOLATION")
    }
    expect(set(secured(), good)).toBe("SUCCESS")
  })

  it("refuses a time that is not later, but for what is appended", () => {
    const store = secured()
    const append = (second: number, data: Uint8Array) => signedWrite(DBX, data, second, exchange, { append: true })
    expect(set(store, signedWrite(DBX, databaseOf(stranger), 5, exchange))).toBe("SUCCESS")
    expect(set(store, signedWrite(DBX, NONE, 5, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, signedWrite(DBX, NONE, 4, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, append(3, databaseOf(image)))).toBe("SUCCESS")
    // The later time stays.
    expect(set(store, signedWrite(DBX, NONE, 4, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, append(9, databaseOf(image)))).toBe("SUCCESS")
    expect(set(store, signedWrite(DBX, NONE, 8, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, signedWrite(DBX, NONE, 10, exchange))).toBe("SUCCESS")
    expect(flag(store, DBX)).toBe(null)
  })

  it("appends each signature once", () => {
    const store = secured()
    const hash = (value: number) => new Uint8Array(32).fill(value)
    const lists = (...values: ReadonlyArray<number>) => listOf(SIGNATURE_TYPE.SHA256, values.map(hash))
    expect(set(store, signedWrite(DBX, lists(1, 2), 5, exchange))).toBe("SUCCESS")
    expect(set(store, signedWrite(DBX, lists(2, 3), 6, exchange, { append: true }))).toBe("SUCCESS")
    expect(dataOf(store, DBX)).toEqual(Uint8Array.from([...lists(1, 2), ...lists(3)]))
  })

  it("refuses times that have more than seconds", () => {
    const writeAt = (time: Uint8Array) => signedWrite(DBX, databaseOf(stranger), 5, exchange, { time })
    expect(set(secured(), writeAt(timeOf(5)))).toBe("SUCCESS")
    for (const at of [7, 8, 12, 14, 15]) {
      expect(set(secured(), writeAt(timeOf(5).with(at, 1)))).toBe("SECURITY_VIOLATION")
    }
  })

  it("refuses descriptors that do not fit, or are of another kind", () => {
    const { data, ...rest } = signedWrite(DBX, databaseOf(stranger), 5, exchange)
    const huge = data.slice()
    new DataView(huge.buffer).setUint32(16, 0xffff_ffff, true)
    const tight = data.slice()
    new DataView(tight.buffer).setUint32(16, 23, true)
    for (const bad of [data.subarray(0, 39), huge, tight, data.with(20, 1), data.with(22, 1), data.with(24, 1)]) {
      expect(set(secured(), { ...rest, data: bad })).toBe("SECURITY_VIOLATION")
    }
  })

  it("refuses contents that are no signature lists, and two PKs", () => {
    const bad = (name: VariableName, data: Uint8Array): string => set(secured(), signedWrite(name, data, 5, platform))
    const list = databaseOf(stranger)
    expect(bad(DB, list.subarray(0, -1))).toBe("INVALID_PARAMETER")
    expect(bad(DB, Uint8Array.of(1, 2, 3))).toBe("INVALID_PARAMETER")
    expect(bad(DB, listOf(SIGNATURE_TYPE.SHA256, [new Uint8Array(31)]))).toBe("INVALID_PARAMETER")
    expect(bad(DB, listOf(UEFI_VENDOR.SHIM, [new Uint8Array(32)]))).toBe("INVALID_PARAMETER")
    const sizeless = list.slice()
    new DataView(sizeless.buffer).setUint32(24, 0, true)
    expect(bad(DB, sizeless)).toBe("INVALID_PARAMETER")
    expect(bad(DB, listOf(SIGNATURE_TYPE.X509, [NONE]))).toBe("INVALID_PARAMETER")
    const odd = Uint8Array.from([...list, 0])
    new DataView(odd.buffer).setUint32(16, odd.length, true)
    expect(bad(DB, odd)).toBe("INVALID_PARAMETER")
    expect(bad(PK, databaseOf(platform, stranger))).toBe("INVALID_PARAMETER")
    expect(bad(DB, databaseOf(platform, stranger))).toBe("SUCCESS")
  })

  it("lets nobody in by attributes, modes or switches", () => {
    const store = secured()
    const plain = { ...DB, data: databaseOf(stranger) }
    expect(set(store, { ...plain, attributes: 7 })).toBe("INVALID_PARAMETER")
    expect(set(store, { ...plain, attributes: 0 })).toBe("INVALID_PARAMETER")
    expect(set(store, { ...PK, attributes: 0, data: NONE })).toBe("INVALID_PARAMETER")
    expect(set(store, { ...SETUP_MODE, attributes: 6, data: Uint8Array.of(1) })).toBe("WRITE_PROTECTED")
    expect(set(store, { ...CUSTOM_MODE, attributes: 3, data: Uint8Array.of(1) })).toBe("SECURITY_VIOLATION")
    expect(modes(store)).toEqual([0, 1, 1])
  })
})

describe("another authenticated variable", () => {
  const OWN = { name: "Own", guid: UEFI_VENDOR.SHIM }
  const value = (...bytes: ReadonlyArray<number>) => Uint8Array.from(bytes)

  it("belongs to who has written it first", () => {
    const store = service()
    expect(set(store, signedWrite(OWN, value(1), 1, stranger))).toBe("SUCCESS")
    expect(set(store, signedWrite(OWN, value(2), 2, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, signedWrite(OWN, value(2), 1, stranger))).toBe("SECURITY_VIOLATION")
    expect(set(store, { ...OWN, attributes: DATABASE_ATTRIBUTES, data: value(2) })).toBe("SECURITY_VIOLATION")
    expect(set(store, { ...OWN, attributes: 0, data: NONE })).toBe("WRITE_PROTECTED")
    expect(dataOf(store, OWN)).toEqual(value(1))
    expect(set(store, signedWrite(OWN, value(3), 2, stranger, { append: true }))).toBe("SUCCESS")
    expect(dataOf(store, OWN)).toEqual(value(1, 3))
    expect(set(store, signedWrite(OWN, NONE, 3, exchange))).toBe("SECURITY_VIOLATION")
    expect(set(store, signedWrite(OWN, NONE, 3, stranger))).toBe("SUCCESS")
    // Who comes first after that is its owner again.
    expect(set(store, signedWrite(OWN, value(4), 1, exchange))).toBe("SUCCESS")
  })

  it("is there for nobody where nobody verifies", () => {
    expect(set(service({}, null), signedWrite(OWN, value(1), 1, stranger))).toBe("SECURITY_VIOLATION")
  })
})

it("counts the signatures that it has verified", () => {
  const store = secured()
  set(store, signedWrite(DBX, databaseOf(stranger), 5, exchange))
  set(store, signedWrite(DBX, databaseOf(stranger), 6, stranger))
  expect(store.variables.steps.verified).toBe(2)
  expect(store.set({ ...DB, attributes: 7, data: NONE })).toBe(EFI_STATUS.INVALID_PARAMETER)
  expect(store.variables.steps.verified).toBe(2)
})
