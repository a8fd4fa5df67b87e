/** One field of a 4 KiB architectural page that software can name. Offset and size are bytes. */
export interface Field<Name extends string = string> {
  readonly field: Name
  readonly offset: number
  readonly size: number
}

/** Bytes of a VMSA, VMCB, GHCB or any other 4 KiB page. */
export const PAGE_SIZE = 4096

type Row<Name extends string> = readonly [field: Name, offset: number, size: number]

/**
 * Turns rows of name, offset, size into fields, and refuses a table whose fields overlap or leave the page: a wrong
 * offset is a bug of the model, so it throws when the module loads.
 */
export const layout = <const Name extends string>(rows: ReadonlyArray<Row<Name>>): ReadonlyArray<Field<Name>> => {
  const fields = rows.map(([field, offset, size]) => ({ field, offset, size })).sort((a, b) => a.offset - b.offset)
  let end = 0
  for (const { field, offset, size } of fields) {
    if (offset < end || size <= 0 || offset + size > PAGE_SIZE) {
      throw new Error(`layout: ${field} at 0x${offset.toString(16)} overlaps its neighbour or leaves the page`)
    }
    end = offset + size
  }
  return fields
}

/** The offsets of a layout by field name, for code: `VMSA.rax` is 0x1f8. */
export const offsetsOf = <Name extends string>(fields: ReadonlyArray<Field<Name>>): { readonly [K in Name]: number } =>
  Object.fromEntries(fields.map(({ field, offset }) => [field, offset])) as { [K in Name]: number }
