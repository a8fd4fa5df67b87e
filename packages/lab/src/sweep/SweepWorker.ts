// A thread that runs the points it is given, one after the other.
import { parentPort } from "node:worker_threads"
import { type Job, runPoint } from "./Point.ts"

const port = parentPort
if (port === null) throw new Error("this file is the program of a worker thread")
port.on("message", (job: Job) => port.postMessage(runPoint(job)))
