import { readFileSync } from "node:fs"
import type { MeasureOptions, RecordedSession } from "@vmpl-lab/kvm-live"

/** The recorded session, and how much of everything it holds. */
export const RECORDED_FILE = new URL("../recorded/session.json", import.meta.url)

export const TEST_OPTIONS: MeasureOptions = { rounds: 2, share: 0.005, onProgress: () => {} }

export const recordedSession = (): RecordedSession => JSON.parse(readFileSync(RECORDED_FILE, "utf8"))
