import { readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"
import { hasChromium, launchChromium } from "./browser.ts"
import { comparison, everyKind, scratch } from "./results.ts"

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

// What Chromium is asked is text: these tests know no types of a browser.
const SIZES = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
const UNNAMED = `[...document.querySelectorAll("svg")].filter((svg) => svg.getAttribute("aria-hidden") !== "true").filter((svg) => {
  const ids = (svg.getAttribute("aria-labelledby") ?? "").split(" ")
  return svg.getAttribute("role") !== "img" || ids.length !== 2 || ids.some((id) => !document.getElementById(id)?.textContent)
}).length`
const COLOURS = `(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))`

interface Seen {
  readonly page: Page
  readonly trouble: Array<string>
}

if (!hasChromium) process.stderr.write("no chromium: the tests of the report in a browser are left out\n")

describe.skipIf(!hasChromium)("a report in Chromium", () => {
  const { path, remove } = scratch()
  let browser: Browser
  let url: string

  beforeAll(async () => {
    const json = await comparison()
    const files = everyKind(path, json)
    const { code, err } = await vmplLab(["report", ...files, "-o", path("report.html")])
    expect([code, err]).toEqual([0, ""])
    url = pathToFileURL(path("report.html")).href
    browser = await launchChromium()
  }, 120_000)

  afterAll(async () => {
    await browser?.close()
    remove()
  })

  const open = async (width: number, colorScheme: "light" | "dark", at = url, bypassCSP = false): Promise<Seen> => {
    const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme, bypassCSP })
    const trouble: Array<string> = []
    page.on("console", (message) => trouble.push(message.text()))
    page.on("pageerror", (error) => trouble.push(error.message))
    page.on("dialog", (dialog) => trouble.push(dialog.message()))
    page.on("request", (request) => {
      if (request.url() !== at && !request.url().startsWith("data:")) trouble.push(`asks for ${request.url()}`)
    })
    await page.goto(at)
    return { page, trouble }
  }

  it.each([
    [1200, "light"],
    [1200, "dark"],
    [400, "light"],
    [400, "dark"]
  ] as const)(
    "renders at %d pixels in %s without a word on the console or a request, and without scrolling sideways",
    async (width, scheme) => {
      const { page, trouble } = await open(width, scheme)
      expect(trouble).toEqual([])
      const [content, window] = await page.evaluate<[number, number]>(SIZES)
      expect(content).toBeLessThanOrEqual(window)
      expect(await page.locator("figure svg:visible[role=img]").count()).toBeGreaterThan(15)
      await page.close()
    }
  )

  it.each(["light", "dark"] as const)("has no serious finding of axe in %s, contrast included", async (scheme) => {
    const { page } = await open(1200, scheme, url, true)
    await page.addScriptTag({ content: axe })
    const found = await page.evaluate<ReadonlyArray<string>>(
      `axe.run().then(({ violations }) => violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id }) => id))`
    )
    const passed = await page.evaluate<ReadonlyArray<string>>(
      "axe.run().then(({ passes }) => passes.map(({ id }) => id))"
    )
    expect(found).toEqual([])
    expect(passed).toContain("color-contrast")
    await page.close()
  })

  it("gives every picture a name and a description, and its data as a table", async () => {
    const { page } = await open(1200, "light")
    expect(await page.evaluate<number>(UNNAMED)).toBe(0)
    const figures = await page.locator("figure").count()
    expect(await page.locator("figure details table").count()).toBe(figures)
    await page.close()
  })

  it("has other colours in the dark", async () => {
    const [light, dark] = await Promise.all([open(800, "light"), open(800, "dark")])
    const [ink, paper] = await light.page.evaluate<[string, string]>(COLOURS)
    const [darkInk, darkPaper] = await dark.page.evaluate<[string, string]>(COLOURS)
    expect(darkInk).not.toBe(ink)
    expect(darkPaper).not.toBe(paper)
    await Promise.all([light.page.close(), dark.page.close()])
  })

  it("can be used from the keyboard: the first stop skips to the content, tables and details can be reached", async () => {
    const { page } = await open(400, "light")
    await page.keyboard.press("Tab")
    expect(await page.evaluate<string>("document.activeElement.className")).toBe("skip")
    const stops = new Set<string>()
    for (let i = 0; i < 14; i++) {
      await page.keyboard.press("Tab")
      stops.add(await page.evaluate<string>("document.activeElement.className || document.activeElement.localName"))
    }
    expect([...stops]).toEqual(expect.arrayContaining(["a", "scroll", "summary"]))
    await page.close()
  })

  it("runs nothing that a result says", async () => {
    const attack = `"><script>alert(1)</script><img src=x onerror=alert(2)></title></style>`
    const json = JSON.parse(readFileSync(path("rich.json"), "utf8"))
    for (const key of ["scenario", "profile", "commit", "machine", "launchDigest"]) json[key] = attack
    for (const result of json.results) {
      result.strategy = attack
      result.operation = attack
      for (const row of result.breakdown) row.primitive = row.source = attack
    }
    for (const one of json.timeline) {
      one.strategy = attack
      for (const step of one.steps) step.label = step.thread = attack
    }
    json[attack] = [{ [attack]: attack }]
    writeFileSync(path("attack.json"), JSON.stringify(json))
    expect((await vmplLab(["report", path("attack.json"), "-o", path("attack.html")])).code).toBe(0)
    const at = pathToFileURL(path("attack.html")).href
    // Even if the page's own policy did not hold.
    for (const bypass of [false, true]) {
      const { page, trouble } = await open(800, "light", at, bypass)
      expect(trouble).toEqual([])
      expect(await page.locator("script, img, iframe, object").count()).toBe(0)
      expect(await page.locator("h2").first().textContent()).toContain(attack)
      await page.close()
    }
  })
})
