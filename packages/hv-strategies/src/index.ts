import { multiVmplVcpu } from "./MultiVmplVcpu.ts"
import type { Strategy } from "./Strategy.ts"
import { vcpuPerVmpl } from "./VcpuPerVmpl.ts"
import { vmPerVmpl } from "./VmPerVmpl.ts"

export { type Strategy, strategyName } from "./Strategy.ts"

/** Every strategy, in the order of tables. A new one is a file and a line here. */
export const STRATEGIES: ReadonlyArray<Strategy> = [multiVmplVcpu, vcpuPerVmpl, vmPerVmpl]
