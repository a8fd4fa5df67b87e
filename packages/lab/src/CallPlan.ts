import { CALL_KIND } from "@vmpl-lab/guest"
import { RandomStream } from "@vmpl-lab/sim"
import type { Scenario } from "./Scenario.ts"

/**
 * The calls of one vCPU, drawn by the scenario's weights from a stream of its own: the same under every strategy, and
 * untouched by the number of vCPUs.
 */
export const callPlan = (scenario: Scenario, seed: number, apicId: number): Uint8Array => {
  const { QUERY_PROTOCOL, PVALIDATE, REMAP_CA } = scenario.mix
  const total = QUERY_PROTOCOL + PVALIDATE + REMAP_CA
  const stream = new RandomStream(seed, `calls:${apicId}`)
  return Uint8Array.from({ length: scenario.calls }, () => {
    const draw = stream.int(0, total - 1)
    if (draw < QUERY_PROTOCOL) return CALL_KIND.QUERY_PROTOCOL
    return draw < QUERY_PROTOCOL + PVALIDATE ? CALL_KIND.PVALIDATE : CALL_KIND.REMAP_CA
  })
}
