/**
 * Records a short session on this machine's KVM, for tests where there is none:
 * `node --conditions=source packages/kvm-live/test/support/record.ts`.
 */
import { writeFileSync } from "node:fs"
import { CHOREOGRAPHIES, KVM_DEVICE, measure, runCases, Session } from "@vmpl-lab/kvm-live"
import { RECORDED_FILE, TEST_OPTIONS } from "./recorded.ts"

const session = Session.open(KVM_DEVICE, { record: true })
await measure(session, TEST_OPTIONS)
await runCases(session, CHOREOGRAPHIES, TEST_OPTIONS)
const { recorded } = session
await session.close()
writeFileSync(RECORDED_FILE, `${JSON.stringify(recorded)}\n`)
