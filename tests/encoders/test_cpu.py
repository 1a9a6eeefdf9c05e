"""How OpenMP's threads wait and how many there are, and what control groups allow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encoders import cpu
from encoders.cpu import available_cpus, configure_openmp, cpu_quota

ROOT = Path(__file__).parents[2]
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
CHOSEN = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "800"}  # where nobody has chosen anything
NAMES = (*CHOICES, "OMP_NUM_THREADS")
V2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def bare(monkeypatch):
    """As in a process where nobody has chosen anything, and torch isn't loaded."""
    for name in NAMES:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: None)


def chosen():
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def fake(root, *, groups, mounts, files):
    """A root folder with the files that tell of control groups."""
    files = {
        "proc/self/cgroup": "\n".join(groups) + "\n",
        "proc/self/mountinfo": "\n".join(["22 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]) + "\n",
        **{f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class TestEnvironment:
    def test_threads_sleep_while_they_wait(self, bare):
        configure_openmp()
        assert chosen() == CHOSEN

    @pytest.mark.parametrize(
        "name, value",
        [
            ("OMP_WAIT_POLICY", "ACTIVE"),
            ("GOMP_SPINCOUNT", "300000"),
            ("KMP_BLOCKTIME", "200"),
            ("KMP_LIBRARY", "turnaround"),
            ("OMP_WAIT_POLICY", ""),
        ],
    )
    def test_who_has_chosen_how_they_wait_is_left_alone(self, bare, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        configure_openmp()
        assert chosen() == {name: value}

    def test_who_has_loaded_torch_is_left_alone(self, bare, monkeypatch):
        monkeypatch.setattr(cpu, "cpu_quota", lambda: 0.5)
        monkeypatch.setitem(sys.modules, "torch", os)
        configure_openmp()
        assert chosen() == {}

    @pytest.mark.parametrize("quota, threads", [(2.0, "2"), (2.9, "2"), (0.3, "1")])
    def test_a_quota_bounds_the_threads(self, bare, monkeypatch, quota, threads):
        monkeypatch.setattr(cpu, "_cpus_of_affinity", lambda: 4)
        monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
        configure_openmp()
        assert chosen()["OMP_NUM_THREADS"] == threads
        assert available_cpus() == int(threads)

    @pytest.mark.parametrize("quota", [4.0, 64.0, None])
    def test_without_a_tighter_quota_openmp_counts_itself(self, bare, monkeypatch, quota):
        monkeypatch.setattr(cpu, "_cpus_of_affinity", lambda: 4)
        monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
        configure_openmp()
        assert "OMP_NUM_THREADS" not in chosen()
        assert available_cpus() == 4

    def test_a_chosen_number_of_threads_stays(self, bare, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        monkeypatch.setattr(cpu, "cpu_quota", lambda: 1.0)
        configure_openmp()
        assert chosen()["OMP_NUM_THREADS"] == "3"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds processes")
def test_a_process_bound_to_one_cpu_has_one(bare):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cpus() == len(before)


class TestQuota:
    @pytest.mark.parametrize(
        "limit, cpus",
        [
            ("max 100000", None),
            ("200000 100000", 2.0),
            ("150000 100000", 1.5),
            ("5000 10000", 0.5),
            ("0 100000", None),
            ("100000 0", None),
            ("", None),
            ("many 100000", None),
            ("100000", None),
        ],
    )
    def test_of_version_2(self, tmp_path, limit, cpus):
        root = fake(tmp_path, groups=["0::/"], mounts=[V2], files={"cpu.max": limit})
        assert cpu_quota(root) == cpus

    def test_the_tightest_of_nested_groups_counts(self, tmp_path):
        files = {
            "cpu.max": "800000 100000",
            "kube/cpu.max": "max 100000",
            "kube/pod/cpu.max": "250000 100000",
            "kube/pod/box/cpu.max": "300000 100000",
            "kube/other/cpu.max": "100000 100000",  # not ours
        }
        root = fake(tmp_path, groups=["0::/kube/pod/box"], mounts=[V2], files=files)
        assert cpu_quota(root) == 2.5

    @pytest.mark.parametrize(
        "quota, period, cpus",
        [
            ("-1", "100000", None),
            ("400000", "100000", 4.0),
            ("50000", "100000", 0.5),
            ("400000", "", None),
        ],
    )
    @pytest.mark.parametrize("top", ["/", "/docker/abc"])
    def test_of_version_1(self, tmp_path, quota, period, cpus, top):
        """Seen with the group's path from the host, or from the top of what is mounted."""
        folder = "cpu,cpuacct/" + ("docker/abc/" if top == "/" else "")
        root = fake(
            tmp_path,
            groups=["9:cpuset:/docker/abc", "4:cpu,cpuacct:/docker/abc", "1:name=systemd:/init"],
            mounts=[V1.format(top=top)],
            files={f"{folder}cpu.cfs_quota_us": quota, f"{folder}cpu.cfs_period_us": period},
        )
        assert cpu_quota(root) == cpus

    def test_of_nested_groups_of_version_1(self, tmp_path):
        files = {}
        for folder, quota in (("", "-1"), ("batch/", "150000"), ("batch/job/", "-1")):
            files[f"cpu,cpuacct/{folder}cpu.cfs_quota_us"] = quota
            files[f"cpu,cpuacct/{folder}cpu.cfs_period_us"] = "100000"
        root = fake(
            tmp_path, groups=["4:cpu,cpuacct:/batch/job"], mounts=[V1.format(top="/")], files=files
        )
        assert cpu_quota(root) == 1.5

    def test_of_both_versions_side_by_side(self, tmp_path):
        """The second is mounted without a controller of CPUs, as systemd does."""
        root = fake(
            tmp_path,
            groups=["4:cpu,cpuacct:/job", "0::/user/1"],
            mounts=[V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), V1.format(top="/")],
            files={
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "unified/user/1/cgroup.procs": "1",
            },
        )
        assert cpu_quota(root) == 3.0

    @pytest.mark.parametrize("group", ["/../../elsewhere", "/gone"])
    def test_a_group_that_cannot_be_seen_leaves_the_outermost(self, tmp_path, group):
        root = fake(
            tmp_path, groups=[f"0::{group}"], mounts=[V2], files={"cpu.max": "200000 100000"}
        )
        assert cpu_quota(root) == 2.0

    @pytest.mark.parametrize(
        "groups, mounts",
        [
            ([], []),
            (["0::/"], []),
            ([], [V2]),
            (["nonsense"], ["nonsense - cgroup2"]),
            (["7:memory:/"], [V1.format(top="/").replace("cpu,cpuacct", "memory")]),
        ],
    )
    def test_nothing_known_is_no_limit(self, tmp_path, groups, mounts):
        files = {"cpu.max": "100000 100000"} if not mounts else {}
        assert cpu_quota(fake(tmp_path, groups=groups, mounts=mounts, files=files)) is None

    def test_without_proc_there_is_no_limit(self, tmp_path):
        assert cpu_quota(tmp_path) is None


# Three ways to torch, each in a fork of an interpreter without it, which ends when torch is wanted.
WATCH = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
names, ways = json.loads(sys.argv[2]), json.loads(sys.argv[3])
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            found = {name: os.environ[name] for name in names if name in os.environ}
            print(json.dumps([way, found]), flush=True)
            os._exit(0)
for way, code in ways.items():
    if os.fork() == 0:
        sys.meta_path.insert(0, Watch())
        exec(code)
        os._exit(1)
    os.wait()
"""
WAYS = {
    "library": "import aigveval; import torch",
    "load": "import aigveval; aigveval.load('lite')",
    "encoders": "import encoders; print('light'); encoders.create_encoder('motion_flow')",
    "command line": "from aigveval.cli.app import main; sys.argv[1:] = ['score', 'a.mp4']; main()",
}


def environment(own):
    return {**{name: os.environ[name] for name in os.environ if name not in NAMES}, **own}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks before torch is loaded")
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"},
        {"GOMP_SPINCOUNT": "7"},
    ],
    ids=" ".join,
)
def test_it_is_said_before_torch_is_loaded(tmp_path, own):
    (tmp_path / "a.mp4").touch()
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(ROOT), json.dumps(NAMES), json.dumps(WAYS)],
        cwd=tmp_path,
        env=environment(own),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "light" in done.stdout.splitlines()
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert list(found) == list(WAYS), done.stderr
    expected = own or CHOSEN
    for way, said in found.items():
        # The machine of this test may have a quota.
        assert {k: v for k, v in said.items() if k in CHOICES or k in own} == expected, way


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
def test_openmp_heeds_it(tmp_path):
    """What libgomp itself says of its settings when torch loads it, and torch of its threads."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import aigveval, torch; "
        "print(torch.get_num_threads()); torch.set_num_threads(3); "
        "from encoders import create_encoder; create_encoder('motion_flow'); "
        "print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment({"OMP_DISPLAY_ENV": "verbose"}),
    )
    assert done.returncode == 0, done.stderr
    threads, own = done.stdout.split()
    assert 1 <= int(threads) <= available_cpus() and own == "3"
    for name, value in CHOSEN.items():
        assert f"{name} = '{value}'" in done.stderr


def test_a_host_that_has_torch_keeps_its_threads(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        configure_openmp()
        assert torch.get_num_threads() == before + 1 and chosen() == {}
    finally:
        torch.set_num_threads(before)
