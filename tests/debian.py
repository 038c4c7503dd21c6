"""Debian packages of another architecture, through apt with a private state: neither root nor the system is needed.

apt's configured sources are used as they are, or the release alone with its source packages; lists, caches and the
foreign architecture live in our folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
#: of apt's configuration, what is not taken over: places, hooks, and what we set ourselves
NOT_TAKEN = ("Dir", "DPkg", "APT::Update::", "APT::Architecture", "APT::Sandbox", "Acquire::Languages", "Binary")
#: where Debian's keys are; apt's own defaults where not
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class NoPackages(Exception):
    """apt cannot give the package here; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Apt:
    """apt for ``architecture`` with its state below ``folder``."""

    folder: Path
    architecture: str
    #: only the release itself (no updates, no security), with its source packages, instead of the configured sources
    release_alone: bool = False
    #: another release than the one that apt is configured for, from the same place
    release: str | None = None

    def run(self, *command: str, cwd: Path | None = None, seconds: float = 300.0) -> str:
        """The output of an apt program.  Raises NoPackages with what it said if it fails."""
        environment = dict(os.environ, APT_CONFIG=str(self.configuration), LC_ALL="C")
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise NoPackages(f"{' '.join(command)} took longer than {seconds:.0f} s") from None
        if done.returncode:
            raise NoPackages(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    @property
    def configuration(self) -> Path:
        return self.folder / "apt.conf"

    def prepare(self) -> None:
        """Make the private state and fetch the package lists."""
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise NoPackages(f"{', '.join(missing)} not found: this is not Debian")
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        system = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=30, check=True).stdout
        lines = [line for line in system.splitlines() if not line.startswith(NOT_TAKEN)]
        lines += [
            f'APT::Architecture "{self.architecture}";',
            f'APT::Architectures:: "{self.architecture}";',
            'APT::Sandbox::User "";',
            'Acquire::Languages "none";',
            'Acquire::Retries "3";',
            f'Dir::Etc::parts "{self.folder}/parts";',
            'Dir::Etc::main "/dev/null";',
            f'Dir::State "{self.folder}";',
            f'Dir::State::lists "{self.folder}/lists";',
            f'Dir::State::status "{self.folder}/status";',
            f'Dir::Cache "{self.folder}/cache";',
        ]
        if self.release_alone or self.release:
            (self.folder / "sources.list").write_text(release_sources(self.release))
            lines += [
                f'Dir::Etc::sourcelist "{self.folder}/sources.list";',
                'Dir::Etc::sourceparts "/dev/null";',
                'APT::Update::Error-Mode "any";',
            ]
        self.configuration.write_text("\n".join(lines) + "\n")
        self.run("apt-get", "-q", "update")

    def depends(self, package: str) -> list[str]:
        """What ``package`` depends on, directly."""
        lines = self.run("apt-cache", "depends", package).splitlines()
        return [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("Depends:")]

    def download(self, package: str, target: Path) -> None:
        """The files of a source package, whose signatures and digests apt checks, into ``target``."""
        target.mkdir(parents=True, exist_ok=True)
        self.run("apt-get", "-q", "source", "--download-only", package, cwd=target)

    def unpack(self, package: str, target: Path) -> str:
        """Download ``package`` and unpack it into ``target``; returns its name and version."""
        downloads = self.folder / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir()
        self.run("apt-get", "-q", "download", package, cwd=downloads)
        files = list(downloads.glob("*.deb"))
        if len(files) != 1:
            raise NoPackages(f"apt-get download {package} brought {len(files)} files")
        target.mkdir(parents=True, exist_ok=True)
        self.run("dpkg-deb", "-x", str(files[0]), str(target))
        fields = self.run("dpkg-deb", "-f", str(files[0]), "Package", "Version", "Architecture")
        shutil.rmtree(downloads)
        return " ".join(fields.split())


def release_sources(release: str | None = None) -> str:
    """sources.list for the release that apt is configured for, or another one of the same place.

    That is the first suite named without a hyphen that has main.
    """
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    for line in targets.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[2] == "main" and "-" not in fields[1]:
            signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
            suite = release or fields[1]
            return "".join(f"{kind} {signed}{fields[0]} {suite} main\n" for kind in ("deb", "deb-src"))
    raise NoPackages("apt is configured for no release of Debian")
