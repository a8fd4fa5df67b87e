import { existsSync } from "node:fs"
import { type Browser, chromium } from "playwright-core"

/** Debian's package `chromium`. */
const CHROMIUM = "/usr/bin/chromium"

export const hasChromium = existsSync(CHROMIUM)

/** A browser without a window. Its own sandbox needs rights that a container does not give; it sees our own page only. */
export const launchChromium = (): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"], timeout: 60_000 })
