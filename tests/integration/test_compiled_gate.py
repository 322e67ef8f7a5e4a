"""The compiled modules pass the gate's own tests, and report it (decision 0009)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compile import CannotCompileError, compile_into, list_modules, main
from tests.support import compiled_gate
from tests.support.proofs import is_whole

ROOT = Path(__file__).resolve().parents[2]
#: The tests that run the gate in their own process.
GATE_TESTS = (
    "tests/unit/verifier",
    "tests/unit/shared",
    "tests/conformance",
    "tests/property/test_cache_is_transparent.py",
    "tests/property/test_cache_of_several_issuers.py",
    "tests/property/test_identity_headers.py",
    "tests/property/test_path_rules.py",
    "tests/property/test_verify_is_total.py",
    "tests/integration/verifier",
)
#: The part of these in every test run: all of the decision, from bytes to answer.
SHARE = (
    "tests/conformance/test_corpus.py",
    "tests/property/test_cache_is_transparent.py",
    "tests/property/test_verify_is_total.py",
    "tests/integration/verifier/test_wire_contract.py",
    "tests/unit/verifier/test_gate.py",
    "tests/unit/verifier/test_replay.py",
    "tests/unit/verifier/test_several_issuers.py",
    "tests/unit/verifier/test_verify.py",
)


@pytest.fixture(scope="module")
def compiled(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """What the image has, if that was built before in this run, or else our own."""
    run_folder = compiled_gate.run_folder(tmp_path_factory, request.config)
    if kept := compiled_gate.find(run_folder, compiled_gate.ask_here()):
        return kept
    folder = tmp_path_factory.mktemp("compiled")
    compile_or_skip(folder)
    return folder


def compile_or_skip(folder: Path, source: Path = ROOT) -> None:
    try:
        compile_into(folder, source)
    except CannotCompileError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; in CI it must be there")
        pytest.skip(str(error))


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.proof
def test_the_gates_own_tests_pass_on_it(
    compiled: Path, request: pytest.FixtureRequest
) -> None:
    """In a share a part of them, in a whole proof all."""
    vectors = request.config.getoption("--vectors")
    tests = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0"),
        *((f"--vectors={vectors}",) if vectors else ()),
        *(GATE_TESTS if is_whole() else SHARE),
        GATEHOUSE_TEST_COMPILED=str(compiled),
    )
    assert tests.returncode == 0, tests.stdout[-4_000:] + tests.stderr[-1_000:]


def test_the_share_is_a_part_of_the_gates_tests() -> None:
    for share in SHARE:
        assert (ROOT / share).is_file()
        assert share.startswith(GATE_TESTS)


def test_every_module_of_the_list_runs_compiled(compiled: Path) -> None:
    modules = list_modules()
    names = [module.removesuffix(".py").replace("/", ".") for module in modules]
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    )
    shown = run("-P", "-c", script, *names, PYTHONPATH=str(compiled))
    files = shown.stdout.split()
    assert len(files) == len(modules), shown.stderr
    assert all(file.startswith(f"{compiled}/") for file in files)
    assert all(file.endswith(".so") for file in files)


def test_a_refusal_makes_no_traceback(compiled: Path) -> None:
    """Another mypyc may write other code, and a refusal costs a sixth more then."""
    script = (
        "from verifier.check.denials import Denied\n"
        "from verifier.check.forward_auth import read_bearer\n"
        "try: read_bearer(b'Basic x')\n"
        "except Denied as error: print(error.__traceback__.tb_next)"
    )
    shown = run("-P", "-c", script, PYTHONPATH=str(compiled))
    assert shown.stdout == "None\n", shown.stderr


def test_packages_are_copied_and_compiled_in_a_new_folder(tmp_path: Path) -> None:
    """Also where `compiled` is what an image has: there it is one folder."""
    source, folder = tmp_path / "source", tmp_path / "new"
    for name in list_modules():
        module = source / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("def double(number: int) -> int:\n    return number * 2\n")
    for package in [path for path in source.rglob("*") if path.is_dir()]:
        (package / "__init__.py").touch()
        (package / "old.so").touch()
    compile_or_skip(folder, source)
    script = "from shared import feed; print(feed.__file__, feed.double(4))"
    shown = run("-P", "-c", script, PYTHONPATH=str(folder))
    file, number = shown.stdout.split()
    assert number == "8", shown.stderr
    assert file.startswith(f"{folder}/shared/feed.")
    assert file.endswith(".so")
    assert not list(folder.rglob("old.so"))
    assert not list(source.rglob("feed.*.so"))


def test_a_missing_compiler_names_the_package_to_install(tmp_path: Path) -> None:
    shown = run("-m", "deploy.compile", str(tmp_path / "new"), PATH=str(tmp_path))
    assert shown.returncode == 1
    assert "a C compiler is needed" in shown.stderr
    assert "Debian package gcc" in shown.stderr
    assert not (tmp_path / "new").exists()


def test_packages_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image was built without the compiled gate: a list of no modules is a fault."""
    assert main([str(tmp_path / "new"), "--source", str(tmp_path)]) == 1
    assert f"there is no verifier/check in {tmp_path}" in capsys.readouterr().err
