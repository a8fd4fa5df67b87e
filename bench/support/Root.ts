import { fileURLToPath } from "node:url"

/** The checkout, ending in a slash. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url))
