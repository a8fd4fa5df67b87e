import { defineConfig } from "vitest/config"

// Tests run on the sources: the "source" condition of each package's exports spares a build.
export default defineConfig({
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    include: ["test/**/*.test.ts", "packages/*/test/**/*.test.ts"],
    testTimeout: 60_000
  }
})
