#!/usr/bin/env node
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { EXIT, runCli } from "./Cli.ts"
import { watchOutput } from "./Output.ts"

watchOutput()

runCli(process.argv.slice(2)).pipe(
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    // Everything was written and waited for by now, so leaving at once cuts nothing off.
    teardown: (exit, leave) =>
      leave(exit._tag === "Success" && typeof exit.value === "number" ? exit.value : EXIT.INTERRUPTED)
  })
)
