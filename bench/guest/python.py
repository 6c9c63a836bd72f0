# SPDX-License-Identifier: GPL-2.0-or-later
"""python.py WHAT N: what interpreted programs do: floating point, integers and lists, objects and calls, JSON, regular
expressions. Prints a result that depends on all of it; the same for every CPU."""
import json
import re
import sys
from itertools import combinations
from math import sqrt


def nbody(steps):
    """A sun and planets on almost circular paths that attract each other; the energy stays almost the same."""
    bodies = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 40.0]]
    for i in range(1, 5):
        bodies.append([4.0 * i, 0.3, 0.1 * i, 0.0, sqrt(40.0 / (4.0 * i)), 0.01, 0.01 * i])
    pairs = list(combinations(bodies, 2))
    dt = 0.0005

    def energy():
        kinetic = sum(b[6] * (b[3] * b[3] + b[4] * b[4] + b[5] * b[5]) / 2 for b in bodies)
        return kinetic - sum(a[6] * b[6] / sqrt(sum((x - y) * (x - y) for x, y in zip(a[:3], b[:3]))) for a, b in pairs)

    for _ in range(steps):
        for a, b in pairs:
            dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
            square = dx * dx + dy * dy + dz * dz
            pull = dt / (square * sqrt(square))
            for i, d in enumerate((dx, dy, dz), 3):
                a[i] -= d * b[6] * pull
                b[i] += d * a[6] * pull
        for b in bodies:
            b[0] += dt * b[3]
            b[1] += dt * b[4]
            b[2] += dt * b[5]
    return f"{energy():.4f}"


def fannkuch(n):
    """The longest chain of prefix reversals that brings 1 to the front, over all permutations of n."""
    longest = checksum = index = 0
    deck, count = list(range(n)), [0] * n

    while True:
        hand, flips = deck[:], 0
        while hand[0]:
            k = hand[0] + 1
            hand[:k] = hand[k - 1::-1] if k == n else hand[:k][::-1]
            flips += 1
        longest = max(longest, flips)
        checksum += flips if index % 2 == 0 else -flips
        index += 1
        # the next permutation: rotate ever longer prefixes, as an odometer turns
        for r in range(1, n):
            deck[:r + 1] = deck[1:r + 1] + deck[:1]
            count[r] += 1
            if count[r] <= r:
                break
            count[r] = 0
        else:
            return f"{longest} {checksum}"


class Task:
    def __init__(self, name, priority):
        self.name, self.priority, self.inbox, self.done = name, priority, [], 0

    def ready(self):
        return bool(self.inbox)


class Worker(Task):
    def step(self, system):
        packet = self.inbox.pop(0)
        packet["data"] = [(x * 31 + self.priority) % 256 for x in packet["data"]]
        self.done += 1
        system.send(packet["next"], packet)


class Device(Task):
    def __init__(self, name, priority, latency):
        super().__init__(name, priority)
        self.latency, self.waiting = latency, 0

    def step(self, system):
        self.waiting += 1
        if self.waiting < self.latency:
            return
        self.waiting = 0
        packet = self.inbox.pop(0)
        self.done += 1
        system.send("worker%d" % (packet["data"][0] % 3), packet)


class System:
    """A scheduler that passes packets between workers and devices by priority."""

    def __init__(self):
        self.tasks = {}
        for i in range(3):
            self.add(Worker("worker%d" % i, 10 + i))
        for i in range(2):
            self.add(Device("device%d" % i, 20 + i, 2 + i))

    def add(self, task):
        self.tasks[task.name] = task

    def send(self, name, packet):
        packet["next"] = "device%d" % (sum(packet["data"]) % 2)
        self.tasks[name].inbox.append(packet)

    def run(self, steps):
        for i in range(6):
            self.send("device%d" % (i % 2), {"data": [i * 7, i, 3, 5], "next": None})
        for _ in range(steps):
            ready = [t for t in self.tasks.values() if t.ready()]
            max(ready, key=lambda t: (len(t.inbox), t.priority)).step(self)
        return " ".join(str(t.done) for t in self.tasks.values())


def objects(steps):
    return System().run(steps)


def jsons(n):
    data = {"name": "bench", "list": [{"id": i, "text": "näme \"%d\"" % i, "values": [i * 0.5, None, i % 2 == 0, -i]} for i in range(200)],
            "deep": {str(i): {"a": [i] * 5} for i in range(50)}}
    size = 0
    for i in range(n):
        text = json.dumps(data, sort_keys=i % 2 == 0, indent=2 if i % 8 == 0 else None)
        data = json.loads(text)
        size += len(text)
    return size


def regex(n):
    words = ["alpha", "beta-%d", "10.%d.0.1", "user%d@example.org", "<a href='x%d'>", "2026-11-%02d", "zz", "GET /p/%d HTTP/1.1"]
    text = " ".join((words[i % 8] % (i % 28) if "%" in words[i % 8] else words[i % 8]) for i in range(4000))
    patterns = [re.compile(p) for p in (r"\b(\d{1,3})\.(\d{1,3})\.\d+\.\d+\b", r"[\w.]+@[\w.]+\.org", r"<a\s+href='([^']*)'>",
                                        r"(\d{4})-(\d\d)-(\d\d)", r"(?:GET|POST) (\S+) HTTP/\d\.\d", r"(a|b)+.*?z{2}")]
    found = 0
    for _ in range(n):
        found += sum(len(p.findall(text)) for p in patterns) + len(re.sub(r"(\w+)-(\d+)", r"\2:\1", text))
    return found


print({"nbody": nbody, "fannkuch": fannkuch, "objects": objects, "json": jsons, "regex": regex}[sys.argv[1]](int(sys.argv[2])))
