import { MIGRATION_RESULT, SVSM_RESULT } from "@vmpl-lab/guest"

const NAMES = new Map<number, string>(
  [SVSM_RESULT, MIGRATION_RESULT].flatMap((results) =>
    Object.entries(results).map(([name, code]): readonly [number, string] => [code, name])
  )
)

/** A result of the migration service by its name. */
export const migrationResultName = (result: number): string => NAMES.get(result) ?? `0x${result.toString(16)}`
