"""The settings are in setup.cfg; a source distribution also has tests and examples."""

from setuptools import setup
from setuptools.command.sdist import sdist

FOLDERS = (".ci", "benchmarks", "examples", "tests")
FILES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", ".ruff.toml")


class SourceDistribution(sdist):
    """All that the README's lines need: setuptools alone takes only the package."""

    def make_distribution(self) -> None:
        for folder in FOLDERS:
            self.filelist.graft(folder)
        self.filelist.extend(FILES)
        self.filelist.global_exclude("*.py[co]")
        super().make_distribution()


setup(cmdclass={"sdist": SourceDistribution})
