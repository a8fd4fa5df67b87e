// Last line of `npm test`: the outcome of the whole run in one line, after vitest's own report and its hints.

/** Prints `Tests: N passed, N failed, N skipped` when all test files have ended. */
export default class TestSummary {
  onTestRunEnd(modules, errors) {
    const tests = { passed: 0, failed: errors.length, skipped: 0 }
    for (const module of modules) {
      for (const test of module.children.allTests()) tests[test.result().state] += 1
      // A file that did not load has no tests to count.
      if (module.state() === "failed" && module.children.size === 0) tests.failed += 1
    }
    const line = `Tests: ${tests.passed} passed, ${tests.failed} failed, ${tests.skipped} skipped`
    // After everything that other reporters write.
    process.once("exit", () => process.stdout.write(`${line}\n`))
  }
}
