"""The hand-off model of ../cases/HandOff.ts for SimPy 2, Debian's python3-simpy: handoff.py <hand-offs of each ring>."""
import hashlib
import json
import sys
import time

from SimPy.Simulation import Process, Resource, Simulation, hold, passivate, release, request

CORES, RINGS, RING_SIZE = 8, 6, 5
HAND_OFF_NS = 1201
WORK_NS = [1009, 1511, 2003, 2503, 3001]
GREATEST_START_NS = 97


class Thread(Process):
    """Sleeps until woken, takes its core, works, wakes the next thread of its ring, gives its core back."""

    def __init__(self, sim, core, work, ring):
        Process.__init__(self, sim=sim)
        self.core, self.work, self.ring = core, work, ring
        self.next = None
        self.ended = 0

    def run(self, starts):
        ring = self.ring
        while True:
            if starts:
                yield request, self, self.core
                starts = False
            else:
                yield passivate, self
                yield request, self, self.core
                yield hold, self, HAND_OFF_NS
            yield hold, self, self.work
            self.ended = self.sim.now()
            ring["left"] -= 1
            if ring["left"] >= 0:
                self.sim.reactivate(self.next)
            yield release, self, self.core


def run(hand_offs):
    sim = Simulation()
    sim.initialize()
    cores = [Resource(capacity=1, sim=sim) for _ in range(CORES)]
    threads = []
    for r in range(RINGS):
        ring = {"left": hand_offs}
        mine = [Thread(sim, cores[(r + 3 * i) % CORES], WORK_NS[(r + i) % len(WORK_NS)], ring) for i in range(RING_SIZE)]
        for i, thread in enumerate(mine):
            thread.next = mine[(i + 1) % RING_SIZE]
            sim.activate(thread, thread.run(i == 0), at=r * GREATEST_START_NS if i == 0 else 0)
        threads += mine
    begin = time.perf_counter()
    sim.simulate(until=1e18)
    return time.perf_counter() - begin, ";".join("%d" % thread.ended for thread in threads)


hand_offs = int(sys.argv[1])
run(hand_offs // 10)
seconds, ends = run(hand_offs)
values = {"handOffsPerSecond": RINGS * hand_offs / seconds}
print(json.dumps({"values": values, "digest": hashlib.sha256(("%d:%s" % (RINGS * hand_offs, ends)).encode()).hexdigest()}))
