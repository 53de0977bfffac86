"""The Makefile's set-up on machines that lack something, and the lock that it installs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
TOOLS = ("sh", "make", "awk", "cat", "mkdir", "rm", "touch", "test", "echo", "env", "ls")
MACHINES = [
    {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
]
TORCH_FAMILY = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """The files that set-up reads, in a folder whose name has a space."""
    folder = tmp_path / "my clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(repository / name, folder / name)
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH folder with the standard tools and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"this test needs {tool}"
        (folder / tool).symlink_to(found)
    return folder


def make(clone: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
    return subprocess.run(
        [str(path / "make"), *arguments],
        cwd=clone,
        env={**kept, "PATH": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        encoding="utf-8",
        errors="replace",
    )


def write_script(file: Path, body: str) -> None:
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(0o755)


def refusal(clone: Path, path: Path, *arguments: str) -> str:
    """What `make setup` says when it refuses: one sentence, without make's own closing line."""
    done = make(clone, path, "setup", *arguments)
    assert done.returncode != 0, done.stdout
    assert done.stdout == ""
    assert not (clone / ".venv").exists()
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0]
    return lines[0]


def test_without_python_set_up_says_what_to_install(clone: Path, bare_path: Path) -> None:
    said = refusal(clone, bare_path)
    assert "needs Python 3.11, 3.12 or 3.13" in said
    assert "apt-get install python3 python3-venv" in said


def test_an_old_python_is_refused(clone: Path, bare_path: Path) -> None:
    # The probe runs in the real interpreter, told that it is 3.9.
    write_script(
        bare_path / "python3",
        f'shift; exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9, 18); $1"',
    )
    assert "needs Python 3.11, 3.12 or 3.13" in refusal(clone, bare_path)


def test_a_shim_that_does_not_run_is_passed_over(clone: Path, bare_path: Path) -> None:
    write_script(bare_path / "python3.13", "echo 'python3.13: command not found' >&2; exit 127")
    assert "needs Python 3.11, 3.12 or 3.13" in refusal(clone, bare_path)


def test_a_chosen_python_that_does_not_exist_is_named(clone: Path, bare_path: Path) -> None:
    (bare_path / "python3").symlink_to(sys.executable)
    assert "PYTHON=/nowhere/python3 is none" in refusal(clone, bare_path, "PYTHON=/nowhere/python3")


@pytest.mark.parametrize(
    "lacks",
    [
        pytest.param('[ "$1" = -m ]', id="the venv module refuses"),
        pytest.param('[ "$1" = -m ] || case "$2" in *ensurepip*) true;; *) false;; esac', id="no ensurepip"),
    ],
)
def test_a_python_without_venv_leaves_nothing_behind(clone: Path, bare_path: Path, lacks: str) -> None:
    # Debian's python3 begins the folder, then prints this and exits with 1.
    write_script(
        bare_path / "python3",
        f"if {lacks}; then\n"
        '  [ "$1" = -m ] && mkdir -p "$3/bin"\n'
        '  echo "The virtual environment was not created successfully because ensurepip is not available."\n'
        "  exit 1\n"
        "fi\n"
        f'exec "{sys.executable}" "$@"',
    )
    said = refusal(clone, bare_path)
    assert "python3 cannot make a virtual environment" in said
    assert "apt-get install python3-venv" in said


def test_make_alone_prints_help(clone: Path, bare_path: Path) -> None:
    done = make(clone, bare_path)
    assert done.returncode == 0
    assert done.stderr == ""
    for target in ("demo", "test", "lint", "lock", "clean"):
        assert f"make {target} " in done.stdout
    assert not (clone / ".venv").exists()


@pytest.fixture
def ready_clone(clone: Path) -> Iterator[Path]:
    """A clone whose set-up is complete, with this interpreter in place of its own."""
    binaries = clone / ".venv" / "bin"
    binaries.mkdir(parents=True)
    write_script(binaries / "python", f'exec "{sys.executable}" "$@"')
    (clone / ".venv" / ".torch-backend").write_text("\n", encoding="utf-8")
    (clone / ".venv" / ".ready").touch()
    (clone / "test_one.py").write_text("def test_one():\n    assert True\n", encoding="utf-8")
    yield clone


def test_a_second_run_goes_straight_to_work(ready_clone: Path, bare_path: Path) -> None:
    done = make(ready_clone, bare_path, "test", "PYTEST_ARGS=test_one.py -p no:cacheprovider")
    assert done.returncode == 0, done.stderr
    assert "1 passed" in done.stdout
    assert "Setting up" not in done.stdout


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_newer_lock_is_installed(ready_clone: Path, bare_path: Path, changed: str) -> None:
    assert make(ready_clone, bare_path, "-q", "setup").returncode == 0
    os.utime(ready_clone / ".venv" / ".ready", (1, 1))
    os.utime(ready_clone / changed)
    assert make(ready_clone, bare_path, "-q", "setup").returncode == 1


def test_another_torch_build_is_installed_and_remembered(ready_clone: Path, bare_path: Path) -> None:
    assert make(ready_clone, bare_path, "-q", "setup", "TORCH_BACKEND=cu126").returncode == 1
    (ready_clone / ".venv" / ".torch-backend").write_text("cu126\n", encoding="utf-8")
    assert make(ready_clone, bare_path, "-q", "setup", "TORCH_BACKEND=cu126").returncode == 0
    assert make(ready_clone, bare_path, "-q", "setup").returncode == 0
    plan = make(ready_clone, bare_path, "-n", "setup", "TORCH_BACKEND=cpu").stdout
    assert "--torch-backend cpu" in plan
    assert plan.count("--require-hashes") == 2, "pip and uv both check hashes"


def test_an_interrupted_set_up_is_begun_anew(ready_clone: Path, bare_path: Path) -> None:
    (ready_clone / ".venv" / ".ready").unlink()
    # Without any Python on PATH the repair must end in the sentence, and take the remains away.
    assert "needs Python" in refusal(ready_clone, bare_path)


def test_a_copied_or_moved_checkout_is_set_up_again(clone: Path, bare_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=clone, check=True)
    (clone / ".venv" / ".torch-backend").write_text("\n", encoding="utf-8")
    (clone / ".venv" / ".ready").touch()
    assert make(clone, bare_path, "-q", "setup").returncode == 0
    (clone.parent / "link").symlink_to(clone)
    assert make(clone.parent / "link", bare_path, "-q", "setup").returncode == 0
    copy = clone.parent / "copy"
    shutil.copytree(clone, copy, symlinks=True)
    plan = make(copy, bare_path, "-n", "setup")
    assert f"This checkout was copied or moved (its .venv is that of {clone}/.venv)" in plan.stdout
    shutil.move(clone, clone.parent / "moved")
    assert make(clone.parent / "moved", bare_path, "-q", "setup").returncode == 1


@pytest.fixture
def drawn_python(bare_path: Path) -> Path:
    """A PATH folder whose python3 makes an environment that does nothing, in a second; `made` counts them."""
    tool = "mkdir -p .venv/bin; cd .venv/bin; for i in python uv; do echo '[ x$3 != xconfig ]' > $i; chmod +x $i; done"
    write_script(bare_path / "python3", f'[ "$2" != venv ] || {{ echo made >> made; sleep 1; {tool}; }}')
    for name in ("sleep", "chmod"):
        (bare_path / name).symlink_to(str(shutil.which(name)))
    return bare_path


@pytest.mark.parametrize("with_flock", [True, False])
def test_two_set_ups_at_once_make_one_environment(clone: Path, drawn_python: Path, with_flock: bool) -> None:
    if with_flock:
        (drawn_python / "flock").symlink_to(shutil.which("flock") or pytest.skip("no flock"))
    command, environment = [str(drawn_python / "make"), "setup"], {"PATH": str(drawn_python), "HOME": str(clone)}
    both = [
        subprocess.Popen(
            command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("waiting for it" in text for text in said) == [False, True]
    assert sorted("Setting up" in text for text in said) == [False, True]
    assert (clone / "made").read_text(encoding="utf-8") == "made\n" and (clone / ".venv" / ".ready").exists()
    assert not (clone / ".venv.locked").exists()


def test_the_lock_of_a_killed_set_up_is_removed(clone: Path, drawn_python: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    (clone / ".venv.locked").mkdir()
    (clone / ".venv.locked" / "pid").write_text(f"{gone.pid}\n", encoding="utf-8")
    assert make(clone, drawn_python, "setup").returncode == 0


def test_an_unwritable_cache_ends_in_a_sentence_and_the_set_up_goes_on(clone: Path, drawn_python: Path) -> None:
    (clone / "file").touch()
    done = make(clone, drawn_python, "setup", f"HOME={clone / 'file'}")
    assert done.returncode == 0, done.stderr
    assert f"{clone / 'file'}/.cache/uv is not writable, so downloads are not cached" in done.stdout


def test_the_check_script_is_executable_and_parses(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_no_set_up_file_names_a_registry(repository: Path) -> None:
    for name in ("Makefile", "environment.yml", ".ci/run", "pyproject.toml", "requirements.lock"):
        assert "://" not in (repository / name).read_text(encoding="utf-8"), name


@pytest.fixture(scope="module")
def lock(repository: Path) -> list[tuple[Requirement, int]]:
    """Each requirement of the lock with its number of hashes."""
    text = (repository / "requirements.lock").read_text(encoding="utf-8")
    logical = [line for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    parts = [line.split("--hash=sha256:") for line in logical if line.strip()]
    return [(Requirement(head), len(hashes)) for head, *hashes in parts]


def test_every_pin_is_exact_and_hashed(lock: list[tuple[Requirement, int]]) -> None:
    assert len(lock) > 100
    for requirement, hashes in lock:
        assert hashes > 0, requirement
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None, requirement


def dependencies(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    extras = project["project"]["optional-dependencies"]
    listed = [
        *project["project"]["dependencies"],
        *extras["workflow"],
        *groups["dev"],
        *groups["annotate"],
        *groups["setup"],
    ]
    from_checkout = project["tool"]["uv"]["sources"]
    return [one for one in map(Requirement, listed) if one.name not in from_checkout]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['sys_platform']}-{m['platform_machine']}")
def test_the_lock_serves_every_supported_machine(
    repository: Path, lock: list[tuple[Requirement, int]], machine: dict[str, str], python: str
) -> None:
    versions = {"python_version": python, "python_full_version": f"{python}.0"}
    here = {key: str(value) for key, value in default_environment().items()} | machine | versions
    chosen = [req for req, _ in lock if req.marker is None or req.marker.evaluate(here)]
    pins = {canonicalize_name(req.name): next(iter(req.specifier)).version for req in chosen}
    assert len(pins) == len(chosen), "a package is pinned twice"
    for wanted in dependencies(repository):
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_the_running_environment_is_the_locked_one(lock: list[tuple[Requirement, int]]) -> None:
    stamp = Path(sys.prefix) / ".ready"
    if not stamp.exists():
        pytest.skip("this environment was not made by the Makefile")
    own_torch = (stamp.parent / ".torch-backend").read_text(encoding="utf-8").strip() != ""
    for requirement, _ in lock:
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if own_torch and TORCH_FAMILY.fullmatch(requirement.name):
            continue
        found = installed_version(requirement.name)
        assert found is not None and found in requirement.specifier, f"{requirement}: found {found}"


def test_conda_installs_the_same_lock(repository: Path) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "luab"
    python, pip, from_pip = environment["dependencies"]
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert python.removeprefix("python=") in Requirement(f"python{project['requires-python']}").specifier
    assert pip == "pip"
    assert from_pip == {"pip": ["-r requirements.lock"]}
