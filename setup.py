"""Puts into the wheel what `configs` writes out; all else is in pyproject.toml.

Gateway configs, units and rules stay in deploy/, where the tests run them. In the wheel
they are below shared/configs, at the same place as in the checkout.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = (
    "deploy/gateways",
    "deploy/grafana",
    "deploy/prometheus",
    "deploy/systemd",
    ".env.example",
)


class BuildWithConfigs(build_py):
    """Copies the packages, and the configs beside them."""

    def run(self) -> None:
        """Build; an editable installation reads the checkout and needs no copy."""
        super().run()
        if not self.editable_mode:
            for source, target in self._configs().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return every file that a build writes."""
        return [*super().get_outputs(include_bytecode), *self._configs().values()]

    def _configs(self) -> dict[str, str]:
        """Return where each file goes, by where it is."""
        files = [
            path
            for place in map(Path, CONFIGS)
            for path in (place.rglob("*") if place.is_dir() else [place])
            if path.is_file()
        ]
        target = Path(self.build_lib, "shared", "configs")
        return {str(path): str(target / path) for path in sorted(files)}


setup(cmdclass={"build_py": BuildWithConfigs})
