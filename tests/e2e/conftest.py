# SPDX-License-Identifier: GPL-2.0-or-later
import os
import pathlib
import shutil

import pytest

from keel import Guest

TOP = pathlib.Path(__file__).resolve().parents[2]
os.environ["PATH"] += ":/usr/sbin:/sbin"  # mkfs, e2fsck: for users without root


@pytest.fixture(scope="session")
def build():
    directory = pathlib.Path(os.environ.get("KEEL_BUILD", TOP / "build")).resolve()
    assert (directory / "bin" / "keel").exists(), f"no programs in {directory}/bin: run make first"
    assert (directory / "guest" / "vmlinuz").exists(), f"no guest in {directory}/guest: run make guest first"
    return directory


@pytest.fixture
def scratch(tmp_path_factory):
    """A directory with a short path (socket paths have at most 107 bytes), removed afterwards."""
    path = tmp_path_factory.mktemp("k")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def guest(build, scratch):
    """A function that starts a guest; all are ended with the test."""
    guests = []

    def start(*args, **kw):
        guests.append(Guest(build, scratch, *args, **kw))
        return guests[-1]

    yield start
    for g in guests:
        g.kill()
