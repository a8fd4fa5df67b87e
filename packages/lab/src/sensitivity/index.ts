export * from "./BreakEven.ts"
export * from "./BreakEvenPlan.ts"
export * from "./Evaluate.ts"
export * from "./Knobs.ts"
export { type Prices, withPrices } from "./Prices.ts"
export {
  type Baseline,
  type Effect as KnobEnds,
  type KnobEffect,
  type PairEffect,
  type Reversal,
  type Sensitivity,
  type SensitivityInput,
  sensitivity
} from "./Sensitivity.ts"
