"""One node of Slurm, and the sshd through which SkyPilot reaches it: munged, slurmctld, slurmd, sshd on loopback.

The node claims more than the machine has (256 CPUs, 1 TB, 64 A100), which Slurm believes with `config_overrides`; its
GPUs are aliases of /dev/null. Nothing of the system's own Slurm, munge or sshd is touched.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from services.connection.embedded import free_port
from services.machine.processes import end_tied, start_tied

NUM_GPUS = 64  # for eight runs at once
GPU_TYPE = "A100-80GB"
CLUSTER = "lab"  # what SkyPilot calls it: infra slurm/lab
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sshd", "rsync", "uv")
SBIN = "/usr/sbin:/sbin"
READY_S = 60.0

_SLURM_CONF = """
ClusterName={cluster}
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
PlugStackConfig=/dev/null
ReturnToService=2
KillWait=30
InactiveLimit=0
GresTypes=gpu
NodeName={host} NodeAddr={address} CPUs=256 RealMemory=1048576 Gres=gpu:{gpu}:{num_gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP OverSubscribe=NO
"""

_SSHD_CONF = """
Port {ssh_port}
ListenAddress 127.0.0.1
HostKey {root}/etc/host_key
PidFile {root}/sshd.pid
AuthorizedKeysFile {root}/etc/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
AllowUsers {user}
MaxSessions 200
MaxStartups 150:30:200
Subsystem sftp internal-sftp
"""

_CLIENT_CONF = """
Host {cluster}
    HostName 127.0.0.1
    Port {ssh_port}
    User {user}
    IdentityFile {root}/etc/client_key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
"""

# Read by login shells and by plain `ssh host command`: SkyPilot uses both.
_PROFILE = """
export SLURM_CONF={root}/etc/slurm.conf PATH={root}/bin:$PATH SKYPILOT_DISABLE_USAGE_COLLECTION=1
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
{registry}
"""

# SkyPilot's runtime on the node is a virtual environment that uv makes. It fetches uv with curl for each cluster anew,
# and uv would fetch a Python 3.10: we answer with the uv of PyPI, over the Python that is here.
_CURL = """#!/bin/sh
for word in "$@"; do case "$word" in
  https://astral.sh/uv/install.sh)
    echo 'mkdir -p "$UV_INSTALL_DIR" && cp {root}/bin/uv-here "$UV_INSTALL_DIR/uv"'; exit;;
  http://127.0.0.1*|http://localhost*) exec /usr/bin/curl "$@";;
esac; done
echo "no internet in the lab: curl $*" >&2
exit 6
"""

_UV = """#!/bin/bash
words=(); before=
for word in "$@"; do [ "$before" = --python ] && word={python}; words+=("$word"); before=$word; done
export UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR={root}/uv-cache
exec {root}/bin/uv-itself "${{words[@]}}"
"""


def missing() -> list[str]:
    """Programs that the lab needs and this machine lacks."""
    return [program for program in PROGRAMS if which(program) is None]


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:{SBIN}")


class SlurmNode:
    """Runs from the end of `__init__` to `stop`, or to the end of this process. `client_home` gets the way to it."""

    def __init__(self, root: Path, client_home: Path, python: str) -> None:
        self.root = root
        self.host = socket.gethostname().partition(".")[0]
        self.ports = {name: free_port() for name in ("ssh_port", "controller_port", "node_port")}
        self.user = f"sky{self.ports['ssh_port']}"  # a name of its own, so that two labs do not meet
        self._python = python
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("etc", "log", "state", "spool", "munge", "bin", "dev", "uv-cache"):
            (root / name).mkdir(mode=0o755)
        self.environment = {**os.environ, "SLURM_CONF": str(root / "etc/slurm.conf")}
        self._make_user()
        self._write("etc/slurm.conf", _SLURM_CONF)
        self._make_gpus()
        self._make_downloads()
        self._make_keys(client_home)
        self._start()

    # -- what tests ask ------------------------------------------------------------------------------------------

    def queue(self, name: str = "") -> list[str]:
        """Ids of the Slurm jobs that wait or run; with a name, those of SkyPilot's clusters that begin so."""
        rows = (line.split() for line in self._run("squeue", "-h", "-o", "%i %j").splitlines())
        return [job for job, of in rows if of.startswith(name)]

    def runs(self, pattern: str) -> bool:
        """Whether a process runs on the node in whose command this pattern is found."""
        return bool(self._run("pgrep", "--full", "--uid", self.user, "--", pattern, check=False))

    def preempt(self, job: str) -> None:
        """Take the machines of a Slurm job away, as a cloud does with spot instances."""
        self._run("scancel", job)

    # -- what it is made of --------------------------------------------------------------------------------------

    def _make_user(self) -> None:
        self.home = self.root / "node-home"
        run("useradd", "--create-home", "--home-dir", self.home, "--shell", "/bin/bash", self.user)
        run("passwd", "--delete", self.user)  # sshd without PAM refuses an account that is locked
        registry = "\n".join(
            f"export {name}={value}"
            for name, value in os.environ.items()
            if name.startswith(("UV_", "PIP_")) and "INDEX" in name
        )
        self._write("node-home/.bashrc", _PROFILE, registry=registry)
        (self.home / ".profile").write_text(". ~/.bashrc\n")
        for path in (self.home / ".bashrc", self.home / ".profile", self.root / "uv-cache"):
            shutil.chown(path, self.user)

    def _make_gpus(self) -> None:
        for number in range(NUM_GPUS):  # without a device file slurmd says that it has none
            os.mknod(self.root / f"dev/nvidia{number}", 0o020666, os.makedev(1, 3))
        line = "NodeName={host} Name=gpu Type={gpu} File={root}/dev/nvidia[0-{last}]\n"
        self._write("etc/gres.conf", line, last=NUM_GPUS - 1)

    def _make_downloads(self) -> None:
        shutil.copy(str(which("uv")), self.root / "bin/uv-itself")
        self._write("bin/uv-here", _UV, python=self._python)
        self._write("bin/curl", _CURL)
        for path in (self.root / "bin").iterdir():
            path.chmod(0o755)

    def _make_keys(self, client_home: Path) -> None:
        for name in ("host_key", "client_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / "etc" / name)
        shutil.copy(self.root / "etc/client_key.pub", self.root / "etc/authorized_keys")
        self._write("etc/sshd_config", _SSHD_CONF)
        (client_home / ".slurm").mkdir()
        (client_home / ".slurm/config").write_text(_CLIENT_CONF.format(**self._names()))

    def _start(self) -> None:
        root, conf = self.root, self.root / "etc/slurm.conf"
        key = root / "etc/munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        places = [f"--{option}={root}/munge/{name}" for option, name in files.items()]
        self._spawn("munged", "--foreground", "--force", f"--key-file={key}", "--num-threads=2", *places)
        until((root / "munge/socket").is_socket, self._log("munged"))
        self._spawn("slurmctld", "-D", "-c", "-f", str(conf))
        until(lambda: "UP" in self._run("scontrol", "ping", check=False), self._log("slurmctld"))
        self._spawn("slurmd", "-D", "-f", str(conf), "-N", self.host)
        until(lambda: self._run("sinfo", "-h", "-o", "%t").strip() == "idle", self._log("slurmd"))
        Path("/run/sshd").mkdir(exist_ok=True)
        self._spawn("sshd", "-D", "-e", "-f", str(root / "etc/sshd_config"))
        until(self._listens, self._log("sshd"))

    def _spawn(self, program: str, *arguments: str) -> None:
        with self._log(program).open("ab") as log:
            command = [str(which(program)), *arguments]
            self._processes[program] = start_tied(command, output=log, environment=self.environment)

    def _log(self, program: str) -> Path:
        return self.root / "log" / f"{program}.out"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports["ssh_port"])) == 0

    def _run(self, *command: str, check: bool = True) -> str:
        return run(*command, environment=self.environment, check=check)

    def _write(self, name: str, text: str, **more: object) -> None:
        (self.root / name).write_text(text.format(**self._names(), **more).lstrip())

    def _names(self) -> dict[str, object]:
        return {
            "root": self.root,
            "host": self.host,
            "address": _address(self.host),
            "user": self.user,
            "cluster": CLUSTER,
            "gpu": GPU_TYPE,
            "num_gpus": NUM_GPUS,
            **self.ports,
        }

    # -- its end -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Jobs first, then the daemons, those that need others before these."""
        if "slurmctld" in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired, RuntimeError):  # should the controller be gone
                self._run("scancel", "--user", self.user)
                end = time.monotonic() + 20
                while self.queue() and time.monotonic() < end:
                    time.sleep(0.2)
        for program in reversed(list(self._processes)):
            end_tied(self._processes.pop(program), signal.SIGTERM, 10)


def end_user(user: str) -> None:
    """Whatever still runs as this user (SkyPilot's daemons outlive their job), what it left in /tmp, and the user."""
    uid = pwd.getpwnam(user).pw_uid
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.stat().st_uid == uid:
                os.kill(int(path.name), signal.SIGKILL)
    for path in Path("/tmp").iterdir():
        if path.lstat().st_uid == uid:
            run("rm", "-rf", path)
    run("userdel", "--force", user, check=False)


def run(*command: object, environment: dict[str, str] | None = None, check: bool = True) -> str:
    words = [str(word) for word in command]
    words[0] = which(words[0]) or words[0]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if check and answer.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {answer.returncode}: {answer.stderr.strip()}")
    return answer.stdout


def until(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not ready after {READY_S:g} s: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _address(host: str) -> str:
    """SkyPilot reaches the node by its name, so its address is what the name means here."""
    return socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
