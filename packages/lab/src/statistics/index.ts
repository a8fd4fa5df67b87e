export * from "./Paired.ts"
export * from "./PairedRuns.ts"
export * from "./Quantile.ts"
export * from "./QuantileInterval.ts"
