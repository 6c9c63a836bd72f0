# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of network cards, measured by iperf3 between two guests on a bridge, with frames of 9000 bytes."""
import os
import shutil
import subprocess

import pytest

from test_net import lan  # noqa: F401
from tools import disk

pytestmark = pytest.mark.skipif(not shutil.which("iperf3"), reason="iperf3 is not installed")
SERVER = "say listening; iperf3 -s -p 5201 --one-off >/dev/null 2>&1; iperf3 -s -p 5201 --one-off >/dev/null 2>&1\n"
CLIENT = """ping -c 1 -s 8900 -W 5 10.9.0.1 >/dev/null && say ping
for way in '' -R; do
	for try in 1 2 3 4 5 6; do # the server may not listen yet, or not again
		iperf3 -c 10.9.0.1 -p 5201 -t 3 -O 1 -J $way >/tmp/j 2>&1 && break
		sleep 1
	done
	say "rate$way $(sed -n '/"sum_received"/,/}/ s/.*"bits_per_second":[[:space:]]*\\([0-9]*\\).*/\\1/p' /tmp/j)"
done
"""


@pytest.mark.parametrize("limits,sent,received", [
    ("", None, None),
    (",outbound=2048:0:256,inbound=4096:0:256", 2048, 4096),
    (",queues=2,outbound=1024:8192:128", 1024, None),
], ids=["none", "both", "queues"])
def test_two_guests_on_a_bridge(guest, lan, scratch, limits, sent, received):  # noqa: F811
    """KiB a second: what the limited guest sends, and what reaches it."""
    if sent is None or received is None:
        if not os.environ.get("KEEL_LONG"):
            pytest.skip("one of three takes long enough: KEEL_LONG=1 runs all")
    one = guest("--memory", "384M", "--disk", disk(scratch / "one", ["iperf3"], SERVER), "--net",
                "tap,br=br0,ifname=one,mac=52:54:00:00:00:01", run="tools", append="keel.ip=10.9.0.1", prefix=lan)
    one.expect("listening")
    two = guest("--memory", "384M", "--disk", disk(scratch / "two", ["iperf3"], CLIENT), "--net",
                f"tap,br=br0,ifname=two,mac=52:54:00:00:00:02{limits}", run="tools", append="keel.ip=10.9.0.2", prefix=lan)
    two.expect("ping")
    for word, want in (("rate", sent), ("rate-R", received)):
        rate = int(two.expect(word)) / 8 / 1024
        if want:
            assert want * 0.75 < rate < want * 1.1, (word, rate)
        else:
            assert rate > 10_000, (word, rate)
    assert two.wait() == 0


def test_refusals(build, scratch):
    for setting, word in (("inbound=x", "AVERAGE"), ("outbound=0:5", "average"), ("inbound=5:1", "peak must not be below")):
        done = subprocess.run([build / "bin/keel", "run", "--kernel", build / "guest/vmlinuz", "--net", f"user,{setting}"],
                              capture_output=True, text=True, timeout=30)
        assert done.returncode and word in done.stderr and "--net" in done.stderr, done.stderr
