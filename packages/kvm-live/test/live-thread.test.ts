import { expect, it } from "vitest"
import { linux } from "../src/os/Linux.ts"
import { liveThread } from "../src/thread/LiveThread.ts"
import type { TaskOrder } from "../src/thread/Protocol.ts"

/** From before the thread exists to after it has loaded everything. */
const DELAYS_MS = [0, 5, 20, 50, 100]

const NEVER_RUN: TaskOrder = { name: "portWrite", samples: 1, warmUp: 0, parameters: null }

it("a thread can be closed while it comes up: it is let up first, and nothing is run on it afterwards", async () => {
  await Promise.all(
    DELAYS_MS.map(async (ms) => {
      const thread = liveThread(linux(), false)
      await new Promise((resolve) => setTimeout(resolve, ms))
      await thread.close()
      await expect(thread.run(NEVER_RUN)).rejects.toThrow("a measuring thread has ended")
    })
  )
})
