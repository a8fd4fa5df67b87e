import { EFI_STATUS, EFI_VARIABLE, type Variable, type VariableName } from "@vmpl-lab/guest"
import { EDK2_RULES, storedSize, VARIABLE_LIMITS, VariableService } from "@vmpl-lab/svsm"
import fc from "fast-check"
import { expect, it } from "vitest"

const { NON_VOLATILE, RUNTIME_ACCESS, APPEND_WRITE } = EFI_VARIABLE
const { SUCCESS, NOT_FOUND, INVALID_PARAMETER, OUT_OF_RESOURCES, WRITE_PROTECTED } = EFI_STATUS
const ATTRIBUTES = [2, 3, 6, 7] as const
const GUIDS = ["11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"]
const ROOM = VARIABLE_LIMITS.STORE - VARIABLE_LIMITS.STORE_HEADER

/** A plain map from name to value, in the order of writing, and the two facts of the phase. */
interface Model {
  readonly variables: Map<string, Variable>
  atRuntime: boolean
  /** Bytes of variables that are there from the start, volatile and not. */
  readonly initial: readonly [number, number]
}
interface Real {
  readonly service: VariableService
  readonly initial: ReadonlySet<string>
}

const keyOf = ({ guid, name }: VariableName): string => `${guid} ${name}`
const isVolatile = (attributes: number): boolean => (attributes & NON_VOLATILE) === 0
const visible = (model: Model, { attributes }: Variable): boolean =>
  !model.atRuntime || (attributes & RUNTIME_ACCESS) !== 0
const free = (model: Model, attributes: number): number => {
  const mine = [...model.variables.values()].filter((one) => isVolatile(one.attributes) === isVolatile(attributes))
  return ROOM - model.initial[isVolatile(attributes) ? 0 : 1] - mine.reduce((sum, one) => sum + storedSize(one), 0)
}

const isTooLarge = ({ name }: VariableName, data: Uint8Array): boolean =>
  2 * name.length + 2 + data.length > VARIABLE_LIMITS.VARIABLE - VARIABLE_LIMITS.HEADER

/** What UEFI says becomes of a write. */
const write = (model: Model, asked: Variable): number => {
  const { attributes, data } = asked
  const old = model.variables.get(keyOf(asked))
  if (isTooLarge(asked, data)) return INVALID_PARAMETER
  if (old !== undefined && !visible(model, old)) return WRITE_PROTECTED
  const append = (attributes & APPEND_WRITE) !== 0
  const lasting = attributes & ~APPEND_WRITE
  if (old !== undefined && attributes !== 0 && lasting !== old.attributes) return INVALID_PARAMETER
  if (old !== undefined && model.atRuntime && isVolatile(old.attributes)) return WRITE_PROTECTED
  if (attributes === 0 || (data.length === 0 && !append)) {
    return model.variables.delete(keyOf(asked)) ? SUCCESS : NOT_FOUND
  }
  if (old === undefined && append && data.length === 0) return SUCCESS
  if (old === undefined && model.atRuntime && lasting !== 7) return INVALID_PARAMETER
  const whole = old !== undefined && append ? Uint8Array.from([...old.data, ...data]) : data
  const kept = { ...asked, attributes: lasting, data: whole }
  if (old !== undefined && Buffer.compare(old.data, whole) === 0) return SUCCESS
  if (isTooLarge(asked, whole)) return INVALID_PARAMETER
  if (storedSize(kept) > free(model, lasting) + (old === undefined ? 0 : storedSize(old))) return OUT_OF_RESOURCES
  model.variables.delete(keyOf(asked))
  model.variables.set(keyOf(asked), kept)
  return SUCCESS
}

const statuses = new Map<number, number>()

class SetVariable implements fc.Command<Model, Real> {
  readonly #asked: Variable
  constructor(asked: Variable) {
    this.#asked = asked
  }
  check(): boolean {
    return true
  }
  run(model: Model, { service }: Real): void {
    const expected = write(model, this.#asked)
    statuses.set(expected, (statuses.get(expected) ?? 0) + 1)
    expect(service.set(this.#asked)).toBe(expected)
  }
  toString(): string {
    const { name, guid, attributes, data } = this.#asked
    return `SetVariable(${guid[0]} ${name}, ${attributes}, ${data.length} bytes of ${data[0]})`
  }
}

/** Reads everything there is, one name behind the other, and how much room is left. */
class ReadAll implements fc.Command<Model, Real> {
  check(): boolean {
    return true
  }
  run(model: Model, { service, initial }: Real): void {
    const seen: Array<Variable> = []
    let next = service.next({ name: "", guid: GUIDS[0]! })
    while (typeof next !== "number") {
      if (!initial.has(keyOf(next))) seen.push(next)
      expect(service.get(next)).toEqual(next)
      next = service.next(next)
    }
    expect(next).toBe(NOT_FOUND)
    const all = [...model.variables.values()].filter((one) => visible(model, one))
    const expected = [true, false].flatMap((kind) => all.filter(({ attributes }) => isVolatile(attributes) === kind))
    const plain = ({ name, guid, attributes, data }: Variable) => ({
      name,
      guid,
      attributes,
      data: Buffer.from(data).toString("latin1")
    })
    expect(seen.map(plain)).toEqual(expected.map(plain))
    for (const attributes of [6, 7]) {
      expect(service.info(attributes)).toMatchObject({ remainingStorage: free(model, attributes) })
    }
  }
  toString(): string {
    return "ReadAll"
  }
}

class ExitBootServices implements fc.Command<Model, Real> {
  /** How many variables there must be. */
  readonly #least: number
  constructor(least: number) {
    this.#least = least
  }
  check({ atRuntime, variables }: Readonly<Model>): boolean {
    return !atRuntime && variables.size >= this.#least
  }
  run(model: Model, { service }: Real): void {
    model.atRuntime = true
    service.exitBootServices()
  }
  toString(): string {
    return "ExitBootServices"
  }
}

const NAMES = Array.from({ length: 10 }, (_, i) => `Boot000${i}`)
const name = fc.record({
  name: fc.oneof(fc.constantFrom("A", "B"), fc.constantFrom(...NAMES)),
  guid: fc.constantFrom(...GUIDS)
})
const data = fc
  .tuple(
    fc.oneof(
      { weight: 2, arbitrary: fc.nat(3) },
      { weight: 2, arbitrary: fc.constantFrom(0x4000, 0x8000, 0x8300, 0x8380, 0x9000) }
    ),
    fc.nat(255)
  )
  .map(([length, value]) => new Uint8Array(length).fill(value))
const attributes = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...ATTRIBUTES) },
  { weight: 2, arbitrary: fc.constantFrom(...ATTRIBUTES).map((bits) => bits | APPEND_WRITE) },
  { weight: 1, arbitrary: fc.constant(0) }
)
const commands = fc.commands(
  [
    ...Array.from({ length: 8 }, () =>
      fc.tuple(name, attributes, data).map(([n, a, d]) => new SetVariable({ ...n, attributes: a, data: d }))
    ),
    fc.constant(new ReadAll()),
    fc.nat(40).map((least) => new ExitBootServices(least))
  ],
  { maxCommands: 200, size: "max" }
)

it("the store is what a plain map of variables would be", () => {
  fc.assert(
    fc.property(commands, (given) =>
      fc.modelRun(() => {
        const service = new VariableService({ rules: EDK2_RULES, verifier: null, enrolled: {} })
        const { all } = service.variables
        const size = (kind: boolean): number =>
          all.filter((one) => isVolatile(one.attributes) === kind).reduce((sum, one) => sum + storedSize(one), 0)
        const initial: readonly [number, number] = [size(true), size(false)]
        const model: Model = { variables: new Map(), atRuntime: false, initial }
        return { model, real: { service, initial: new Set(all.map(keyOf)) } }
      }, given)
    ),
    { seed: 42, numRuns: 100 }
  )
  // The commands were good enough to reach every answer.
  for (const status of [SUCCESS, NOT_FOUND, INVALID_PARAMETER, OUT_OF_RESOURCES, WRITE_PROTECTED]) {
    expect([status, (statuses.get(status) ?? 0) > 0]).toEqual([status, true])
  }
})

it("what one boot has written is gone with the next", () => {
  const make = () => new VariableService({ rules: EDK2_RULES, verifier: null, enrolled: {} })
  const one = { name: "A", guid: GUIDS[0]!, attributes: 7, data: Uint8Array.of(1) }
  const first = make()
  expect(first.set(one)).toBe(SUCCESS)
  expect(first.get(one)).toMatchObject(one)
  expect(make().get(one)).toBe(NOT_FOUND)
})
