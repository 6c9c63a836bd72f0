# SPDX-License-Identifier: GPL-2.0-or-later
"""A tour of stock virsh: every command with what it has to say. What is refused as not supported is in docs/libvirt.md."""
import json
import os
import re
import shlex
import shutil
import subprocess
import time

import pytest

from daemon import BUILD, LIMIT, TOP, Keeld, domain_xml

if not shutil.which("virsh"):
    pytest.skip("the package libvirt-clients is not installed", allow_module_level=True)

# "+ COMMAND" succeeds, "- COMMAND" fails; "=> EXPRESSION": what its output or message has. DIR is a directory with the
# files named; "wait TEXT": until the console says it.
TOUR = r"""
+ version --daemon => Running against daemon: 9.0.0
+ uri => qemu:///
+ hostname
+ capabilities => <arch>x86_64</arch>
+ domcapabilities => <domain>
+ domcapabilities --virttype qemu --machine q35 => pc-q35
- domcapabilities --virttype xen
+ cpu-models x86_64 => x86-64-v2
+ freecell --all => Total
+ freepages --all => 4KiB
+ nodeinfo => CPU model: +x86_64
+ nodecpumap => CPUs online
+ nodecpustats => idle:
+ nodecpustats --cpu 0 => idle:
- nodecpustats --cpu 9999 => Invalid cpuNum
+ nodememstats => total +:
+ nodememstats --cell 0 => free
+ maxvcpus => 255
+ maxvcpus kvm => 255
- maxvcpus xen => unknown type 'xen'
+ sysinfo => <sysinfo type='smbios'>
+ define DIR/g.xml => Domain 'g' defined
+ define --validate DIR/t.xml => Domain 't' defined
- define DIR/a.img
- define DIR/bad.xml => unsupported configuration|XML error
+ list --all => (?s) - +g +shut off.* - +t +shut off
+ list --all --uuid --name
+ list --title --all => Title
+ list --inactive --name => g
+ list --all --state-running
+ list --all --state-shutoff => g
+ list --all --persistent --with-snapshot
+ list --all --no-autostart --without-managed-save => g
+ list --all --transient
+ domid g => -
+ domuuid g => .{8}-.{4}
+ domstate --reason g => shut off \(unknown\)
+ dominfo g => (?s)Max memory: +131072 KiB.*Persistent: +yes.*Autostart: +disable
+ dumpxml g --inactive => pc-q35-7.2
+ dumpxml g --security-info
+ dumpxml g --migratable
+ dumpxml g --update-cpu
+ domblklist g --details => file +disk +vda
+ domiflist g => MAC
+ domblkinfo g vda => Capacity: +16777216
- domblkinfo g vdz => invalid path
- domblkstat g vda => domain is not running
+ vcpucount g => maximum +config +2
+ vcpuinfo g => VCPU: +1
+ vcpupin g => CPU Affinity
+ emulatorpin g
+ iothreadinfo g => No IOThreads found
+ desc g --title --config --new-desc 'a title' => title updated
+ desc g --title => a title
+ desc g --config --new-desc 'longer text' => description updated
+ desc g => longer text
+ metadata g http://x/ --config --key x --set "<a b='c'/>" => modified
+ metadata g http://x/ --config => b=
+ metadata g http://x/ --config --remove => removed
- metadata g http://x/ => Requested metadata element is not present
+ autostart g => marked as autostarted
+ list --autostart --all => g
+ autostart --disable g => unmarked
+ setmaxmem g 200M --config
+ setmem g 150M --config
+ dominfo g => (?s)Max memory: +204800 KiB.*Used memory: +153600
- setmem g 300M --config => cannot set memory higher than max memory
+ setmaxmem g 128M --config
- dommemstat g => domain is not running
+ setvcpus g 3 --maximum --config
+ vcpucount g --maximum --config => 3
+ setvcpus g 2 --maximum --config
- setvcpus g 9 --config => greater than max allowable
+ vcpupin g 0 0 --config
+ vcpupin g => 0 +0\n
+ emulatorpin g 0 --config
+ attach-device g DIR/nic.xml --config => Device attached
+ domiflist g => user +- +virtio +52:54:00:11:22:33
+ domif-getlink g 52:54:00:11:22:33 --config => up
+ domif-setlink g 52:54:00:11:22:33 down --config
+ domif-getlink g 52:54:00:11:22:33 --config => down
+ detach-interface g user --mac 52:54:00:11:22:33 --config
+ attach-disk g DIR/b.img vdb --config
- attach-disk g DIR/b.img vdb --config => target vdb already exists
+ detach-disk g vdb --config
+ update-device g DIR/disk0.xml --config
+ set-lifecycle-action g crash restart --config
+ domrename t tt => renamed
- domrename g tt => already exists
- start nothing => failed to get domain 'nothing'
+ start g --paused => Domain 'g' started
+ domstate --reason g => paused \(user\)
+ resume g
wait KEEL wrote
- start g => already active
+ domstate --reason g => running
+ list => 1 +g +running
+ domid g => 1
+ domname 1 => g
+ dumpxml g => <domain type='qemu' id='1'>
+ vcpucount g => current +live +2
+ vcpuinfo g => State: +running
+ vcpuinfo g --pretty
+ vcpupin g 1 0
+ vcpupin g 1 => 1 +0
- vcpupin g 7 0
+ cpu-stats g --total => cpu_time
+ dommemstat g => (?s)actual 131072.*rss \d+
+ setmem g 120M --live
- setmaxmem g 300M --live => cannot resize the maximum memory on an active domain
- setvcpus g 1 --live => cannot be changed
+ domblkstat g vda --human => number of bytes written: +1048576
+ domblkstat g => wr_bytes 1048576
+ domblkinfo g vda --human
+ domblkerror g => No errors found
+ domstats g => (?s)state.state=1.*block.0.wr.bytes=1048576
+ domstats --state --cpu-total --balloon --vcpu --interface --block --raw => vcpu.1.state=1
+ domstats --list-active --state => state.state
- domstats --enforce --dirtyrate => not supported
+ domcontrol g => ok
+ domjobinfo g => None
- domjobabort g => no job is active
+ attach-device g DIR/nic.xml --live
+ domif-setlink g 52:54:00:11:22:33 down
+ domif-getlink g 52:54:00:11:22:33 => down
+ domifaddr g
- domifstat g 52:54:00:11:22:33
+ attach-disk g DIR/b.img vdb --live
+ domblklist g => vdb
+ blockresize g vdb 32M => resized
+ domblkinfo g vdb => Capacity: +33554432
+ qemu-monitor-command g '{"execute":"query-status"}' --pretty => "status": "running"
+ qemu-monitor-command g --hmp 'info registers' => RIP=
+ dump g DIR/core --memory-only => dumped to
- dump g DIR/core => memory-only
+ blkdeviotune g vda --total-iops-sec 100000
+ blkdeviotune g vda => total_iops_sec : 100000
- blkdeviotune g vda --total-iops-sec 5 --read-iops-sec 5 => cannot be set at the same time
+ inject-nmi g
- qemu-agent-command g x => QEMU guest agent is not configured
+ ttyconsole g => /dev/pts/
- domtime g => QEMU guest agent is not configured
- send-key g KEY_A => no keyboard
- screenshot g => no display
+ snapshot-list g
- snapshot-current g
+ checkpoint-list g
+ managedsave-remove g => removal skipped
- guestinfo g => agent
- domfsinfo g => agent
- domhostname g => agent
- domdisplay g
- vncdisplay g
- dompmsuspend g mem => agent
- set-user-password g root x => agent
- domfsfreeze g => agent
- domfstrim g => agent
+ domlaunchsecinfo g
+ managedsave g => saved
+ list --all --managed-save => g +saved
+ managedsave-dumpxml g => <domain type='qemu'>
- undefine g => managed save image exists
+ start g => started
+ save g DIR/save => saved to
- save-image-dumpxml DIR/a.img
+ save-image-dumpxml DIR/save => <name>g</name>
+ restore DIR/save => restored
+ suspend g => suspended
+ domstate g --reason => paused \(user\)
+ resume g
+ reset g => was reset
+ reboot g => is being rebooted
+ shutdown g --mode acpi => is being shutdown
- shutdown g --mode agent => agent
+ destroy g => destroyed
- destroy g => domain is not running
+ domstate --reason g => shut off \(destroyed\)
+ create DIR/p.xml --paused => Domain 'p' created
- undefine p => cannot undefine transient domain
- autostart p => transient
+ dominfo p => Persistent: +no
+ destroy p --graceful
+ net-list --all
+ pool-list --all
- pool-info default => no storage pool with matching name
- vol-info /nothing => no storage vol with matching path
+ pool-define-as p dir --target DIR => Pool p defined
- pool-define-as q logical => unsupported configuration
- vol-list p => is not active
+ pool-build p
+ pool-start p => started
- pool-start p => already active
+ pool-autostart p
+ pool-list --all --details => p +running +yes +yes
+ pool-info p => Autostart: +yes
+ pool-dumpxml p => <pool type='dir'>
+ pool-uuid p
+ pool-refresh p
+ vol-list p --details => a.img +.*a.img +file +16.00 MiB
+ vol-info a.img p => Capacity: +16.00 MiB
+ vol-dumpxml a.img p => <format type='raw'/>
+ vol-path a.img p => a.img
+ vol-key a.img p
+ vol-pool DIR/a.img => p
- vol-info nothing p => no storage vol with matching
- vol-create-as p new 1M => not supported
- vol-delete a.img p => not supported
- pool-undefine p => still active
+ pool-destroy p => destroyed
+ pool-undefine p => undefined
+ iface-list --all
+ nodedev-list
+ nwfilter-list
+ nwfilter-binding-list
+ secret-list
- net-info default => no network with matching name
- nodedev-dumpxml computer => no node device|could not find matching device
- nwfilter-dumpxml f => no nwfilter with matching name
- secret-dumpxml 6695eb01-f6a4-8304-79aa-97f2502e193f => no secret with matching uuid
+ event --list => lifecycle
- event g lifecycle --timeout 1 => (?s)timed out.*events received: 0
- domxml-from-native qemu-argv DIR/nic.xml => not supported
- domxml-to-native qemu-argv DIR/nic.xml => not supported
- save g DIR/save => domain is not running
- dump g DIR/core => domain is not running
- managedsave g => domain is not running
- migrate g qemu+unix:///system?socket=/nothing
+ undefine tt => has been undefined
+ undefine g --nvram --managed-save --snapshots-metadata => has been undefined
- dominfo g => failed to get domain 'g'
+ list --all
"""


@pytest.fixture
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("t")
    k = Keeld(path / "root")
    k.scratch = path
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


def files(path):
    for name in ("a", "b"):
        with open(path / f"{name}.img", "wb") as f:
            f.truncate(16 << 20)
    disk = ("<disk type='file' device='disk'><driver name='qemu' type='raw'{}/><source file='" + str(path) + "/a.img'/>"
            "<target dev='vda' bus='virtio'/></disk>")
    ports = "<controller type='pci' index='0' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 5
    (path / "g.xml").write_text(domain_xml("g", run="hotplug", vcpus=2, devices=ports + disk.format("")))
    (path / "t.xml").write_text(domain_xml("t"))
    (path / "p.xml").write_text(domain_xml("p"))
    (path / "bad.xml").write_text(domain_xml("bad", devices="<graphics type='vnc'/>"))
    (path / "disk0.xml").write_text(disk.format(" cache='none'"))
    (path / "nic.xml").write_text("<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>")


def console_says(keeld, text):
    libvirt = pytest.importorskip("libvirt")
    with libvirt.open(keeld.uri) as c:
        stream = c.newStream()
        c.lookupByName("g").openConsole(None, stream, 0)
        seen, end = b"", time.time() + LIMIT
        while text.encode() not in seen:
            assert time.time() < end, seen
            seen += stream.recv(4096)
        stream.abort()


def test_tour(keeld):
    files(keeld.scratch)
    wrong, unsupported, done = [], set(), 0
    for line in TOUR.strip().splitlines():
        if line.startswith("wait "):
            console_says(keeld, line[5:])
            continue
        sign, rest = line[0], line[2:]
        command, _, wanted = rest.partition(" => ")
        argv = shlex.split(command.replace("DIR", str(keeld.scratch)))
        r = keeld.virsh(*argv)
        said = r.stdout + r.stderr
        done += 1
        if "this function is not supported by the connection driver" in said:
            unsupported.add(argv[0])
        if (r.returncode == 0) != (sign == "+") or (wanted and not re.search(wanted, said)):
            wrong.append((line, r.returncode, said))
    assert not wrong, "\n".join(map(str, wrong))
    assert done >= 120
    documented = set(re.findall(r"^\| `([a-z-]+)", (TOP / "docs/libvirt.md").read_text(), re.M))
    assert unsupported <= documented, unsupported - documented
    assert keeld.guests() == []


def test_virt_install_clone_and_xml(keeld):
    """A disk imported, its definition changed, cloned: the tools' own checks and XML, unmodified."""
    if not shutil.which("virt-clone"):
        pytest.skip("the package virtinst is not installed")
    files(keeld.scratch)

    def run(*argv):
        r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
        assert r.returncode == 0, (argv, r.stdout, r.stderr)
    run("virt-install", "--connect", keeld.uri, "--import", "--name", "vi", "--memory", "256", "--osinfo", "linux2022", "--disk",
        f"path={keeld.scratch}/a.img,format=raw", "--network", "user", "--graphics", "none", "--noautoconsole", "--virt-type", "qemu")
    assert keeld.ok("domstate", "vi").strip() == "running"
    assert "a.img" in keeld.ok("domblklist", "vi")
    run("virt-xml", "--connect", keeld.uri, "vi", "--edit", "--memory", "300")
    assert re.search(r"<memory unit='KiB'>307200<", keeld.ok("dumpxml", "--inactive", "vi"))
    keeld.ok("destroy", "vi")
    run("virt-clone", "--connect", keeld.uri, "-o", "vi", "-n", "twin", "--preserve-data", "-f", f"{keeld.scratch}/b.img")
    assert "b.img" in keeld.ok("domblklist", "twin")
    keeld.ok("start", "twin")
    keeld.ok("destroy", "twin")


def test_keel_speaks_as_virsh(keeld):
    """The verbs of keel say what virsh says."""
    files(keeld.scratch)
    env = dict(os.environ, KEEL_SOCKET=str(keeld.path))

    def keel(*argv):
        return subprocess.run([BUILD / "bin/keel", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, env=env)

    def same(*argv, undo=None):
        mine = keel(*argv)
        if undo:
            keeld.ok(*undo)
        theirs = keeld.virsh(*argv)
        assert mine.returncode == theirs.returncode and mine.stderr.strip() == theirs.stderr.strip()
        assert mine.stdout == theirs.stdout or (mine.returncode and mine.stdout.strip() == theirs.stdout.strip())
        return mine.stdout
    same("define", str(keeld.scratch / "t.xml"), undo=("undefine", "t"))
    same("list", "--all")
    same("start", "t", undo=("destroy", "t"))
    same("list")
    same("suspend", "t", undo=("resume", "t"))
    assert same("domstate", "t").strip() == "paused"
    same("resume", "1" if keeld.ok("domid", "t").strip() == "1" else "t", undo=("suspend", "t"))
    same("dumpxml", "t")
    same("start", "nothing")
    same("define", str(keeld.scratch / "bad.xml"))
    listed = json.loads(keel("list", "--json").stdout)
    assert [(x["name"], x["state"]) for x in listed] == [("t", "running")] and keel("list", "--name").stdout == "t\n\n"
    same("destroy", "t", undo=("start", "t"))
    same("undefine", "t", undo=("define", str(keeld.scratch / "t.xml")))
    assert keel("list", "--bogus").returncode == 1 and keel("start").returncode == 1
